"""The configuration of ensembles that are trained with the CRPS."""

import dataclasses
from typing import TYPE_CHECKING, Annotated

from lola.core.config import NotNegative, Size, Within
from lola.models.emulator_config import EmulatorConfig

if TYPE_CHECKING:
    from lola.models.crps_ensemble import CRPSEnsemble


@dataclasses.dataclass(frozen=True, kw_only=True)
class CRPSEnsembleConfig(EmulatorConfig):
    """An ensemble that is trained with the CRPS.

    Arguments:
        network: The network.
        warm_start, masks, predicts, context_noise, rollout_noise, rollout_windows, rollout_gradient: As in
            `EmulatorConfig`.
        members: Members of a training sample, M.
        alpha: The weight of the fair CRPS; 1 - alpha is that of the CRPS of the finite ensemble.
        noise: Random numbers of a member's window, N.
        energy: The weight of the energy score of blocks of the grid, which is added to the CRPS.
        energy_block: Cells of such a block along each grid axis.
    """

    kind_name = "crps-ensemble"

    members: Annotated[int, Within("[2, 8]")] = 4
    alpha: Annotated[float, Within("[0, 1]")] = 0.95
    noise: Annotated[int, Within("[1, 4096]")] = 32
    energy: NotNegative = 0.0
    energy_block: Size = 4

    @property
    def training_passes(self) -> float:
        return self.members * super().training_passes

    def build(self, channels: int, parameters: int, spatial: int, window: int) -> "CRPSEnsemble":
        from lola.models.crps_ensemble import CRPSEnsemble

        return CRPSEnsemble(self, channels, parameters, spatial, window)
