"""Sweep compression rate, model and solver steps, and report what compression costs."""

from lola.core.cli import launch
from lola.core.waiting import loading
from lola.workflows import presets
from lola.workflows.sweep import SweepConfig


def main(config: SweepConfig) -> None:
    """Train autoencoders at several compression rates, diffusion models and neural solvers in their latent
    spaces and a neural solver in pixel space; evaluate all of them on test trajectories and write a report.

    Missing data are simulated first. Finished stages are reused; an interrupted sweep resumes.
    """
    with loading():
        from lola.workflows.forecast.show import show_sweep
        from lola.workflows.run import run_sweep

    show_sweep(config) if config.plan else run_sweep(config)


if __name__ == "__main__":
    launch(main, presets.SWEEPS, "mini", presets.GIVEN)
