"""Estimate memory, time, storage, reads and cluster cost of a sweep before it runs."""

from lola.core.cli import launch
from lola.core.waiting import loading
from lola.workflows import presets
from lola.workflows.sweep import SweepConfig


def main(config: SweepConfig) -> None:
    """Print the models of a sweep with their memory, its stages with their hours, storage and reads, and wall
    time and cost on a cluster, as `--plan` of every other command does.

    Finished stages cost nothing; their measured speed is used for similar stages. Too little free storage is
    an error.
    """
    with loading():
        from lola.workflows.forecast.show import show_sweep

    show_sweep(config)


if __name__ == "__main__":
    launch(main, presets.SWEEPS, "paper", presets.GIVEN)
