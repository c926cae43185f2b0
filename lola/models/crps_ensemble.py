r"""An ensemble of windows from one evaluation of a network each, trained with the CRPS.

With `x` a window of states, `m` the mask of its known states, `theta` the simulation's parameters, `e_j` the
noise of member `j`, N standard normal numbers, and `s` the network,

    x_j = s(x * m, m, theta, e_j),  j = 1 ... M

The noise enters through the modulation, like the parameters; the last layer of its embedding starts at zero,
so that an ensemble starts as the deterministic solver of the same weights. The objective is the almost fair
CRPS of every unknown element and, with a weight, the energy score of blocks of the grid
(`lola.models.ensemble_scores`). It may be over several windows that follow each other
(`lola.models.rollout_loss`), of which each member continues its own. The network may predict the change from
the nearest known state, and be given noisy known states (`lola.models.context`).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lola.core.seeding import SampleGenerator
from lola.data.state import Batch
from lola.models.binding import BoundNetwork
from lola.models.context import ContextNoise, embed, level_embedding, rollout_label, state_change
from lola.models.crps_ensemble_config import CRPSEnsembleConfig
from lola.models.ensemble_scores import almost_fair_crps, energy_scores, weighted_mean
from lola.models.masks import check_window, draw_mask, unknown_mean
from lola.models.rollout_loss import complete_windows
from lola.nn.embedding import mlp, zero_last


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
        self.embed_parameters = config.embedding(parameters)
        self.embed_noise = zero_last(mlp(config.noise, width))
        self.embed_level = level_embedding(config)
        self.change = state_change(config, channels)

    def forward(self, x: Tensor, mask: Tensor, label: Tensor, noise: Tensor) -> Tensor:
        """Members of windows.

        Arguments:
            x: States, standardised, of which only the known matter, with shape `(B, C, L, *grid)`.
            mask: True where an element is known, with a shape that expands to that of `x`.
            label: Parameters of the simulations, with shape `(B, P)`, and the level of noise, if the model
                takes one, with shape `(B, P + 1)`.
            noise: Standard normal numbers, with shape `(B, N)`.

        Returns:
            All states of the members, known ones included, with shape `(B, C, L, *grid)`.
        """
        embedded = None if self._embed is None else self._embed(label)
        known = torch.where(mask, x, 0.0)
        fields = torch.cat((known, mask.expand_as(x).to(x)), dim=1)
        output = self.network(fields, self.modulate(noise, embedded))
        return output if self.change is None else self.change.to_states(output, x, mask)

    @property
    def _embed(self) -> Callable[[Tensor], Tensor] | None:
        return embed(self.config, self.embed_parameters, self.embed_level)

    def modulate(self, noise: Tensor, embedded: Tensor | None) -> Tensor:
        """The modulation `(B, modulation)` of noise `(B, N)` and embedded parameters, if any."""
        modulation = self.embed_noise(noise)
        return modulation if embedded is None else modulation + embedded

    def loss(self, batch: Batch, generator: SampleGenerator) -> tuple[Tensor, dict[str, Tensor]]:
        """The almost fair CRPS over the unknown elements; their squared error and the members' variance.

        Members of a sample share its mask. The diagnostics are the mean squared error of the ensemble's mean,
        and the variance of its members: a calibrated ensemble has a ratio of 1 + 1/M.
        """
        members, config = self.config.members, self.config
        states = batch.states[:, :, : self.window]
        mask = draw_mask(states, generator, config.masks)
        noise = [generator.normal(members, config.noise).flatten(0, 1) for _ in range(config.rollout_windows)]
        context = ContextNoise.of_training(config, states.shape[1:], generator, members)
        label = context.label(batch.parameters.repeat_interleave(members, dim=0))

        def complete(known: Tensor, mask: Tensor, number: int) -> Tensor:
            return self(context.add(known, number), mask, label, noise[number]).float()

        losses, diagnostics = [], []
        for window in complete_windows(complete, batch, mask, config, members):
            ensemble = window.estimate.unflatten(0, (-1, members))
            score = almost_fair_crps(ensemble, window.truth, config.alpha)
            losses.append(unknown_mean(score, window.mask, batch.valid))
            if config.energy:
                score, sizes = energy_scores(
                    ensemble, window.truth, config.alpha, config.energy_block, batch.valid
                )
                weights = sizes * ~window.mask
                losses[-1] = losses[-1] + config.energy * weighted_mean(score, weights)
            with torch.no_grad():
                error = (ensemble.mean(dim=1) - window.truth).square()
                moments = (error, ensemble.var(dim=1))
                diagnostics.append([unknown_mean(each, window.mask, batch.valid) for each in moments])
        names = ("unknown_mse", "unknown_variance")
        means = (torch.stack(each).mean() for each in zip(*diagnostics, strict=True))
        return torch.stack(losses).mean(), dict(zip(names, means, strict=True))

    def bind(
        self, mask: Tensor, parameters: Tensor, compiled: bool = False, graphs: bool = False
    ) -> BoundNetwork:
        """The network with masks and parameters bound, called with fields and noise `(B, N)`.

        Arguments are those of `lola.models.diffusion.Diffusion.bind`.
        """
        return BoundNetwork(
            self.network,
            mask,
            rollout_label(self.config, parameters),
            embed=self._embed,
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
        context = ContextNoise.of_rollout(self.config, known, generator)
        given = context.add(known)
        if bound is None:
            member = self(given, mask, context.label(parameters), noise)
        else:
            member = bound(torch.where(mask, given, 0.0), noise)
            member = member if self.change is None else self.change.to_states(member, given, mask)
        return torch.where(mask, known, member.to(known))
