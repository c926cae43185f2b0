"""Emulate test trajectories with and without observations of them (the paper's Figure 6)."""

from collections.abc import Callable

from lola.core.cli import launch
from lola.core.waiting import loading
from lola.emulation.guidance_config import GuidanceConfig
from lola.emulation.observation_config import ObservationConfig
from lola.workflows import presets
from lola.workflows.sweep import SweepConfig


def configure(preset: Callable[..., SweepConfig]) -> Callable[..., SweepConfig]:
    return lambda **given: preset(**given).replace(observed=ObservationConfig(), guidance=GuidanceConfig())


def main(config: SweepConfig) -> None:
    """Sweep as sweep_compression.py does, and evaluate the diffusion models also with their draws guided by
    partial, noisy observations of the test trajectories; the report shows both over lead time.

    Stages that a sweep has finished are reused.
    """
    with loading():
        from lola.workflows.forecast.show import show_sweep
        from lola.workflows.run import run_sweep

    show_sweep(config) if config.plan else run_sweep(config)


if __name__ == "__main__":
    sweeps = {name: configure(preset) for name, preset in presets.SWEEPS.items()}
    launch(main, sweeps, default="mini", given=presets.GIVEN)
