"""The configuration of diffusion models."""

import dataclasses
from typing import TYPE_CHECKING

from lola.core.config import added_field, require
from lola.models.emulator_config import EmulatorConfig, LossStates
from lola.models.schedule_config import ScheduleConfig, TimePriorConfig

if TYPE_CHECKING:
    from lola.models.diffusion import Diffusion


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiffusionConfig(EmulatorConfig):
    """A diffusion model.

    Arguments:
        network: The network.
        warm_start, masks, predicts, context_noise, rollout_noise, rollout_windows, rollout_gradient: As in
            `EmulatorConfig`; one window alone.
        loss_states: Whether the loss is over all states of a window (published) or its unknown ones alone.
        schedule: The noise schedule.
        times: How the times of the objective are distributed.
    """

    kind_name = "diffusion"

    loss_states: LossStates = added_field("published")

    schedule: ScheduleConfig = dataclasses.field(default_factory=ScheduleConfig)
    times: TimePriorConfig = dataclasses.field(default_factory=TimePriorConfig)

    def validate(self) -> None:
        super().validate()
        require(
            self.rollout_windows == 1,
            f"--rollout-windows {self.rollout_windows}: diffusion models are only trained on single "
            "windows, since drawing one takes many evaluations of the network; leave it out",
        )

    def build(self, channels: int, parameters: int, spatial: int, window: int) -> "Diffusion":
        from lola.models.diffusion import Diffusion

        return Diffusion(self, channels, parameters, spatial, window)
