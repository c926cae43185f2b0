"""The configuration of diffusion models."""

import dataclasses
from typing import TYPE_CHECKING

from lola.core.config import Config
from lola.models.schedule_config import ScheduleConfig, TimePriorConfig
from lola.models.transformer_config import TransformerConfig
from lola.models.unet_config import UNetConfig

if TYPE_CHECKING:
    from lola.models.diffusion import Diffusion


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiffusionConfig(Config):
    """A diffusion model.

    Arguments:
        network: The network.
        schedule: The noise schedule.
        times: How the times of the objective are distributed.
    """

    network: TransformerConfig | UNetConfig = dataclasses.field(default_factory=TransformerConfig)
    schedule: ScheduleConfig = dataclasses.field(default_factory=ScheduleConfig)
    times: TimePriorConfig = dataclasses.field(default_factory=TimePriorConfig)

    @property
    def random(self) -> bool:
        """Masks, times and noise are drawn."""
        return True

    def build(self, channels: int, parameters: int, spatial: int, window: int) -> "Diffusion":
        """The model of windows of `window` states of `channels` fields on `spatial` grid axes."""
        from lola.models.diffusion import Diffusion

        return Diffusion(self, channels, parameters, spatial, window)
