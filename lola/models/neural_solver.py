r"""The neural solver: a point estimate of a window from its known states (Section 3.4).

With `x` a window of states, `m` the mask of its known states, `theta` the simulation's parameters and `s` the
network, the objective is mean regression (Eq. 8):

    argmin_s  E ||s(x * m, m, theta) - x||^2

where the norm is over the cells of the domain. It may be over the unknown states alone, and over several
windows that follow each other (`lola.models.rollout_loss`), of which those after the first count with their
unknown states.
"""

import torch
from torch import Tensor, nn

from lola.core.seeding import SampleGenerator
from lola.data.state import Batch
from lola.models.binding import BoundNetwork
from lola.models.masks import check_window, draw_mask, unknown_mean, valid_mean
from lola.models.neural_solver_config import NeuralSolverConfig
from lola.models.rollout_loss import complete_windows
from lola.nn.embedding import mlp


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
        self.network = config.network.build(channels, spatial, modulated=parameters > 0)
        self.embed_parameters = mlp(parameters, config.network.modulation) if parameters else None

    def forward(self, x: Tensor, mask: Tensor, label: Tensor) -> Tensor:
        """Estimate a window.

        Arguments:
            x: States, standardised, of which only the known matter, with shape `(B, C, L, *grid)`.
            mask: True where an element is known, with a shape that expands to that of `x`.
            label: Parameters of the simulations, with shape `(B, P)`.

        Returns:
            The estimate of all states, known ones included, with shape `(B, C, L, *grid)`.
        """
        modulation = None if self.embed_parameters is None else self.embed_parameters(label)
        known = torch.where(mask, x, 0.0)
        return self.network(torch.cat((known, mask.expand_as(x).to(x)), dim=1), modulation)

    def loss(self, batch: Batch, generator: SampleGenerator) -> tuple[Tensor, dict[str, Tensor]]:
        """The objective (Eq. 8) over a batch, and the mean squared error of its unknown elements."""
        mask = draw_mask(batch.states[:, :, : self.window], generator, self.config.masks)

        def complete(known: Tensor, mask: Tensor, number: int) -> Tensor:
            return self(known, mask, batch.parameters).float()

        losses, unknown = [], []
        for window in complete_windows(complete, batch, mask, self.config):
            error = (window.estimate - window.truth).square()
            unknown.append(unknown_mean(error.detach(), window.mask, batch.valid))
            if window.first and self.config.loss_states == "published":
                losses.append(valid_mean(error, batch.valid))
            else:
                losses.append(unknown_mean(error, window.mask, batch.valid))
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
            parameters,
            embed=self.embed_parameters,
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
        """Complete windows; the solver is deterministic and leaves `generator` alone.

        Arguments and result are those of `lola.models.diffusion.Diffusion.predict`.
        """
        estimate = self(known, mask, parameters) if bound is None else bound(torch.where(mask, known, 0.0))
        return torch.where(mask, known, estimate.to(known))
