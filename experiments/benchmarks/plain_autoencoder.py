r"""The autoencoder written the plain way: what `lola.models.autoencoder` is measured against.

The same function of the same parameters, which have the same names, from stock operators alone: channels
first in memory, normalisation by mean and variance as separate operations, and resampling by `einops`.
"""

import einops
import torch
from torch import Tensor, nn

from lola.core.errors import ConfigError
from lola.models.autoencoder_config import AutoencoderConfig

EPSILON = 1e-5
SATURATION = 5.0
FOLD = {
    2: "b c (h i) (w j) -> b (c i j) h w",
    3: "b c (h i) (w j) (d k) -> b (c i j k) h w d",
}


class PlainFold(nn.Module):
    """Space to depth, or depth to space, by one factor along every grid axis."""

    def __init__(self, factor: int, spatial: int, unfold: bool = False) -> None:
        super().__init__()
        source, target = FOLD[spatial].split(" -> ")
        self.pattern = f"{target} -> {source}" if unfold else f"{source} -> {target}"
        self.sizes = dict.fromkeys("ijk"[:spatial], factor)

    def forward(self, x: Tensor) -> Tensor:
        return einops.rearrange(x, self.pattern, **self.sizes)


class PlainBlock(nn.Module):
    """A residual block, `(B, C, *grid)` to the same shape."""

    def __init__(self, config: AutoencoderConfig, channels: int, spatial: int) -> None:
        super().__init__()
        width = config.ffn_factor * channels
        self.conv_in = plain_convolution(config, channels, width, spatial)
        self.conv_out = plain_convolution(config, width, channels, spatial)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, dim=1, keepdim=True, correction=1)
        y = (x - mean) / torch.sqrt(variance + EPSILON)
        return x + self.conv_out(self.dropout(nn.functional.silu(self.conv_in(y))))


class PlainAutoencoder(nn.Module):
    """The autoencoder of a configuration that has pixel shuffling, no attention and the default saturation.

    Arguments:
        channels: Channels of a state.
        spatial: Grid axes, 2 or 3.
    """

    def __init__(self, config: AutoencoderConfig, channels: int, spatial: int) -> None:
        super().__init__()
        c, patch, stride = config.channels, single(config.patch_size), single(config.stride)
        encoder: list[nn.Sequential] = []
        decoder: list[nn.Sequential] = []
        for i in range(len(c)):
            blocks = [[PlainBlock(config, c[i], spatial) for _ in range(config.blocks[i])] for _ in range(2)]
            fold, unfold = (PlainFold(stride, spatial, unfold) for unfold in (False, True))
            cells = stride**spatial
            down: nn.Module
            up: nn.Module
            if i:
                down = nn.Sequential(fold, plain_convolution(config, c[i - 1] * cells, c[i], spatial))
                up = nn.Sequential(plain_convolution(config, c[i], c[i - 1] * cells, spatial), unfold)
            else:
                down = plain_convolution(config, channels * patch**spatial, c[0], spatial)
                up = plain_convolution(config, c[0], channels * patch**spatial, spatial)
            encoder.append(nn.Sequential(down, *blocks[0]))
            decoder.append(nn.Sequential(*blocks[1], up))
        encoder[-1].append(plain_convolution(config, c[-1], config.latent_channels, spatial))
        decoder[-1].insert(0, plain_convolution(config, config.latent_channels, c[-1], spatial))
        self.encoder = nn.ModuleDict({"levels": nn.Sequential(*encoder)})
        self.decoder = nn.ModuleDict({"levels": nn.Sequential(*reversed(decoder))})
        self.patch = PlainFold(patch, spatial)
        self.unpatch = PlainFold(patch, spatial, unfold=True)

    def forward(self, x: Tensor) -> Tensor:
        """Encode and decode states `(B, C, *grid)`."""
        z = self.encoder["levels"](self.patch(x))
        z = z / torch.sqrt(1 + (z / SATURATION) ** 2)
        return self.unpatch(self.decoder["levels"](z))


def plain_convolution(config: AutoencoderConfig, inputs: int, outputs: int, spatial: int) -> nn.Module:
    """A convolution that keeps the size of the grid."""
    kind = {2: nn.Conv2d, 3: nn.Conv3d}[spatial]
    width = single(config.kernel_size)
    return kind(inputs, outputs, width, padding=width // 2)


def single(size: int | tuple[int, ...]) -> int:
    """A size that is the same along every axis; others are a `ConfigError`."""
    if not isinstance(size, int):
        raise ConfigError(f"the plain baseline knows one size for all axes, not {size}")
    return size
