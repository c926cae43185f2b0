"""Tell what a sweep will take before it is paid for: time, storage, reads and money on a cluster."""

import dataclasses
from collections.abc import Callable

import announce  # noqa: F401

from lola.core.cli import launch
from lola.workflows import presets
from lola.workflows.forecast.capacity import ClusterConfig
from lola.workflows.forecast.console import show_forecast
from lola.workflows.sweep import SweepConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Planned(SweepConfig):
    """A sweep, and where it is to run.

    Arguments:
        cluster: The cluster.
    """

    cluster: ClusterConfig = dataclasses.field(default_factory=ClusterConfig, metadata={"how": True})


def of(preset: Callable[..., SweepConfig]) -> Callable[..., Planned]:
    """The sweep of a preset, on GPUs if it trains on them."""

    def build(**given: str) -> Planned:
        sweep = preset(**given)
        return Planned(**vars(sweep), cluster=ClusterConfig(gpus=16 if sweep.emulator_training.gpus else 0))

    return build


def main(config: Planned) -> None:
    """Print the stages of a sweep with their hours, storage and reads; wall time and cost on a cluster.

    What is finished is reused, and tells the speed of what is alike. A storage that is too small is refused.
    """
    show_forecast(config, config.cluster)


if __name__ == "__main__":
    launch(main, {name: of(preset) for name, preset in presets.SWEEPS.items()}, "paper", ("system",))
