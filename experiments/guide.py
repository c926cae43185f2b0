"""Emulate test trajectories with and without observations of them (the paper's Figure 6)."""

from collections.abc import Callable

import announce  # noqa: F401

from lola.core.cli import launch
from lola.emulation.guidance import GuidanceConfig
from lola.emulation.observations import ObservationConfig
from lola.workflows import presets
from lola.workflows.sweep import SweepConfig


def of(preset: Callable[..., SweepConfig]) -> Callable[..., SweepConfig]:
    """A sweep with observations."""
    return lambda **given: preset(**given).replace(observed=ObservationConfig(), guidance=GuidanceConfig())


def main(config: SweepConfig) -> None:
    """Sweep as sweep_compression.py does, and evaluate the diffusion models also with their draws guided by
    partial, noisy observations of the test trajectories; the report shows both over lead time.

    Whatever a sweep has finished is reused.
    """
    from lola.workflows.forecast.show import show_sweep
    from lola.workflows.run import run_sweep

    show_sweep(config) if config.plan else run_sweep(config)


if __name__ == "__main__":
    sweeps = {name: of(preset) for name, preset in presets.SWEEPS.items()}
    launch(main, sweeps, default="mini", given=("system",))
