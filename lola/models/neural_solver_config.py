"""The configuration of neural solvers."""

import dataclasses
from typing import TYPE_CHECKING

from lola.core.config import Config
from lola.models.transformer_config import TransformerConfig
from lola.models.unet_config import UNetConfig

if TYPE_CHECKING:
    from lola.models.neural_solver import NeuralSolver


@dataclasses.dataclass(frozen=True, kw_only=True)
class NeuralSolverConfig(Config):
    """A neural solver.

    Arguments:
        network: The network.
    """

    network: TransformerConfig | UNetConfig = dataclasses.field(default_factory=TransformerConfig)

    @property
    def random(self) -> bool:
        """Masks are drawn."""
        return True

    def build(self, channels: int, parameters: int, spatial: int, window: int) -> "NeuralSolver":
        """The solver of windows of `window` states of `channels` fields on `spatial` grid axes."""
        from lola.models.neural_solver import NeuralSolver

        return NeuralSolver(self, channels, parameters, spatial, window)
