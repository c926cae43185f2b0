"""Sweep compression rate, model and solver steps, and report what compression costs."""

import dataclasses
from collections.abc import Callable

import announce  # noqa: F401
import plan

from lola.core.cli import launch
from lola.core.config import how
from lola.workflows import presets
from lola.workflows.forecast.console import show_forecast
from lola.workflows.run import run_sweep
from lola.workflows.sweep import SweepConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep(plan.Planned):
    """A sweep, or what it would take.

    Arguments:
        plan: Whether to print what the sweep will take on the cluster, and do nothing else.
    """

    plan: bool = how(False)

    def whole(self) -> SweepConfig:
        """The sweep alone, by which its results are named."""
        return SweepConfig(**{f.name: getattr(self, f.name) for f in dataclasses.fields(SweepConfig)})


def of(preset: Callable[..., SweepConfig]) -> Callable[..., Sweep]:
    """The sweep of a preset."""
    return lambda **given: Sweep(**vars(plan.of(preset)(**given)))


def main(config: Sweep) -> None:
    """Train autoencoders at several compression rates, diffusion models and neural solvers in their latent
    spaces and a neural solver in pixel space; evaluate all of them on test trajectories and write a report.

    Missing data are simulated first. Whatever is finished is reused; an interrupted sweep goes on.
    """
    if config.plan:
        show_forecast(config.whole(), config.cluster)
    else:
        run_sweep(config.whole())


if __name__ == "__main__":
    launch(main, {name: of(preset) for name, preset in presets.SWEEPS.items()}, "mini", ("system",))
