r"""The autoencoder: states to latent states and back (Section 3.2).

With `x` a state, `E` the encoder, `D` the decoder, the latent state is saturated at B = 5 (Eq. 5)

    z = softclip2(E(x)) = E(x) / sqrt(1 + (E(x) / B)^2)

and both are trained to reconstruct (Eq. 6)

    argmin_{E, D}  E l(x, D(z)),  l(x, y) = mean_c sqrt(<(x_c - y_c)^2> / (<(x_c - <x_c>)^2> + 1e-2))

where `<.>` is the mean over the grid (VRMSE, Eq. 9), or with the mean squared or absolute error as l. Of a
domain with a mask, means are over the cells inside.

The alternative that the paper argues against is variational: E gives mean and log-variance of a normal, from
which training draws, and the objective is penalised

    z = softclip2(mu + s eps),  (mu, log s^2) = E(x),  eps normal;  in evaluation z = softclip2(mu)
    l + w KL,  KL = (mu^2 + s^2 - 1 - log s^2) / 2, a mean over the elements of mu

Noise of deviation n on the latents, z + n eps, acts in training alone too.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lola.core.seeding import SampleGenerator
from lola.data.state import Batch
from lola.models.autoencoder_config import CodecConfig, Loss, Saturation
from lola.models.masks import valid_mean
from lola.nn.layers import ChannelNorm

BOUND = 5.0
EPSILON = 1e-2
MEASURES: tuple[Loss, ...] = ("vrmse", "mse")  # diagnostics, whatever the objective
LOG_VARIANCES = (-30.0, 20.0)  # beyond these an exponential is nothing or not finite


class Autoencoder(nn.Module):
    """An autoencoder of states of `channels` fields on `spatial` grid axes."""

    def __init__(self, config: CodecConfig, channels: int, spatial: int) -> None:
        super().__init__()
        self.config = config
        outputs = config.latent_channels * (2 if config.variational else 1)
        self.encoder, self.decoder = config.networks(channels, spatial, outputs)

    def encode(self, x: Tensor) -> Tensor:
        """Compress states, standardised, `(B, C, *grid)` to `(B, latent_channels, *grid / downsampling)`.

        Raises:
            ConfigError: The down-sampling does not divide the grid.
        """
        mean, _ = self._distribution(x)
        return saturate(mean, self.config.saturation)

    def decode(self, z: Tensor) -> Tensor:
        """Reconstruct states `(B, C, *grid)` from latents `(B, latent_channels, *grid / downsampling)`."""
        return self.decoder(z)

    def forward(self, x: Tensor) -> Tensor:
        """Encode and decode states `(B, C, *grid)`."""
        return self.decode(self.encode(x))

    def loss(self, batch: Batch, generator: SampleGenerator) -> tuple[Tensor, dict[str, Tensor]]:
        """The objective (Eq. 6) over all states of a batch, with its VRMSE and mean squared error.

        A variational autoencoder's has its divergence added, which is a diagnostic too.
        """
        x = batch.states.transpose(1, 2).flatten(0, 1)
        mean, log_variance = self._distribution(x)
        y = self.decode(self._draw(mean, log_variance, generator)).float()
        valid = batch.valid
        if valid is not None:
            valid = valid.expand(-1, batch.states.shape[2], *valid.shape[2:]).flatten(0, 1)
        loss = LOSSES[self.config.loss](x, y, valid)
        with torch.no_grad():
            diagnostics: dict[str, Tensor] = {
                name: loss.detach() if name == self.config.loss else LOSSES[name](x, y, valid)
                for name in MEASURES
            }
        if log_variance is not None:
            kl = kl_divergence(mean, log_variance)
            loss, diagnostics["kl"] = loss + self.config.kl_weight * kl, kl.detach()
        return loss, diagnostics

    def _distribution(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """The latents before saturation, `(B, latent_channels, *)`: their mean and, if any, log-variance."""
        self.config.check_grid(x.shape[2:])
        z = self.encoder(x).to(x.dtype)  # drawn and bounded in full precision
        if not self.config.variational:
            return z, None
        mean, log_variance = z.chunk(2, dim=1)
        return mean, log_variance.clamp(*LOG_VARIANCES)

    def _draw(self, mean: Tensor, log_variance: Tensor | None, generator: SampleGenerator) -> Tensor:
        """Latents of a batch's states, drawn in training; the states of a sample share its stream."""
        z = mean
        if self.training and log_variance is not None:
            z = z + torch.exp(log_variance / 2) * _noise(z, generator)
        z = saturate(z, self.config.saturation)
        if self.training and self.config.latent_noise:
            z = z + self.config.latent_noise * _noise(z, generator)
        return z


def _noise(z: Tensor, generator: SampleGenerator) -> Tensor:
    return generator.normal(len(z) // len(generator), *z.shape[1:]).flatten(0, 1)


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """The divergence of independent normals from the standard normal, in nats, averaged over elements."""
    return (mean.square() + log_variance.exp() - 1 - log_variance).mean() / 2


def saturate(z: Tensor, saturation: Saturation) -> Tensor:
    """Bound latents `(B, C, *grid)` (Eq. 5): softclip2, softclip and tanh to (-5, 5)."""
    match saturation:
        case "softclip2":
            return z * torch.rsqrt(1 + (z / BOUND) ** 2)
        case "softclip":
            return z / (1 + (z / BOUND).abs())
        case "tanh":
            return BOUND * torch.tanh(z / BOUND)
        case "arcsinh":
            return torch.arcsinh(z)
        case "rmsnorm":
            return ChannelNorm("rms")(z)
        case "none":
            return z


def vrmse(x: Tensor, y: Tensor, valid: Tensor | None = None) -> Tensor:
    """The VRMSE (Eq. 9) of `y` against `x`, both `(B, C, *grid)`, averaged over samples and channels.

    Means over the grid are of the cells where `valid`, `(B, 1, *grid)`, is True, if it is given.
    """
    grid = tuple(range(2, x.ndim))
    if valid is not None:
        count = valid.sum(dim=grid)
        error = torch.where(valid, (x - y).square(), 0).sum(dim=grid) / count
        mean = (torch.where(valid, x, 0).sum(dim=grid) / count).reshape(*x.shape[:2], *[1] * len(grid))
        variance = torch.where(valid, (x - mean).square(), 0).sum(dim=grid) / count
        return torch.sqrt(error / (variance + EPSILON)).mean()
    error = (x - y).square().mean(dim=grid)
    variance = (x - x.mean(dim=grid, keepdim=True)).square().mean(dim=grid)
    return torch.sqrt(error / (variance + EPSILON)).mean()


def mse(x: Tensor, y: Tensor, valid: Tensor | None = None) -> Tensor:
    """The mean squared error of `y` against `x`, likewise."""
    return nn.functional.mse_loss(x, y) if valid is None else valid_mean((x - y).square(), valid)


def mae(x: Tensor, y: Tensor, valid: Tensor | None = None) -> Tensor:
    """The mean absolute error of `y` against `x`, likewise."""
    return nn.functional.l1_loss(x, y) if valid is None else valid_mean((x - y).abs(), valid)


LOSSES: dict[Loss, Callable[[Tensor, Tensor, Tensor | None], Tensor]] = {
    "vrmse": vrmse,
    "mse": mse,
    "mae": mae,
}
