r"""The diffusion model: a denoiser of windows, conditioned on their known states (Sections 2 and 3.3).

Perturbation (Eq. 1), with `t` in [0, 1] and scales by one of the schedules of `schedule.py`, never zero:

    x_t = alpha x + sigma eps

Denoiser, with `F` the network, `m` the mask of known elements and `theta` the simulation's parameters:

    d(x_t) = c_skip x_t + c_out F(c_in x_t, c_noise, m, theta),  v = sigma^2 / (alpha^2 + sigma^2)
    c_in = 1 / sqrt(alpha^2 + sigma^2),  c_skip = alpha / (alpha^2 + sigma^2)
    c_out = sigma / sqrt(alpha^2 + sigma^2),  c_noise = 10 log(sigma / alpha)

Known elements enter without noise: there x_t = sqrt(alpha^2 + sigma^2) x, so that c_in x_t = x.

Objective (Eq. 7), with `eps` normal and `t` drawn from a prior, uniform by default:

    argmin_d  E ||d(x_t) - x||^2 / v

where the norm is over the cells of the domain, or over those of the unknown states alone. The unknown states
may be their changes from the nearest known one, and known ones be given with noise (`lola.models.context`).
"""

from collections.abc import Callable, Sequence

import torch
from azula.denoise import Denoiser, GaussianPosterior
from azula.noise import Schedule
from azula.sample import Sampler
from torch import Tensor, nn

from lola.core.seeding import SampleGenerator
from lola.data.state import Batch
from lola.models.binding import BoundNetwork
from lola.models.context import ContextNoise, embed, level_embedding, rollout_label, state_change
from lola.models.diffusion_config import DiffusionConfig
from lola.models.masks import check_window, draw_mask, unknown_mean, valid_mean
from lola.models.unrolled import SamplerStep
from lola.nn.embedding import SineEncoding, mlp


class NoisyNetwork(nn.Module):
    """The network F: one of windows, modulated by the noise level and the simulation's parameters."""

    def __init__(self, network: nn.Module, config: DiffusionConfig, parameters: int) -> None:
        super().__init__()
        self.config = config
        self.network = network
        modulation = config.network.modulation
        self.embed_noise = nn.Sequential(SineEncoding(modulation), *mlp(modulation, modulation))
        self.embed_parameters = config.embedding(parameters)
        self.embed_level = level_embedding(config)

    @property
    def embed(self) -> Callable[[Tensor], Tensor] | None:
        """The embedding of labels `(B, P)`, the level of noise on known states being the last of them."""
        return embed(self.config, self.embed_parameters, self.embed_level)

    def forward(self, x: Tensor, noise: Tensor, mask: Tensor, label: Tensor) -> Tensor:
        """Map `x` `(B, C, L, *grid)`, `noise` `(B)` or `()`, `label` `(B, P)` to the shape of `x`."""
        embedded = None if self.embed is None else self.embed(label)
        modulation = self.modulate(noise.expand(len(x), *noise.shape[1:]), embedded)
        return self.network(torch.cat((x, mask.expand_as(x).to(x)), dim=1), modulation)

    def modulate(self, noise: Tensor, embedded: Tensor | None) -> Tensor:
        """The modulation `(B, modulation)` of noise levels `(B)` or `(1)` and embedded parameters, if any."""
        modulation = self.embed_noise(noise)
        return modulation if embedded is None else modulation + embedded


class WindowDenoiser(Denoiser):
    """The denoiser d, in azula's manner.

    Arguments:
        backbone: The network F, called `(c_in x_t, c_noise, mask, label)`.
        schedule: The noise schedule.
    """

    def __init__(self, backbone: nn.Module, schedule: Schedule) -> None:
        super().__init__()
        self.backbone = backbone
        self.schedule = schedule

    def forward(
        self,
        x_t: Tensor,
        t: Tensor,
        *,
        label: Tensor,
        mask: Tensor,
        bound: BoundNetwork | None = None,
        target: Tensor | None = None,
    ) -> GaussianPosterior:
        """The posterior of windows given noisy ones.

        Arguments:
            x_t: Noisy windows, their known elements as `present` leaves them, with shape `(B, C, L, *grid)`.
            t: Times, with shape `()` or `(B)`, or these with trailing axes of size 1.
            label: Parameters of the simulations, with shape `(B, P)`.
            mask: True where an element is known, with a shape that expands to that of `x_t`.
            bound: The network with this label and mask bound, if there is one.
            target: The times that a step leads to, like `t`, where the backbone takes them: as pairs
                `(B, 2)` of noise levels.

        Returns:
            A posterior with `mean` `(B, C, L, *grid)` and `var`, which broadcasts to it.
        """
        alpha, sigma = trailing(self.schedule(t), x_t.ndim)
        square = alpha**2 + sigma**2
        c_noise = self._level(t)
        if target is not None:
            c_noise = torch.stack((c_noise, self._level(target)), dim=-1)
        scaled = x_t * torch.rsqrt(square)
        output = self.backbone(scaled, c_noise, mask, label) if bound is None else bound(scaled, c_noise)
        mean = alpha / square * x_t + sigma * torch.rsqrt(square) * output
        return GaussianPosterior(mean=mean, var=sigma**2 / square)

    def _level(self, t: Tensor) -> Tensor:
        alpha, sigma = self.schedule(t)
        return 10 * torch.log(sigma / alpha).flatten()

    def present(self, x_t: Tensor, t: Tensor, known: Tensor, mask: Tensor) -> Tensor:
        """Noisy windows with known elements put in, scaled to enter the network without noise."""
        alpha, sigma = trailing(self.schedule(t), x_t.ndim)
        return torch.where(mask, torch.sqrt(alpha**2 + sigma**2) * known, x_t)


class ConditionedDenoiser(Denoiser):
    """A denoiser with its known elements and parameters bound: what samplers and guidance see.

    Arguments:
        denoiser: The denoiser of windows.
        known: States, of which only those known matter, with shape `(B, C, L, *grid)`.
        mask: True where an element is known, with a shape that expands to that of `known`.
        label: Parameters of the simulations, with shape `(B, P)`.
        bound: The denoiser's network with this label and mask bound, if there is one.
        flow_map: Whether samplers may give it the `target` of a step.
    """

    def __init__(
        self,
        denoiser: WindowDenoiser,
        known: Tensor,
        mask: Tensor,
        label: Tensor,
        bound: BoundNetwork | None = None,
        flow_map: bool = False,
    ) -> None:
        super().__init__()
        self.flow_map = flow_map
        self.denoiser = denoiser
        self.schedule = denoiser.schedule
        self.known, self.mask, self.label, self.bound = known, mask, label, bound

    def forward(
        self, x_t: Tensor, t: Tensor, target: Tensor | None = None, **kwargs: object
    ) -> GaussianPosterior:
        """The posterior of windows `(B, C, L, *grid)`, its mean that of `known` where known."""
        x_t = self.denoiser.present(x_t, t, self.known, self.mask)
        q = self.denoiser(x_t, t, label=self.label, mask=self.mask, bound=self.bound, target=target)
        return GaussianPosterior(mean=torch.where(self.mask, self.known, q.mean), var=q.var)


class Diffusion(nn.Module):
    """A diffusion model, in latent or pixel space.

    Arguments:
        config: Its configuration.
        channels: Channels of a state.
        parameters: Parameters of a simulation, P.
        spatial: Grid axes.
        window: States of a window, L.
    """

    backbone: type[NoisyNetwork] = NoisyNetwork
    flow_map = False  # whether the backbone takes the noise level that a step leads to

    def __init__(
        self, config: DiffusionConfig, channels: int, parameters: int, spatial: int, window: int
    ) -> None:
        super().__init__()
        check_window(window)
        self.config = config
        self.window = window
        network = config.network.build(channels, spatial, modulated=True)
        backbone = self.backbone(network, config, parameters)
        self.denoiser = WindowDenoiser(backbone, config.schedule.build())
        self.change = state_change(config, channels)

    def loss(self, batch: Batch, generator: SampleGenerator) -> tuple[Tensor, dict[str, Tensor]]:
        """The objective (Eq. 7) over a batch, and the same over its unknown elements."""
        mask = draw_mask(batch.states, generator, self.config.masks)
        t = self.config.times.draw(generator)
        eps = generator.normal(*batch.states.shape[1:])
        x, given, label = self._given(batch, mask, generator)
        alpha, sigma = trailing(self.denoiser.schedule(t), x.ndim)
        x_t = self.denoiser.present(alpha * x + sigma * eps, t, given, mask)
        q = self.denoiser(x_t, t, label=label, mask=mask)
        return self._mean((q.mean - x).square() / q.var, mask, batch)

    def _given(self, batch: Batch, mask: Tensor, generator: SampleGenerator) -> tuple[Tensor, Tensor, Tensor]:
        """What is denoised, known states with noise, and labels, of a training batch.

        What is denoised where states are known is what the network is given: it cannot know their noise.
        """
        x = batch.states
        context = ContextNoise.of_training(self.config, x.shape[1:], generator)
        given = context.add(x)
        denoised = x if self.change is None else self.change.to_changes(x, given, mask)
        return torch.where(mask, given, denoised), given, context.label(batch.parameters)

    def to_states(self, x: Tensor, mask: Tensor) -> Tensor:
        """The states of windows `(B, C, L, *grid)` as they are denoised; known elements are states."""
        return x if self.change is None else torch.where(mask, x, self.change.to_states(x, x, mask))

    def _mean(self, error: Tensor, mask: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of errors `(B, C, L, *grid)`, and the mean over their unknown elements."""
        diagnostics = {"unknown_loss": unknown_mean(error.detach(), mask, batch.valid)}
        if self.config.loss_states == "unknown":
            return unknown_mean(error, mask, batch.valid), diagnostics
        return valid_mean(error, batch.valid), diagnostics

    def bind(
        self, mask: Tensor, parameters: Tensor, compiled: bool = False, graphs: bool = False
    ) -> BoundNetwork | None:
        """The network with masks and parameters bound; gradients reach its fields only.

        Arguments:
            mask: True where an element is known, with shape `(B, 1, L, *grid)`; B may be 1 for any batch.
            parameters: Parameters of the simulations, with shape `(B, P)`.
            compiled, graphs: As for `BoundNetwork`.

        Returns:
            The network, or None for a denoiser of another kind.
        """
        backbone = self.denoiser.backbone
        if not isinstance(backbone, NoisyNetwork):
            return None
        return BoundNetwork(
            backbone.network,
            mask,
            rollout_label(self.config, parameters),
            embed=backbone.embed,
            modulate=backbone.modulate,
            compiled=compiled,
            graphs=graphs,
        )

    def predict(
        self,
        known: Tensor,
        mask: Tensor,
        parameters: Tensor,
        generator: SampleGenerator,
        sampler: Callable[[Denoiser], Sampler],
        bound: BoundNetwork | None = None,
    ) -> Tensor:
        """Draw windows given their known elements.

        Arguments:
            known: States, of which only those known matter, with shape `(B, C, L, *grid)`.
            mask: True where an element is known, with a shape that expands to that of `known`.
            parameters: Parameters of the simulations, with shape `(B, P)`.
            generator: One random stream per window, for the noise at t = 1.
            sampler: Builds a sampler from a denoiser.
            bound: The network with this mask and these parameters bound, if there is one.

        Returns:
            Windows with known elements untouched, with shape `(B, C, L, *grid)`.
        """
        one = known.new_ones(())
        alpha, sigma = self.denoiser.schedule(one)
        noise = generator.normal(*known.shape[1:]).to(known)
        context = ContextNoise.of_rollout(self.config, known, generator)
        given, label = context.add(known), context.label(parameters)
        denoiser = ConditionedDenoiser(self.denoiser, given, mask, label, bound, self.flow_map)
        x = sampler(denoiser)(torch.hypot(alpha, sigma) * noise)
        return torch.where(mask, known, self.to_states(torch.where(mask, given, x), mask))

    @torch.no_grad()
    def draw(
        self, known: Tensor, generator: SampleGenerator, bound: BoundNetwork, steps: Sequence[SamplerStep]
    ) -> Tensor:
        """Draw windows as `predict` does with a deterministic sampler that is unrolled into steps.

        Arguments:
            known: States, of which only those known matter, with shape `(B, C, L, *grid)`.
            generator: One random stream per window, for the noise at t = 1.
            bound: The network with mask and parameters bound, the unknown states following each other.
            steps: The steps of the sampler with the schedule of this model.

        Returns:
            Windows with known states untouched, with shape `(B, C, L, *grid)`.
        """
        assert bound.unknown is not None
        part = (slice(None), slice(None), bound.unknown)
        bound.precompute(known, [step.noise for step in steps])
        y = generator.normal(*known.shape[1:]).to(known)[part]
        given = ContextNoise.of_rollout(self.config, known, generator).add(known)
        window, depth = given.clone(), max(len(step.inputs) for step in steps)
        inputs: list[Tensor] = []
        outputs: list[Tensor] = []
        for step in steps:
            window[part] = y
            inputs = [y, *inputs][:depth]
            outputs = [bound(window, step.noise, bound.unknown).to(known.dtype), *outputs][:depth]
            y = y * step.inputs[0]
            for tensor, weight in (
                *zip(inputs[1:], step.inputs[1:], strict=False),
                *zip(outputs, step.outputs, strict=False),
            ):
                y.add_(tensor, alpha=weight)
        window[part] = y
        return torch.where(bound.mask, known, self.to_states(window, bound.mask))


def trailing(scales: tuple[Tensor, Tensor], ndim: int) -> tuple[Tensor, Tensor]:
    """Scales of shape `(B)` or `()` with trailing axes, to broadcast with tensors of `ndim` axes."""
    alpha, sigma = (scale.reshape(*scale.shape, *[1] * (ndim - scale.ndim)) for scale in scales)
    return alpha, sigma
