r"""Deep-compression convolutional encoder and decoder (Section 3.2, Figure 7).

    encoder     [patch], convolution, level 0, down, level 1, ..., down, level n, convolution to the latent
    decoder     convolution, level n, up, ..., level 1, up, level 0, convolution to the fields, [unpatch]
    block       y = norm(x),  y <- y + attention(y)  (some levels),
                x + convolution(dropout(SiLU(convolution(y))))

Down-sampling is space to depth and a convolution; up-sampling a convolution and depth to space.
"""

import dataclasses
import math
from collections.abc import Sequence

from torch import Tensor, nn

from lola.nn.attention import GridAttention
from lola.nn.layers import (
    DepthToSpace,
    Down,
    SpaceToDepth,
    Up,
    convolution,
    init_near_identity_,
    normalisation,
    scale_parameters,
    to_fast_memory_format,
)
from lola.nn.norms import Norm
from lola.nn.recompute import Block


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
    """The options that encoder and decoder share, as `lola.models.levels` explains them."""

    spatial: int  # grid axes
    channels: tuple[int, ...]  # of each level
    blocks: tuple[int, ...]  # of each level
    heads: tuple[int, ...]  # of each level; 0 is no attention
    patch_size: tuple[int, ...]  # along each axis
    kernel_size: tuple[int, ...]  # along each axis
    stride: tuple[int, ...]  # along each axis
    pixel_shuffle: bool  # resample by space to depth, else by strides and repetition
    ffn_factor: int
    dropout: float
    periodic: bool
    norm: Norm
    identity_init: bool

    def convolution(
        self, inputs: int, outputs: int, *, stride: int | Sequence[int] = 1, identity: bool = False
    ) -> nn.Module:
        """A convolution of the architecture's kind."""
        conv = convolution(inputs, outputs, self.spatial, self.kernel_size, stride, self.periodic)
        if identity and self.identity_init:
            init_near_identity_(conv)
        return conv

    def level(self, i: int) -> list[nn.Module]:
        """The residual blocks of a level."""
        return [ResidualBlock(self, self.channels[i], self.heads[i]) for _ in range(self.blocks[i])]

    def down(self, i: int) -> nn.Module:
        """Down-sampling from level i to level i + 1."""
        inputs, outputs = self.channels[i : i + 2]
        if not self.pixel_shuffle:
            return self.convolution(inputs, outputs, stride=self.stride, identity=True)
        depth = inputs * math.prod(self.stride)
        return Down(self.stride, self.convolution(depth, outputs, identity=True))

    def up(self, i: int) -> nn.Module:
        """Up-sampling from level i + 1 to level i."""
        outputs, inputs = self.channels[i : i + 2]
        if not self.pixel_shuffle:
            return nn.Sequential(
                nn.Upsample(scale_factor=tuple(map(float, self.stride)), mode="nearest"),
                self.convolution(inputs, outputs, identity=True),
            )
        depth = outputs * math.prod(self.stride)
        return Up(self.convolution(inputs, depth, identity=True), self.stride)


class ResidualBlock(Block):
    """A residual block with optional attention, `(B, C, *grid)` to the same shape."""

    def __init__(self, architecture: Architecture, channels: int, heads: int) -> None:
        super().__init__()
        if heads:
            architecture = dataclasses.replace(architecture, kernel_size=(1,) * architecture.spatial)
        width = architecture.ffn_factor * channels
        self.norm = normalisation(architecture.norm, channels)
        self.attention = GridAttention(channels, heads) if heads else None
        self.conv_in = architecture.convolution(channels, width)
        self.act = nn.SiLU()
        self.dropout = nn.Dropout(architecture.dropout)
        self.conv_out = architecture.convolution(width, channels)
        scale_parameters(self.conv_out, 1e-2)

    def forward(self, x: Tensor) -> Tensor:
        x = to_fast_memory_format(x)
        y = to_fast_memory_format(self.norm(x))
        if self.attention is not None:
            y = y + self.attention(y)
        return x + self.conv_out(self.dropout(self.act(self.conv_in(y))))


class Encoder(nn.Module):
    """Map fields `(B, C, *grid)` to latents `(B, latent_channels, *grid / down-sampling)`."""

    def __init__(self, architecture: Architecture, channels: int, latent_channels: int) -> None:
        super().__init__()
        a = architecture
        self.patch = SpaceToDepth(a.patch_size)
        levels = []
        for i in range(len(a.channels)):
            into = a.down(i - 1) if i else a.convolution(channels * math.prod(a.patch_size), a.channels[0])
            levels.append(nn.Sequential(into, *a.level(i)))
        levels[-1].append(a.convolution(a.channels[-1], latent_channels, identity=True))
        self.levels = nn.Sequential(*levels)

    def forward(self, x: Tensor) -> Tensor:
        return self.levels(to_fast_memory_format(self.patch(x)))


class Decoder(nn.Module):
    """Map latents `(B, latent_channels, *grid / down-sampling)` to fields `(B, C, *grid)`."""

    def __init__(self, architecture: Architecture, channels: int, latent_channels: int) -> None:
        super().__init__()
        a = architecture
        levels = []
        for i in reversed(range(len(a.channels))):
            out = a.up(i - 1) if i else a.convolution(a.channels[0], channels * math.prod(a.patch_size))
            levels.append(nn.Sequential(*a.level(i), out))
        levels[0].insert(0, a.convolution(latent_channels, a.channels[-1], identity=True))
        self.levels = nn.Sequential(*levels)
        self.unpatch = DepthToSpace(a.patch_size)

    def forward(self, z: Tensor) -> Tensor:
        return self.unpatch(self.levels(to_fast_memory_format(z))).contiguous()
