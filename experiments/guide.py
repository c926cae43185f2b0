"""Emulate test trajectories with and without observations of them (the paper's Figure 6)."""

from collections.abc import Callable

import announce  # noqa: F401
import presets

from lola.cli import launch
from lola.distributed.sweep import SweepConfig
from lola.distributed.tune import run_sweep
from lola.guidance import GuidanceConfig
from lola.observation import ObservationConfig


def of(preset: Callable[..., SweepConfig]) -> Callable[..., SweepConfig]:
    """A sweep with observations."""
    return lambda **given: preset(**given).replace(observed=ObservationConfig(), guidance=GuidanceConfig())


def main(config: SweepConfig) -> None:
    """Sweep as sweep_compression.py does, and evaluate the diffusion models also with their draws guided by
    partial, noisy observations of the test trajectories; the report shows both over lead time.

    Whatever a sweep has finished is reused.
    """
    run_sweep(config)


if __name__ == "__main__":
    sweeps = {name: of(preset) for name, preset in presets.SWEEPS.items()}
    launch(main, sweeps, default="mini", given=("system",))
