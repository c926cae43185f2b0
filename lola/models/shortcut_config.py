"""The configuration of few-step diffusion."""

import dataclasses
from typing import TYPE_CHECKING, Annotated

from lola.core.config import Within, require
from lola.models.diffusion_config import DiffusionConfig

if TYPE_CHECKING:
    from lola.models.shortcut import Shortcut


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShortcutConfig(DiffusionConfig):
    """A diffusion model that draws windows in 1, 2, 4 ... evaluations of its network.

    Arguments:
        network: The network.
        warm_start, masks, predicts, context_noise, rollout_noise, rollout_windows, rollout_gradient: As in
            `EmulatorConfig`; one window alone.
        loss_states, schedule, times: As of diffusion models.
        consistency: The share of samples whose step must lead where two of half its length do; the others are
            those of a diffusion model.
        finest: Steps of the finest discretisation, whose steps take the denoised state, a power of 2.
    """

    consistency: Annotated[float, Within("(0, 1)")] = 0.25
    finest: Annotated[int, Within("[2, 65536]")] = 128

    def validate(self) -> None:
        super().validate()
        require(self.finest.bit_count() == 1, f"--finest must be a power of 2, not {self.finest}")

    @property
    def levels(self) -> int:
        """Lengths of steps, J; the finest discretisation has 2^J steps."""
        return self.finest.bit_length() - 1

    @property
    def training_passes(self) -> float:
        """As of diffusion, and two forward passes of the samples with steps."""
        return super().training_passes + 2 * self.consistency

    def build(self, channels: int, parameters: int, spatial: int, window: int) -> "Shortcut":
        from lola.models.shortcut import Shortcut

        return Shortcut(self, channels, parameters, spatial, window)
