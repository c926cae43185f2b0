"""Describe a dataset: `describe.py FOLDER` writes a commented draft of `system.yaml` next to its data."""

import dataclasses

import tyro

from lola.core.cli import launch_alone
from lola.core.config import Config
from lola.core.waiting import loading


@dataclasses.dataclass(frozen=True, kw_only=True)
class Draft(Config):
    """The dataset to describe.

    Arguments:
        folder: The folder of the dataset, which holds data/train.
        overwrite: Whether to replace a description that exists.
        exclude: Skip files whose name contains one of these, and trajectories FILE#NUMBER.
    """

    folder: tyro.conf.Positional[str]
    overwrite: bool = False
    exclude: tuple[str, ...] = ()


def main(config: Draft) -> None:
    """Read a few states of a dataset and write what they suggest for its description, and why.

    The description is used by all commands that are given the folder as --system. Edit it first.
    """
    with loading():
        from lola.data.draft import describe_dataset

    path = describe_dataset(config.folder, config.overwrite, print, config.exclude)
    print(f"description: {path}")


if __name__ == "__main__":
    launch_alone(main, Draft)
