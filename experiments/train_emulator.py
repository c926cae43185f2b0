"""Train emulators, and the autoencoders and caches that they need, as stages that a sweep reuses."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal

from lola.core.cli import launch
from lola.core.config import require
from lola.core.waiting import loading
from lola.models.kinds import KindOption, require_kind
from lola.workflows import presets
from lola.workflows.sweep import SweepConfig

if TYPE_CHECKING:
    from lola.workflows.arms import PlannedEmulator
    from lola.workflows.plan import SweepPlan


@dataclasses.dataclass(frozen=True, kw_only=True)
class Emulators(SweepConfig):
    """The emulators to train.

    Arguments:
        model: The kind of emulator.
        space: latent (one emulator per number of latent channels) or pixel (the fields themselves).
    """

    model: KindOption = "diffusion"
    space: Literal["latent", "pixel"] = "latent"

    def validate(self) -> None:
        super().validate()
        if self.space == "pixel":
            require(
                self.pixel is not None,
                f"no emulator of {self.system} in pixel space (too many patches in 3d); use --space latent",
            )
            assert self.pixel is not None
            pixel = require_kind(self.pixel).option
            require(self.model == pixel, f"--space pixel needs --model {pixel}")

    @property
    def ineffective(self) -> dict[str, str]:
        chosen = self.model.replace("-", "_")
        return {name: reason for name, reason in super().ineffective.items() if name != chosen}

    def complete(self) -> "Emulators":
        """This configuration with the chosen kind among those of its plan."""
        name = self.model.replace("-", "_")
        return self if name in self.emulators else self.replace(emulators=(*self.emulators, name))

    def chosen(self, plan: "SweepPlan") -> Iterator["PlannedEmulator"]:
        """The emulators, one for each number of latent channels and seed."""
        wanted = self.model.replace("-", "_"), self.space == "pixel"
        return (one for one in plan.emulators if (one.name, one.latent_channels is None) == wanted)


def configure(preset: Callable[..., SweepConfig]) -> Callable[..., Emulators]:
    return lambda **given: Emulators(**vars(preset(**given)))


def main(config: Emulators) -> None:
    """Train emulators, each from its last checkpoint if there is one; finished stages are kept.

    Autoencoders and latent caches that they need are trained and encoded first.
    """
    config = config.complete()
    with loading():
        from lola.workflows.forecast.show import show_sweep
        from lola.workflows.run import run_stages

    choose = lambda plan: map(plan.emulator, config.chosen(plan))  # noqa: E731
    what = f"{config.model} {config.space}"
    show_sweep(config, choose) if config.plan else run_stages(config, what, choose)


if __name__ == "__main__":
    sweeps = {name: configure(preset) for name, preset in presets.SWEEPS.items()}
    launch(main, sweeps, default="mini", given=presets.GIVEN)
