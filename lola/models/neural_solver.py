r"""The neural solver: a point estimate of a window from its known states (Section 3.4).

With `x` a window of states, `m` the mask of its known states, `theta` the simulation's parameters and `s` the
network, the objective is mean regression (Eq. 8):

    argmin_s  E ||s(x * m, m, theta) - x||^2

where the norm is over the cells of the domain. It may be over the unknown states alone, and over several
windows that follow each other (`lola.models.rollout_loss`), of which those after the first count with their
unknown states. The network may predict the change from the nearest known state, and be given noisy known
states (`lola.models.context`).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lola.core.seeding import SampleGenerator
from lola.data.state import Batch
from lola.models.binding import BoundNetwork
from lola.models.context import ContextNoise, embed, level_embedding, rollout_label, state_change
from lola.models.masks import check_window, draw_mask, unknown_mean, valid_mean
from lola.models.neural_solver_config import NeuralSolverConfig
from lola.models.rollout_loss import complete_windows


class NeuralSolver(nn.Module):
    """A neural solver, in latent or pixel space.

    Arguments:
        config: Its configuration.
        channels: Channels of a state.
        parameters: Parameters of a simulation, P; with none the network is not modulated.
        spatial: Grid axes.
        window: States of a window, L.
    """

    def __init__(
        self, config: NeuralSolverConfig, channels: int, parameters: int, spatial: int, window: int
    ) -> None:
        super().__init__()
        check_window(window)
        self.config = config
        self.window = window
        modulated = config.labels(parameters) > 0 or config.context_noise > 0
        self.network = config.network.build(channels, spatial, modulated=modulated)
        self.embed_parameters = config.embedding(parameters)
        self.embed_level = level_embedding(config)
        self.change = state_change(config, channels)

    def forward(self, x: Tensor, mask: Tensor, label: Tensor) -> Tensor:
        """Estimate a window.

        Arguments:
            x: States, standardised, of which only the known matter, with shape `(B, C, L, *grid)`.
            mask: True where an element is known, with a shape that expands to that of `x`.
            label: Parameters of the simulations, with shape `(B, P)`, and the level of noise, if the model
                takes one, with shape `(B, P + 1)`.

        Returns:
            The estimate of all states, known ones included, with shape `(B, C, L, *grid)`.
        """
        modulation = None if self._embed is None else self._embed(label)
        known = torch.where(mask, x, 0.0)
        output = self.network(torch.cat((known, mask.expand_as(x).to(x)), dim=1), modulation)
        return output if self.change is None else self.change.to_states(output, x, mask)

    @property
    def _embed(self) -> Callable[[Tensor], Tensor] | None:
        return embed(self.config, self.embed_parameters, self.embed_level)

    def loss(self, batch: Batch, generator: SampleGenerator) -> tuple[Tensor, dict[str, Tensor]]:
        """The objective (Eq. 8) over a batch, and the mean squared error of its unknown elements."""
        window = batch.states[:, :, : self.window]
        mask = draw_mask(window, generator, self.config.masks)
        context = ContextNoise.of_training(self.config, window.shape[1:], generator)
        label = context.label(batch.parameters)

        def complete(known: Tensor, mask: Tensor, number: int) -> Tensor:
            return self(context.add(known, number), mask, label).float()

        losses, unknown = [], []
        for completed in complete_windows(complete, batch, mask, self.config):
            error = (completed.estimate - completed.truth).square()
            unknown.append(unknown_mean(error.detach(), completed.mask, batch.valid))
            if completed.first and self.config.loss_states == "published":
                losses.append(valid_mean(error, batch.valid))
            else:
                losses.append(unknown_mean(error, completed.mask, batch.valid))
        return torch.stack(losses).mean(), {"unknown_mse": torch.stack(unknown).mean()}

    def bind(
        self, mask: Tensor, parameters: Tensor, compiled: bool = False, graphs: bool = False
    ) -> BoundNetwork:
        """The network with masks and parameters bound; gradients reach its fields only.

        Arguments are those of `lola.models.diffusion.Diffusion.bind`.
        """
        return BoundNetwork(
            self.network,
            mask,
            rollout_label(self.config, parameters),
            embed=self._embed,
            compiled=compiled,
            graphs=graphs,
        )

    def predict(
        self,
        known: Tensor,
        mask: Tensor,
        parameters: Tensor,
        generator: SampleGenerator,
        bound: BoundNetwork | None = None,
    ) -> Tensor:
        """Complete windows; the solver is deterministic, and `generator` gives the noise on contexts, if any.

        Arguments and result are those of `lola.models.diffusion.Diffusion.predict`.
        """
        context = ContextNoise.of_rollout(self.config, known, generator)
        given = context.add(known)
        if bound is None:
            estimate = self(given, mask, context.label(parameters))
        else:
            estimate = bound(torch.where(mask, given, 0.0))
            estimate = estimate if self.change is None else self.change.to_states(estimate, given, mask)
        return torch.where(mask, known, estimate.to(known))
