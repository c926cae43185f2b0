"""The configuration of rollouts beyond the stored truth."""

import dataclasses
from typing import Annotated

from lola.core.config import NonNegativeInt, Within, require, runtime_field
from lola.emulation.ensemble_config import EnsembleConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class LongRolloutConfig(EnsembleConfig):
    """Rollouts much longer than trajectories of the training, and the flow that they are compared with.

    Arguments:
        horizon: Length of the rollouts, in lengths of a trajectory of the initial file, unless `states` says
            it.
        truth: The Well file of the flow, such as a longer simulation with the same constants; without it, the
            initial file. All of its trajectories count.
        stationary: From which state on the flow is statistically stationary; without it, the second half of
            a trajectory of `truth` is. Rollouts count from the same state on.
        flux: Two channels whose mean product is compared, such as buoyancy and velocity_y of convection: the
            heat flux, and the Nusselt number where files say Rayleigh and Prandtl.
        output: The JSON file of all numbers.
    """

    horizon: Annotated[float, Within("(0, 1e4]")] = 5.0
    truth: str | None = None
    stationary: NonNegativeInt | None = None
    flux: tuple[str, str] | None = None
    output: str = runtime_field("long_rollouts.json")

    def validate(self) -> None:
        super().validate()
        require(not self.backward, "--backward: long rollouts go forward in time")
