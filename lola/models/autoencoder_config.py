"""Configurations of autoencoders, whose mathematics `lola.models.autoencoder` gives."""

import abc
import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from lola.core.config import Channels, Config, NonEmpty, Size, Within, added_field, option_name, require
from lola.core.errors import ConfigError
from lola.models.levels import Blocks, LevelsConfig
from lola.models.network import Sizes

if TYPE_CHECKING:
    from torch import nn

    from lola.models.autoencoder import Autoencoder

Saturation = Literal["softclip2", "softclip", "tanh", "arcsinh", "rmsnorm", "none"]
Loss = Literal["vrmse", "mse", "mae"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodecConfig(Config, abc.ABC):
    """The base class of all autoencoders' configurations.

    Arguments:
        latent_channels: Channels of the latent state; they set the compression rate.
        saturation: The function that bounds the latent state.
        loss: The reconstruction loss.
        kl_weight: Weight of the divergence of latents from a standard normal; above 0 the autoencoder is
            variational.
        latent_noise: Deviation of the noise that latents are given in training.
        warm_start: The finished autoencoder whose weights it starts from: a stage's folder, name or
            fingerprint, of this system or another one. By default none.
    """

    latent_channels: Size = 64
    saturation: Saturation = "softclip2"
    loss: Loss = "vrmse"
    kl_weight: Annotated[float, Within("[0, 1e6]")] = 0.0
    latent_noise: Annotated[float, Within("[0, 1e6]")] = 0.0
    warm_start: str | None = added_field(None)

    def validate(self) -> None:
        super().validate()
        require(self.warm_start != "", "--warm-start must name a finished autoencoder")
        require(self.saturation in get_args(Saturation), f"no saturation is called {self.saturation!r}")
        require(self.loss in get_args(Loss), f"no loss is called {self.loss!r}")

    @abc.abstractmethod
    def factors(self, spatial: int) -> tuple[int, ...]:
        """Cells of the grid per cell of the latent grid, along each of `spatial` grid axes."""

    @abc.abstractmethod
    def networks(self, channels: int, spatial: int, outputs: int) -> "tuple[nn.Module, nn.Module]":
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
            nearest = (max(1, round(size / each)) * each for size, each in zip(grid, factors, strict=True))
            raise ConfigError(
                f"the autoencoder's down-sampling {self.rate(len(grid))[1:]} does not divide a grid of "
                f"{' x '.join(map(str, grid))}; crop or pad the data, to {' x '.join(map(str, nearest))} for "
                "example, or take a smaller --patch-size or fewer levels (--channels, --blocks)"
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
        require(1 <= spatial <= 3, f"autoencoders support 1 to 3 grid axes, not {spatial}")
        from lola.models.autoencoder import Autoencoder

        return Autoencoder(self, channels, spatial)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoencoderConfig(CodecConfig, LevelsConfig):
    """A convolutional autoencoder; the defaults are those of the paper's 2d systems.

    Arguments:
        patch_size: Cells per patch along every axis or each, folded into channels before the first level.
        pixel_shuffle: Whether resampling is by space to depth, else by strides and repetition.
    """

    kind_name = "convolutional"

    channels: NonEmpty[Channels] = (64, 128, 256, 512, 768, 1024)
    blocks: NonEmpty[Blocks] = (3, 3, 3, 3, 3, 3)
    patch_size: Sizes = 1
    pixel_shuffle: bool = True

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
        require(
            len(sizes) == spatial, f"{option_name(name)} {sizes} must have {spatial} sizes, one per grid axis"
        )
        return sizes

    def networks(self, channels: int, spatial: int, outputs: int) -> "tuple[nn.Module, nn.Module]":
        """The encoder of `channels` fields on `spatial` grid axes to `outputs` channels, and the decoder."""
        from lola.nn.dcae import Architecture, Decoder, Encoder

        architecture = Architecture(
            spatial=spatial,
            channels=self.channels,
            blocks=self.blocks,
            heads=self.heads_per_level,
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
