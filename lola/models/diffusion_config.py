"""The configuration of diffusion models."""

import dataclasses
from typing import TYPE_CHECKING

from lola.models.emulator_config import EmulatorConfig
from lola.models.schedule_config import ScheduleConfig, TimePriorConfig

if TYPE_CHECKING:
    from lola.models.diffusion import Diffusion


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiffusionConfig(EmulatorConfig):
    """A diffusion model.

    Arguments:
        network: The network.
        warm_start: As in `EmulatorConfig`.
        schedule: The noise schedule.
        times: How the times of the objective are distributed.
    """

    schedule: ScheduleConfig = dataclasses.field(default_factory=ScheduleConfig)
    times: TimePriorConfig = dataclasses.field(default_factory=TimePriorConfig)

    def build(self, channels: int, parameters: int, spatial: int, window: int) -> "Diffusion":
        from lola.models.diffusion import Diffusion

        return Diffusion(self, channels, parameters, spatial, window)
