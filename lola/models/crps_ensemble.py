r"""An ensemble of windows from one evaluation of a network each, trained with the CRPS.

With `x` a window of states, `m` the mask of its known states, `theta` the simulation's parameters, `e_j` the
noise of member `j`, N standard normal numbers, and `s` the network,

    x_j = s(x * m, m, theta, e_j),  j = 1 ... M

The noise enters through the modulation, like the parameters; the last layer of its embedding starts at zero,
so that an ensemble starts as the deterministic solver of the same weights. The objective is the almost fair
CRPS (Lang et al., 2024, arXiv 2412.15832) of every unknown element,

    L = 1/M sum_j |x_j - x|  -  (1 - (1 - alpha) / M) / (2 M (M - 1)) sum_jk |x_j - x_k|

whose expectation, for alpha = 1, is that of the CRPS of the distribution that members are drawn from; below 1
it also keeps a lone member from being free. Equal members have no gradient of their distance, so that on every
device an untrained ensemble starts alike.
"""

import torch
from torch import Tensor, nn

from lola.core.seeding import SampleGenerator
from lola.data.state import Batch
from lola.models.binding import BoundNetwork
from lola.models.crps_ensemble_config import CRPSEnsembleConfig
from lola.models.masks import check_window, draw_mask, unknown_mean
from lola.nn.embedding import mlp


class CRPSEnsemble(nn.Module):
    """A stochastic emulator in latent or pixel space; its other weights are named as a `NeuralSolver`'s.

    Arguments:
        config: Its configuration.
        channels: Channels of a state.
        parameters: Parameters of a simulation, P.
        spatial: Grid axes.
        window: States of a window, L.
    """

    def __init__(
        self, config: CRPSEnsembleConfig, channels: int, parameters: int, spatial: int, window: int
    ) -> None:
        super().__init__()
        check_window(window)
        self.config = config
        self.window = window
        width = config.network.modulation
        self.network = config.network.build(channels, spatial, modulated=True)
        self.embed_parameters = mlp(parameters, width) if parameters else None
        self.embed_noise = mlp(config.noise, width)
        last = self.embed_noise[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, x: Tensor, mask: Tensor, label: Tensor, noise: Tensor) -> Tensor:
        """Members of windows.

        Arguments:
            x: States, standardised, of which only the known matter, with shape `(B, C, L, *grid)`.
            mask: True where an element is known, with a shape that expands to that of `x`.
            label: Parameters of the simulations, with shape `(B, P)`.
            noise: Standard normal numbers, with shape `(B, N)`.

        Returns:
            All states of the members, known ones included, with shape `(B, C, L, *grid)`.
        """
        embedded = None if self.embed_parameters is None else self.embed_parameters(label)
        known = torch.where(mask, x, 0.0)
        fields = torch.cat((known, mask.expand_as(x).to(x)), dim=1)
        return self.network(fields, self.modulate(noise, embedded))

    def modulate(self, noise: Tensor, embedded: Tensor | None) -> Tensor:
        """The modulation `(B, modulation)` of noise `(B, N)` and embedded parameters, if any."""
        modulation = self.embed_noise(noise)
        return modulation if embedded is None else modulation + embedded

    def loss(self, batch: Batch, generator: SampleGenerator) -> tuple[Tensor, dict[str, Tensor]]:
        """The almost fair CRPS over the unknown elements; their squared error and the members' variance.

        Members of a sample share its mask. The diagnostics are the mean squared error of the ensemble's mean,
        and the variance of its members: a calibrated ensemble has a ratio of 1 + 1/M.
        """
        x, members = batch.states, self.config.members
        mask = draw_mask(x, generator)
        noise = generator.normal(members, self.config.noise)
        ensemble = self(
            x.repeat_interleave(members, dim=0),
            mask.repeat_interleave(members, dim=0),
            batch.parameters.repeat_interleave(members, dim=0),
            noise.flatten(0, 1),
        )
        ensemble = ensemble.float().unflatten(0, (-1, members))
        score = almost_fair_crps(ensemble, x, self.config.alpha)
        with torch.no_grad():
            error = (ensemble.mean(dim=1) - x).square()
            variance = ensemble.var(dim=1)
            diagnostics = {
                "unknown_mse": unknown_mean(error, mask, batch.valid),
                "unknown_variance": unknown_mean(variance, mask, batch.valid),
            }
        return unknown_mean(score, mask, batch.valid), diagnostics

    def bind(
        self, mask: Tensor, parameters: Tensor, compiled: bool = False, graphs: bool = False
    ) -> BoundNetwork:
        """The network with masks and parameters bound, called with fields and noise `(B, N)`.

        Arguments are those of `lola.models.diffusion.Diffusion.bind`.
        """
        return BoundNetwork(
            self.network,
            mask,
            parameters,
            embed=self.embed_parameters,
            modulate=self.modulate,
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
        """Draw windows given their known elements, each by the noise of its stream.

        Arguments and result are those of `lola.models.diffusion.Diffusion.predict`.
        """
        noise = generator.normal(self.config.noise).to(known)
        if bound is None:
            member = self(known, mask, parameters, noise)
        else:
            member = bound(torch.where(mask, known, 0.0), noise)
        return torch.where(mask, known, member.to(known))


def almost_fair_crps(ensemble: Tensor, x: Tensor, alpha: float) -> Tensor:
    """L of every element.

    Arguments:
        ensemble: Members with shape `(B, M, *)`, M >= 2.
        x: What they predict, with shape `(B, *)`.
        alpha: 1 for the fair CRPS, 0 for that of the ensemble's own distribution.

    Returns:
        The scores, with shape `(B, *)`; those of fair ensembles may be negative.
    """
    members = ensemble.shape[1]
    error = (ensemble - x[:, None]).abs().mean(dim=1)
    distance = torch.stack(
        [(ensemble[:, k:] - ensemble[:, :-k]).abs().sum(dim=1) for k in range(1, members)]
    ).sum(dim=0)  # of every pair once
    return error - (1 - (1 - alpha) / members) / (members * (members - 1)) * distance
