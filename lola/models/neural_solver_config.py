"""The configuration of neural solvers."""

import dataclasses
from typing import TYPE_CHECKING

from lola.core.config import added_field
from lola.models.emulator_config import EmulatorConfig, LossStates

if TYPE_CHECKING:
    from lola.models.neural_solver import NeuralSolver


@dataclasses.dataclass(frozen=True, kw_only=True)
class NeuralSolverConfig(EmulatorConfig):
    """A neural solver.

    Arguments:
        network: The network.
        warm_start, masks, predicts, context_noise, rollout_noise, rollout_windows, rollout_gradient: As in
            `EmulatorConfig`.
        loss_states: Whether the loss is over all states of a window (published) or its unknown ones alone.
    """

    kind_name = "neural-solver"

    loss_states: LossStates = added_field("published")

    def build(self, channels: int, parameters: int, spatial: int, window: int) -> "NeuralSolver":
        from lola.models.neural_solver import NeuralSolver

        return NeuralSolver(self, channels, parameters, spatial, window)
