"""The configuration of neural solvers."""

import dataclasses
from typing import TYPE_CHECKING

from lola.models.emulator_config import EmulatorConfig

if TYPE_CHECKING:
    from lola.models.neural_solver import NeuralSolver


@dataclasses.dataclass(frozen=True, kw_only=True)
class NeuralSolverConfig(EmulatorConfig):
    """A neural solver.

    Arguments:
        network: The network.
        warm_start: As in `EmulatorConfig`.
    """

    def build(self, channels: int, parameters: int, spatial: int, window: int) -> "NeuralSolver":
        from lola.models.neural_solver import NeuralSolver

        return NeuralSolver(self, channels, parameters, spatial, window)
