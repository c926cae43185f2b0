"""Compute the statistics of a training set: `compute_statistics.py NAME [--option value ...]`."""

import dataclasses

import tyro

from lola.core.cli import launch_alone
from lola.core.config import Config, NonNegativeInt, runtime_field
from lola.core.waiting import loading
from lola.storage.stages import resolve_storage, well_folder


@dataclasses.dataclass(frozen=True, kw_only=True)
class Statistics(Config):
    """The data whose statistics are computed.

    Arguments:
        name: A physical system, a dataset in --well, the folder of a dataset, or a description file.
        well: The folder of Well datasets, absolute, under the storage root, or a URL.
        include: Use only files whose name contains one of these; default: all files.
        exclude: Skip files whose name contains one of these, and trajectories FILE#NUMBER.
        storage: The storage root, a folder or a URL; else LOLA_STORAGE, else ~/lola-storage.
        block: Number of states read at once; 0 is as many as memory allows.
    """

    name: tyro.conf.Positional[str]
    well: str = runtime_field("well")
    include: tuple[str, ...] = runtime_field(())
    exclude: tuple[str, ...] = runtime_field(())
    storage: str | None = runtime_field(None)
    block: NonNegativeInt = runtime_field(0)


def main(config: Statistics) -> None:
    """Read a training set once and write mean, standard deviation, minimum and maximum of its fields.

    The other splits that exist are searched for faults.
    """
    with loading():
        from lola.data.well.datasets import Datasets
        from lola.data.well.find import find_system
        from lola.distributed.cluster.connection import connect, stopping_ray
        from lola.distributed.jobs.compute_statistics import (
            compute_statistics,
            left_bounds,
            other_splits,
            statistics_stage,
        )

    root = resolve_storage(config.storage)
    datasets = Datasets(well_folder(root, config.well), config.include, config.exclude)
    system, datasets = find_system(config.name, datasets)
    datasets.check(system)
    train, others = datasets.open(system, "train").fingerprint, other_splits(datasets, system)
    prints = {name: split.fingerprint for name, split in others.items()}
    stage = statistics_stage(root, system, train, config.block, prints)
    with stopping_ray(print), stage.logged_lease(print):
        if not stage.finished:
            connect()
            compute_statistics(stage, system, datasets, print)
    print((stage.folder / "stats.yaml").read_text().rstrip())
    for line in left_bounds(stage, system):
        print(line)
    print(f"statistics: {stage.folder / 'stats.yaml'}")


if __name__ == "__main__":
    launch_alone(main, Statistics)
