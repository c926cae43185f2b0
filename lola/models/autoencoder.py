r"""The autoencoder: states to latent states and back (Section 3.2).

With `x` a state, `E` the encoder, `D` the decoder, the latent state is saturated at B = 5 (Eq. 5)

    z = softclip2(E(x)) = E(x) / sqrt(1 + (E(x) / B)^2)

and both are trained to reconstruct (Eq. 6)

    argmin_{E, D}  E l(x, D(z)),  l(x, y) = mean_c sqrt(<(x_c - y_c)^2> / (<(x_c - <x_c>)^2> + 1e-2))

where `<.>` is the mean over the grid (VRMSE, Eq. 9), or with the mean squared or absolute error as l.

The alternative that the paper argues against is variational: E gives mean and log-variance of a normal, from
which training draws, and the objective is penalised

    z = softclip2(mu + s eps),  (mu, log s^2) = E(x),  eps normal;  in evaluation z = softclip2(mu)
    l + w KL,  KL = (mu^2 + s^2 - 1 - log s^2) / 2, a mean over the elements of mu

Noise of deviation n on the latents, z + n eps, acts in training alone too.
"""

import abc
import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Annotated, Literal, get_args

import torch
from torch import Tensor, nn

from lola.core.config import Channels, Config, Each, Factor, Share, Size, Within, option, require
from lola.core.errors import ConfigError
from lola.core.seeding import SampleGenerator
from lola.data.state import Batch
from lola.models.levels import Blocks, Heads, check_levels, heads_of_levels
from lola.models.network import Kernels, Sizes, each
from lola.nn.dcae import Architecture, Decoder, Encoder
from lola.nn.layers import ChannelNorm, Norm

Saturation = Literal["softclip2", "softclip", "tanh", "arcsinh", "rmsnorm", "none"]
Loss = Literal["vrmse", "mse", "mae"]

BOUND = 5.0
EPSILON = 1e-2
MEASURES: tuple[Loss, ...] = ("vrmse", "mse")  # diagnostics, whatever the objective
LOG_VARIANCES = (-30.0, 20.0)  # beyond these an exponential is nothing or not finite


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodecConfig(Config, abc.ABC):
    """What every autoencoder says, whatever its networks.

    Arguments:
        latent_channels: Channels of the latent state: the lever of the compression rate.
        saturation: What bounds the latent state.
        loss: The reconstruction loss.
        kl_weight: Weight of the divergence of latents from a standard normal; above 0 the autoencoder is
            variational.
        latent_noise: Deviation of the noise that latents are given in training.
    """

    latent_channels: Size = 64
    saturation: Saturation = "softclip2"
    loss: Loss = "vrmse"
    kl_weight: Annotated[float, Within("[0, 1e6]")] = 0.0
    latent_noise: Annotated[float, Within("[0, 1e6]")] = 0.0

    def validate(self) -> None:
        super().validate()
        require(self.saturation in get_args(Saturation), f"no saturation is called {self.saturation!r}")
        require(self.loss in get_args(Loss), f"no loss is called {self.loss!r}")

    @abc.abstractmethod
    def factors(self, spatial: int) -> tuple[int, ...]:
        """Cells of the grid per cell of the latent grid, along each of `spatial` grid axes."""

    @abc.abstractmethod
    def networks(self, channels: int, spatial: int, outputs: int) -> tuple[nn.Module, nn.Module]:
        """The encoder of `channels` fields on `spatial` grid axes to `outputs` channels, and the decoder."""

    @property
    def random(self) -> bool:
        """Whether training draws latents or noise on them."""
        return self.variational or self.latent_noise > 0

    @property
    def variational(self) -> bool:
        """Whether the encoder gives a distribution."""
        return self.kl_weight > 0

    def check_grid(self, grid: Sequence[int]) -> None:
        """Raise `ConfigError` unless the down-sampling divides every axis of the grid."""
        factors = self.factors(len(grid))
        if any(size % factor for size, factor in zip(grid, factors, strict=True)):
            told = self.rate(len(grid))[1:]
            raise ConfigError(
                f"the autoencoder's down-sampling {told} does not divide a grid of "
                f"{' x '.join(map(str, grid))}; take multiples of {told}, a smaller --patch-size "
                "or fewer levels (--channels, --blocks)"
            )

    def compression(self, channels: int, spatial: int) -> float:
        """The compression rate numel(x) / numel(z) of states of `channels` on `spatial` grid axes."""
        return channels * math.prod(self.factors(spatial)) / self.latent_channels

    def rate(self, spatial: int) -> str:
        """The down-sampling of `spatial` grid axes as a name: `f16`, or `f16x8` where axes differ."""
        factors = self.factors(spatial)
        return f"f{factors[0]}" if len(set(factors)) == 1 else f"f{'x'.join(map(str, factors))}"

    def build(self, channels: int, spatial: int) -> "Autoencoder":
        """The autoencoder of states of `channels` fields on `spatial` grid axes (1 to 3)."""
        require(1 <= spatial <= 3, f"autoencoders know 1 to 3 grid axes, not {spatial}")
        return Autoencoder(self, channels, spatial)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoencoderConfig(CodecConfig):
    """A convolutional autoencoder; the defaults are those of the paper's 2d systems.

    Arguments:
        channels: Channels of each level.
        blocks: Residual blocks of each level.
        patch_size: Cells per patch along every axis or each, folded into channels before the first level.
        kernel_size: Width of the convolutions, likewise.
        stride: Down-sampling between levels, likewise.
        pixel_shuffle: Whether resampling is by space to depth, else by strides and repetition.
        attention_heads: Pairs (level, heads) of the levels with attention.
        ffn_factor: Channels within a block over those outside.
        dropout: Probability of dropping within a block.
        periodic: Whether convolutions wrap around the grid.
        norm: The normalisation within blocks: over channels, or over groups of them and the grid.
        identity_init: Whether resampling and latent convolutions start near the identity.
    """

    channels: Each[Channels] = (64, 128, 256, 512, 768, 1024)
    blocks: Each[Blocks] = (3, 3, 3, 3, 3, 3)
    patch_size: Sizes = 1
    kernel_size: Kernels = 3
    stride: Sizes = 2
    pixel_shuffle: bool = True
    attention_heads: Heads = ()
    ffn_factor: Factor = 1
    dropout: Share = 0.05
    periodic: bool = False
    norm: Norm = "layer"
    identity_init: bool = True

    def validate(self) -> None:
        super().validate()
        check_levels(self.channels, self.blocks, self.attention_heads, self.norm)
        odd = all(size % 2 == 1 for size in each(self.kernel_size))
        require(odd, f"--kernel-size must be odd, not {self.kernel_size}")

    def factors(self, spatial: int) -> tuple[int, ...]:
        """Cells of the grid per cell of the latent grid, along each of `spatial` grid axes."""
        levels = len(self.channels) - 1
        patch, stride = self._sizes("patch_size", spatial), self._sizes("stride", spatial)
        return tuple(p * s**levels for p, s in zip(patch, stride, strict=True))

    def check_grid(self, grid: Sequence[int]) -> None:
        super().check_grid(grid)
        cells = (size // factor for size, factor in zip(grid, self.factors(len(grid)), strict=True))
        halves = (size // 2 for size in self._sizes("kernel_size", len(grid)))
        for size, half in zip(cells, halves, strict=True):
            require(
                not self.periodic or size >= half,
                f"--kernel-size wraps more than once around the {size} cells of the last level",
            )

    def _sizes(self, name: str, spatial: int) -> tuple[int, ...]:
        """Sizes along each grid axis; a single one is that of every axis."""
        sizes = getattr(self, name)
        if isinstance(sizes, int):
            return (sizes,) * spatial
        require(len(sizes) == spatial, f"{option(name)} {sizes} must have {spatial} sizes, one per grid axis")
        return sizes

    def networks(self, channels: int, spatial: int, outputs: int) -> tuple[nn.Module, nn.Module]:
        """The encoder of `channels` fields on `spatial` grid axes to `outputs` channels, and the decoder."""
        architecture = Architecture(
            spatial=spatial,
            channels=self.channels,
            blocks=self.blocks,
            heads=heads_of_levels(self.attention_heads, len(self.channels)),
            patch_size=self._sizes("patch_size", spatial),
            kernel_size=self._sizes("kernel_size", spatial),
            stride=self._sizes("stride", spatial),
            pixel_shuffle=self.pixel_shuffle,
            ffn_factor=self.ffn_factor,
            dropout=self.dropout,
            periodic=self.periodic,
            norm=self.norm,
            identity_init=self.identity_init,
        )
        return Encoder(architecture, channels, outputs), Decoder(architecture, channels, self.latent_channels)


class Autoencoder(nn.Module):
    """An autoencoder of states.

    Arguments:
        config: Its configuration.
        channels: Channels of a state.
        spatial: Grid axes.
    """

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
        loss = LOSSES[self.config.loss](x, y)
        with torch.no_grad():
            diagnostics: dict[str, Tensor] = {
                name: loss.detach() if name == self.config.loss else LOSSES[name](x, y) for name in MEASURES
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


def vrmse(x: Tensor, y: Tensor) -> Tensor:
    """The VRMSE (Eq. 9) of `y` against `x`, both `(B, C, *grid)`, averaged over samples and channels."""
    grid = tuple(range(2, x.ndim))
    error = (x - y).square().mean(dim=grid)
    variance = (x - x.mean(dim=grid, keepdim=True)).square().mean(dim=grid)
    return torch.sqrt(error / (variance + EPSILON)).mean()


LOSSES: dict[Loss, Callable[[Tensor, Tensor], Tensor]] = {
    "vrmse": vrmse,
    "mse": nn.functional.mse_loss,
    "mae": nn.functional.l1_loss,
}
