r"""Few-step diffusion: a denoiser that knows where a step leads (shortcut models, arXiv 2410.12557).

With `lambda = alpha / sigma` and `u = x_t / sigma`, the probability flow of `lola.emulation.sampling` is
`d u / d lambda = E[x | x_t]`. Its solution from a time `t` to one with less noise, `s`, is therefore

    x_s / sigma_s = x_t / sigma_t + (lambda_s - lambda_t) D(x_t, t, s)

where `D`, the mean of the denoised states on the way, weighted by d lambda, is what the network learns. It is
the denoiser `d(x_t)` of `lola.models.diffusion` for s = t, and has its scales of input and output and its
known elements; the network is modulated by the noise levels at both times. A step of Euler's method with `D`
for the denoised state is the formula above, so that `n` evaluations draw a window in `n` steps.

Two steps over an intermediate time `r` lead to the same state as one, where (self-consistency)

    D(x_t, t, s) = w D(x_t, t, r) + (1 - w) D(x_r, r, s),  w = (lambda_r - lambda_t) / (lambda_s - lambda_t)

The objective is that of diffusion, `E ||D(x_t, t, s) - y||^2 / v`. Most samples have s = t and y = x. The
others have s = t - 2^-j for `j = 0 ... J - 1`, `t` a multiple of this step, r half-way, and for `y` the right
side above without its gradient; halves of the shortest step take `D(x_t, t, t)`. The samplers' steps are thus
trained at 1, 2, 4 ... 2^(J - 1) evaluations. What the step adds to the modulation starts at zero: from the
weights of a diffusion model it starts as this model, which it then distils.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from lola.core.seeding import SampleGenerator
from lola.data.state import Batch
from lola.models.diffusion import ConditionedDenoiser, Diffusion, NoisyNetwork, trailing
from lola.models.diffusion_config import DiffusionConfig
from lola.models.masks import draw_mask, unknown_mean
from lola.models.shortcut_config import ShortcutConfig
from lola.nn.embedding import SineEncoding, mlp, zero_last


class SteppingNetwork(NoisyNetwork):
    """The network F, modulated by the noise levels at both ends of a step; a single level is both."""

    def __init__(self, network: nn.Module, config: DiffusionConfig, parameters: int) -> None:
        super().__init__(network, config, parameters)
        width = config.network.modulation
        self.encode_level = SineEncoding(width)
        self.embed_step = zero_last(mlp(2 * width, width))

    def modulate(self, noise: Tensor, embedded: Tensor | None) -> Tensor:
        """The modulation `(B, modulation)` of levels `(B)` or pairs `(B, 2)`, and embedded parameters."""
        level, target = noise.unbind(dim=-1) if noise.ndim == 2 else (noise, noise)
        step = torch.cat((self.encode_level(level), self.encode_level(level - target)), dim=-1)
        return super().modulate(level, embedded) + self.embed_step(step)


class Shortcut(Diffusion):
    """A diffusion model whose denoiser takes the `target` of a step, in latent or pixel space.

    Arguments are those of `Diffusion`.
    """

    config: ShortcutConfig
    backbone = SteppingNetwork
    flow_map = True

    def loss(self, batch: Batch, generator: SampleGenerator) -> tuple[Tensor, dict[str, Tensor]]:
        """The objective over a batch, its unknown elements, and those of the samples with steps alone.

        The latter mean is over the expected number of such samples.
        """
        schedule, config = self.denoiser.schedule, self.config
        mask = draw_mask(batch.states, generator, config.masks)
        t = config.times.draw(generator)
        eps = generator.normal(*batch.states.shape[1:])
        x, given, label = self._given(batch, mask, generator)
        rows = generator.rows(config.consistency)
        start, stop, shortest = self._draw_steps(generator)
        stepped = torch.zeros_like(shortest).index_fill(0, rows, True)
        t = torch.where(stepped, start, t)
        s = torch.where(stepped, stop, t)
        alpha, sigma = trailing(schedule(t), x.ndim)
        x_t = alpha * x + sigma * eps
        y = x
        if len(rows):
            chosen = (each[rows] for each in (x_t, t, s, shortest, given, mask, label))
            y = torch.where(mask, x, x.index_copy(0, rows, self.in_two_steps(*chosen).to(x)))
        x_t = self.denoiser.present(x_t, t, given, mask)
        q = self.denoiser(x_t, t, label=label, mask=mask, target=s)
        error = (q.mean - y).square() / q.var
        loss, diagnostics = self._mean(error, mask, batch)
        of_steps = stepped.reshape(-1, *[1] * (x.ndim - 1)) * error.detach()
        consistency = unknown_mean(of_steps, mask, batch.valid) / config.consistency
        return loss, diagnostics | {"unknown_consistency": consistency}

    def _draw_steps(self, generator: SampleGenerator) -> tuple[Tensor, Tensor, Tensor]:
        """A step per sample: where it starts, where it leads, and whether it is of the shortest length."""
        level, place = generator.uniform(2).unbind(dim=-1)
        level = (level * self.config.levels).floor()
        length = torch.exp2(-level)
        start = 1 - length * (place / length).floor()
        return start, start - length, level == self.config.levels - 1

    @torch.no_grad()
    def in_two_steps(
        self,
        x_t: Tensor,
        t: Tensor,
        s: Tensor,
        shortest: Tensor,
        known: Tensor,
        mask: Tensor,
        label: Tensor,
    ) -> Tensor:
        """The mean `D(x_t, t, s)` of which one step leads where two of half its length do.

        Arguments:
            x_t: Noisy windows, with shape `(B, C, L, *grid)`.
            t, s: Times from and to, with shape `(B)`.
            shortest: Where half a step takes the denoiser for its mean, with shape `(B)`.
            known, mask, label: As of `ConditionedDenoiser`.
        """
        r = (t + s) / 2
        denoiser = ConditionedDenoiser(self.denoiser, known, mask, label)
        schedule, ndim = denoiser.schedule, x_t.ndim
        scales = torch.stack([torch.stack(trailing(schedule(time), ndim)) for time in (t, r, s)], dim=1)
        (_, sigma_r, _), signal = scales[1], scales[0] / scales[1]
        with _evaluating(self.denoiser):
            first = denoiser(x_t, t, target=torch.where(shortest, t, r)).mean
            x_r = sigma_r * (x_t / scales[1, 0] + (signal[1] - signal[0]) * first)
            second = denoiser(x_r, r, target=torch.where(shortest, r, s)).mean
        torch.clear_autocast_cache()  # of weights without gradients, which the objective would use
        return torch.lerp(second, first, (signal[1] - signal[0]) / (signal[2] - signal[0]))


@contextlib.contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Within it a module drops nothing."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)
