r"""The autoencoder: states to latent states and back (Section 3.2).

With `x` a state, `E` the encoder, `D` the decoder, the latent state is saturated at B = 5 (Eq. 5)

    z = softclip2(E(x)) = E(x) / sqrt(1 + (E(x) / B)^2)

and both are trained to reconstruct (Eq. 6)

    argmin_{E, D}  E l(x, D(z)),  l(x, y) = mean_c sqrt(<(x_c - y_c)^2> / (<(x_c - <x_c>)^2> + 1e-2))

where `<.>` is the mean over the grid (VRMSE, Eq. 9), or with the mean squared or absolute error as l.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from lola.config import Config, require
from lola.data.state import Batch
from lola.errors import ConfigError
from lola.nn.dcae import Architecture, Decoder, Encoder
from lola.nn.layers import ChannelNorm, Norm
from lola.seeding import SampleGenerator

Saturation = Literal["softclip2", "softclip", "tanh", "arcsinh", "rmsnorm", "none"]
Loss = Literal["vrmse", "mse", "mae"]

BOUND = 5.0
EPSILON = 1e-2


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoencoderConfig(Config):
    """An autoencoder; the defaults are those of the paper's 2d systems.

    Arguments:
        latent_channels: Channels of the latent state: the lever of the compression rate.
        channels: Channels of each level.
        blocks: Residual blocks of each level.
        patch_size: Cells per patch and axis, folded into channels before the first level.
        kernel_size: Width of the convolutions.
        stride: Down-sampling between levels.
        pixel_shuffle: Whether resampling is by space to depth, else by strides and repetition.
        attention_heads: Pairs (level, heads) of the levels with attention.
        ffn_factor: Channels within a block over those outside.
        dropout: Probability of dropping within a block.
        periodic: Whether convolutions wrap around the grid.
        norm: The normalisation over channels.
        identity_init: Whether resampling and latent convolutions start near the identity.
        saturation: What bounds the latent state.
        loss: The reconstruction loss.
    """

    latent_channels: int = 64
    channels: tuple[int, ...] = (64, 128, 256, 512, 768, 1024)
    blocks: tuple[int, ...] = (3, 3, 3, 3, 3, 3)
    patch_size: int = 1
    kernel_size: int = 3
    stride: int = 2
    pixel_shuffle: bool = True
    attention_heads: tuple[tuple[int, int], ...] = ()
    ffn_factor: int = 1
    dropout: float = 0.05
    periodic: bool = False
    norm: Norm = "layer"
    identity_init: bool = True
    saturation: Saturation = "softclip2"
    loss: Loss = "vrmse"

    def validate(self) -> None:
        require(len(self.channels) > 0, "channels must name at least one level")
        require(
            len(self.channels) == len(self.blocks),
            f"channels has {len(self.channels)} levels and blocks {len(self.blocks)}; give both as many",
        )
        require(min(self.blocks) >= 0, "blocks must not be negative")
        require(min(self.channels) >= 2, "every level needs at least 2 channels to normalise over")
        for name in ("latent_channels", "patch_size", "stride", "ffn_factor"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1, not {getattr(self, name)}")
        require(self.kernel_size % 2 == 1, f"kernel_size must be odd, not {self.kernel_size}")
        require(0 <= self.dropout < 1, f"dropout must be in [0, 1), not {self.dropout}")
        require(self.norm in get_args(Norm), f"no normalisation is called {self.norm!r}")
        require(self.saturation in get_args(Saturation), f"no saturation is called {self.saturation!r}")
        require(self.loss in get_args(Loss), f"no loss is called {self.loss!r}")
        for level, heads in self.attention_heads:
            require(
                0 <= level < len(self.channels), f"attention_heads names level {level}, which does not exist"
            )
            require(
                heads >= 1 and self.channels[level] % heads == 0,
                f"{self.channels[level]} channels of level {level} do not split into {heads} heads",
            )

    @property
    def downsampling(self) -> int:
        """Cells of the grid per cell of the latent grid, along each axis."""
        return self.patch_size * self.stride ** (len(self.channels) - 1)

    def check_grid(self, grid: Sequence[int]) -> None:
        """Raise `ConfigError` unless the down-sampling divides every axis of the grid."""
        if any(size % self.downsampling for size in grid):
            raise ConfigError(
                f"the autoencoder's down-sampling {self.downsampling} does not divide a grid of "
                f"{' x '.join(map(str, grid))}; take multiples of {self.downsampling}, fewer levels or a "
                "smaller patch_size"
            )

    def compression(self, channels: int, spatial: int) -> float:
        """The compression rate numel(x) / numel(z) of states of `channels` on `spatial` grid axes."""
        return channels * self.downsampling**spatial / self.latent_channels

    def build(self, channels: int, spatial: int) -> "Autoencoder":
        """The autoencoder of states of `channels` fields on `spatial` grid axes (1 to 3)."""
        require(1 <= spatial <= 3, f"autoencoders know 1 to 3 grid axes, not {spatial}")
        return Autoencoder(self, channels, spatial)


class Autoencoder(nn.Module):
    """An autoencoder of states.

    Arguments:
        config: Its configuration.
        channels: Channels of a state.
        spatial: Grid axes.
    """

    def __init__(self, config: AutoencoderConfig, channels: int, spatial: int) -> None:
        super().__init__()
        heads = dict(config.attention_heads)
        architecture = Architecture(
            spatial=spatial,
            channels=config.channels,
            blocks=config.blocks,
            heads=tuple(heads.get(level, 0) for level in range(len(config.channels))),
            patch_size=config.patch_size,
            kernel_size=config.kernel_size,
            stride=config.stride,
            pixel_shuffle=config.pixel_shuffle,
            ffn_factor=config.ffn_factor,
            dropout=config.dropout,
            periodic=config.periodic,
            norm=config.norm,
            identity_init=config.identity_init,
        )
        self.config = config
        self.encoder = Encoder(architecture, channels, config.latent_channels)
        self.decoder = Decoder(architecture, channels, config.latent_channels)

    def encode(self, x: Tensor) -> Tensor:
        """Compress states, standardised, `(B, C, *grid)` to `(B, latent_channels, *grid / downsampling)`.

        Raises:
            ConfigError: The down-sampling does not divide the grid.
        """
        self.config.check_grid(x.shape[2:])
        return saturate(self.encoder(x).to(x.dtype), self.config.saturation)  # bounded in full precision

    def decode(self, z: Tensor) -> Tensor:
        """Reconstruct states `(B, C, *grid)` from latents `(B, latent_channels, *grid / downsampling)`."""
        return self.decoder(z)

    def forward(self, x: Tensor) -> Tensor:
        """Encode and decode states `(B, C, *grid)`."""
        return self.decode(self.encode(x))

    def loss(self, batch: Batch, generator: SampleGenerator) -> tuple[Tensor, dict[str, Tensor]]:
        """The objective (Eq. 6) over all states of a batch, with its VRMSE and mean squared error."""
        x = batch.states.transpose(1, 2).flatten(0, 1)
        y = self(x).float()
        with torch.no_grad():
            diagnostics = {"vrmse": vrmse(x, y), "mse": nn.functional.mse_loss(x, y)}
        return LOSSES[self.config.loss](x, y), diagnostics


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
    variance = x.var(dim=grid, correction=0)
    return torch.sqrt(error / (variance + EPSILON)).mean()


LOSSES: dict[Loss, Callable[[Tensor, Tensor], Tensor]] = {
    "vrmse": vrmse,
    "mse": nn.functional.mse_loss,
    "mae": nn.functional.l1_loss,
}
