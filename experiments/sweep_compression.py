"""Sweep compression rate, model and solver steps, and report what compression costs."""

import presets

from lola.cli import launch
from lola.distributed.sweep import SweepConfig
from lola.distributed.tune import run_sweep


def main(config: SweepConfig) -> None:
    """Train autoencoders at several compression rates, diffusion models and neural solvers in their latent
    spaces and a neural solver in pixel space; evaluate all of them on test trajectories and write a report.

    Missing data are simulated first. Whatever is finished is reused; an interrupted sweep goes on.
    """
    run_sweep(config)


if __name__ == "__main__":
    launch(main, presets.SWEEPS, default="mini", given=("system",))
