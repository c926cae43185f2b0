r"""A modulated U-Net over the states of a window: convolutions over time and grid, at several resolutions.

    descent     x_0 = blocks(project_in(x)),  x_i = blocks(down(x_{i-1}))
    ascent      y_n = blocks(x_n),            y_i = blocks(merge(x_i, repeat(y_{i+1}))),  project_out(y_0)

With `m` the modulation vector and `a, b, c` per block either functions of `m` or free parameters, a block is

    y = (1 + a) norm(x) + b,  y <- y + attention(y)  (some levels)
    y <- convolution(dropout(SiLU(convolution(y))))
    x <- (x + c y) / sqrt(1 + c^2)

Coordinates from -1 to 1 along time and, unless the grid is periodic, along its axes are further input
channels. At initialisation `c` is about 0 and `down` and `merge` copy their first channels, so that the whole
network is close to `project_out(project_in(x))`; a periodic one commutes with shifts by its down-sampling.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from lola.nn.attention import GridAttention
from lola.nn.embedding import mlp
from lola.nn.layers import WindowConvolution, init_near_identity_, normalisation, scale_parameters
from lola.nn.norms import Norm
from lola.nn.recompute import Block


class UNetBlock(Block):
    """A modulated residual block.

    Arguments:
        channels: Channels in and out.
        modulation: Features of the modulation vector; 0 makes a, b, c free parameters.
        kernel_size: Sizes of the convolutions along time and each grid axis; 1 in blocks with attention.
        heads: Attention heads; 0 is no attention.
        ffn_factor: Channels within the block over those outside.
        dropout: Probability that an activation within the block is dropped in training.
        norm: The normalisation.
        periodic: Whether convolutions wrap around the grid.
    """

    def __init__(
        self,
        channels: int,
        modulation: int,
        kernel_size: Sequence[int],
        heads: int = 0,
        ffn_factor: int = 1,
        dropout: float = 0.0,
        norm: Norm = "layer",
        periodic: bool = False,
    ) -> None:
        super().__init__()
        if heads:
            kernel_size = [1] * len(kernel_size)
        self.norm = normalisation(norm, channels)
        self.modulation = mlp(modulation, 3 * channels, modulation) if modulation else None
        if self.modulation is None:
            self.abc = nn.Parameter(1e-2 * torch.randn(3, channels))
        else:
            scale_parameters(self.modulation[-1], 1e-2)
        self.attention = GridAttention(channels, heads) if heads else None
        self.conv_in = WindowConvolution(channels, ffn_factor * channels, kernel_size, periodic=periodic)
        self.act = nn.SiLU()
        self.dropout = nn.Dropout(dropout)
        self.conv_out = WindowConvolution(ffn_factor * channels, channels, kernel_size, periodic=periodic)

    def forward(self, x: Tensor, m: Tensor | None) -> Tensor:
        """Map `(B, channels, L, *grid)`, given `m` `(B, modulation)`, to the same shape."""
        abc = self.abc[None] if self.modulation is None else self.modulation(m).unflatten(1, (3, -1))
        a, b, c = abc.reshape(*abc.shape, *[1] * (x.ndim - 2)).unbind(1)
        y = (1 + a) * self.norm(x) + b
        if self.attention is not None:
            y = y + self.attention(y)
        y = self.conv_out(self.dropout(self.act(self.conv_in(y))))
        return (x + c * y) * torch.rsqrt(1 + c * c)


class UNetLevel(nn.Module):
    """A level's input layer `into`, and its blocks."""

    def __init__(self, into: nn.Module, blocks: Iterable[UNetBlock]) -> None:
        super().__init__()
        self.into = into
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, m: Tensor | None) -> Tensor:
        """Map `(B, C, L, *grid)`, given `m` `(B, modulation)`, to the level's channels and resolution."""
        x = self.into(x)
        for block in self.blocks:
            x = block(x, m)
        return x


class UNet(nn.Module):
    """The U-Net, from `(B, inputs, L, *grid)` to `(B, outputs, L, *grid)`, with 1 to 3 grid axes.

    Arguments:
        inputs, outputs: Channels in and out.
        modulation: Features of the modulation vector; 0 is none.
        channels, blocks, heads: Channels, blocks and attention heads (0 is no attention) of each level; the
            ascent has as many blocks as the descent.
        kernel_size: Sizes of the convolutions along time and each grid axis, odd.
        stride: Down-sampling between levels, along time and each grid axis. An axis that it does not divide
            keeps its last cell, and is cropped after up-sampling.
        ffn_factor, dropout, norm, periodic: As in `UNetBlock`.
        identity_init: Whether `down` and `merge` start near copies.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        modulation: int,
        *,
        channels: Sequence[int],
        blocks: Sequence[int],
        heads: Sequence[int],
        kernel_size: Sequence[int],
        stride: Sequence[int],
        ffn_factor: int = 1,
        dropout: float = 0.0,
        norm: Norm = "layer",
        periodic: bool = False,
        identity_init: bool = True,
    ) -> None:
        super().__init__()
        self.stride = tuple(stride)
        self.periodic = periodic

        def conv(inputs: int, outputs: int, stride: Sequence[int] | None = None) -> WindowConvolution:
            return WindowConvolution(inputs, outputs, kernel_size, stride, periodic)

        def resample(inputs: int, outputs: int, stride: Sequence[int] | None = None) -> WindowConvolution:
            layer = conv(inputs, outputs, stride)
            if identity_init:
                init_near_identity_(layer)
            return layer

        def level(i: int) -> list[UNetBlock]:
            options = (modulation, kernel_size, heads[i], ffn_factor, dropout, norm, periodic)
            return [UNetBlock(channels[i], *options) for _ in range(blocks[i])]

        positions = 1 if periodic else len(kernel_size)
        down = [UNetLevel(conv(inputs + positions, channels[0]), level(0))]
        for i in range(1, len(channels)):
            down.append(UNetLevel(resample(channels[i - 1], channels[i], stride), level(i)))
        up = [UNetLevel(nn.Identity(), level(len(channels) - 1))]
        for i in reversed(range(len(channels) - 1)):
            up.append(UNetLevel(resample(channels[i] + channels[i + 1], channels[i]), level(i)))
        self.down = nn.ModuleList(down)
        self.up = nn.ModuleList(up)
        self.project_out = conv(channels[0], outputs)

    def forward(self, x: Tensor, m: Tensor | None = None) -> Tensor:
        """Map `(B, inputs, L, *grid)`, modulated by `m` `(B, modulation)`, to `(B, outputs, L, *grid)`."""
        axes = range(2, 3 if self.periodic else x.ndim)
        x = torch.cat((x, *(_positions(x, axis) for axis in axes)), dim=1)
        levels = []
        for level in self.down:
            x = level(x, m)
            levels.append(x)
        x = self.up[0](levels.pop(), m)
        for level in self.up[1:]:
            y = levels.pop()
            x = level(torch.cat((y, self._repeat(x, y.shape[2:])), dim=1), m)
        return self.project_out(x)

    def _repeat(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        """Repeat every cell along every axis, down to the shape of the finer level."""
        for axis, (factor, size) in enumerate(zip(self.stride, shape, strict=True), 2):
            if factor > 1:
                x = x.repeat_interleave(factor, dim=axis).narrow(axis, 0, size)
        return x


def _positions(x: Tensor, axis: int) -> Tensor:
    """Coordinates of the cells of `(B, C, *)` along an axis, from -1 to 1, with shape `(B, 1, *)`."""
    p = torch.linspace(-1, 1, x.shape[axis], dtype=x.dtype, device=x.device)
    return p.reshape(-1, *[1] * (x.ndim - axis - 1)).expand(len(x), 1, *x.shape[2:])
