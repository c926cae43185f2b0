r"""Normalisation, convolution and resampling on grids of one, two or three axes.

Tensors are `(B, C, *grid)` in shape and channels-last in memory: normalising over channels then reads
contiguous numbers, and convolutions need no reordering. Where a CPU convolves few positions, reordering
weights costs more than reordering states, and channels come first (`suit`).

    normalisation       y_c = (x_c - m) / sqrt(v + eps),  m = sum_c x_c / C,  v = sum_c (x_c - m)^2 / (C - 1)
    space to depth      y[c, p, q; i, j] = x[c; i P + p, j Q + q]

Space to depth orders the new channels as (c, p, q), as published weights do. States are copied faster in the
order (p, q, c), which is closer to channels-last: the convolution's weights are reordered instead.
"""

import math
from collections.abc import Sequence
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Norm = Literal["layer", "rms"]

MEMORY_FORMATS = {2: torch.channels_last, 3: torch.channels_last_3d}
FEW = 4


def few_positions(x: Tensor, cells: int = 1) -> bool:
    """Whether weights outweigh the states `(B, C, *grid)` that a CPU convolves, `cells` of them folded."""
    positions = len(x) * math.prod(x.shape[2:])
    return x.is_cpu and positions // cells < FEW * x.shape[1] * cells


def suit(x: Tensor) -> Tensor:
    """States `(B, C, *grid)` in the memory format that convolutions are fastest in."""
    channels_last = MEMORY_FORMATS.get(x.ndim - 2, torch.contiguous_format)
    return x.contiguous(memory_format=torch.contiguous_format if few_positions(x) else channels_last)


class ChannelNorm(nn.Module):
    """Normalise `(B, C, *grid)` over its channels, C > 1, without affine parameters.

    Arguments:
        norm: `layer` removes the mean and divides by the deviation; `rms` divides by the root mean square.
        eps: What is added to the variance.
    """

    def __init__(self, norm: Norm = "layer", eps: float = 1e-5) -> None:
        super().__init__()
        self.norm = norm
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        x = x.movedim(1, -1)
        c = x.shape[-1]
        if self.norm == "rms":
            return F.rms_norm(x, (c,), eps=self.eps).movedim(-1, 1)
        # The fused kernel divides by C where Bessel's correction divides by C - 1: (C - 1) / C = bessel^2
        bessel = math.sqrt((c - 1) / c)
        # Half precision would round the factor; only the kernel for CPUs mixes types
        dtype = torch.promote_types(x.dtype, torch.float32) if x.is_cpu else x.dtype
        weight = x.new_full((c,), bessel, dtype=dtype)
        return F.layer_norm(x, (c,), weight, eps=self.eps * bessel**2).movedim(-1, 1)


def convolution(
    in_channels: int,
    out_channels: int,
    spatial: int,
    kernel_size: int = 3,
    stride: int = 1,
    periodic: bool = False,
) -> nn.Module:
    """A convolution over `spatial` grid axes that keeps the size, but for the stride; odd kernels only."""
    kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[spatial - 1]
    return kind(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        padding=kernel_size // 2,
        padding_mode="circular" if periodic else "zeros",
    )


@torch.no_grad()
def scale_parameters(module: nn.Module, factor: float) -> None:
    """Multiply all parameters of a module in place."""
    for parameter in module.parameters():
        parameter.mul_(factor)


@torch.no_grad()
def start_near_identity(convolution: nn.Module) -> None:
    """Set a convolution to 1/100 of itself plus a pseudo-identity.

    Output channel `i` copies input channel `i mod C` at the centre of the kernel (Section 3.2).
    """
    scale_parameters(convolution, 1e-2)
    weight = cast(Tensor, convolution.weight)
    outputs, inputs = weight.shape[:2]
    centre = weight[0, 0].numel() // 2
    i = torch.arange(outputs, device=weight.device)
    weight.flatten(2)[i, i % inputs, centre] += 1


def space_to_depth(x: Tensor, factors: Sequence[int], cells_first: bool = False) -> Tensor:
    """Fold `(B, C, H P, W Q)` into `(B, C P Q, H, W)`, for any number of axes.

    The new channels are in the order (C, P, Q), or (P, Q, C) if `cells_first`.
    """
    d = len(factors)
    for axis, factor in reversed(list(enumerate(factors))):
        x = x.unflatten(2 + axis, (-1, factor))  # (B, C, H, P, W, Q)
    cells = range(3, 3 + 2 * d, 2)
    x = x.permute(0, *range(2, 2 + 2 * d, 2), *((*cells, 1) if cells_first else (1, *cells)))
    return x.flatten(1 + d).movedim(-1, 1)


def depth_to_space(x: Tensor, factors: Sequence[int], cells_first: bool = False) -> Tensor:
    """Unfold `(B, C P Q, H, W)` into `(B, C, H P, W Q)`: the inverse of `space_to_depth`."""
    d = len(factors)
    x = x.unflatten(1, (*factors, -1) if cells_first else (-1, *factors))  # (B, C, P, Q, H, W)
    first, channels = (1, 1 + d) if cells_first else (2, 1)
    pairs = [axis for i in range(d) for axis in (2 + d + i, first + i)]
    x = x.permute(0, *pairs, channels)  # (B, H, P, W, Q, C)
    for axis in range(d):
        x = x.flatten(1 + axis, 2 + axis)
    return x.movedim(-1, 1)


class SpaceToDepth(nn.Module):
    """`space_to_depth` by one factor along every grid axis."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return space_to_depth(x, [self.factor] * (x.ndim - 2))


class DepthToSpace(nn.Module):
    """`depth_to_space` by one factor along every grid axis."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return depth_to_space(x, [self.factor] * (x.ndim - 2))


class Down(nn.Sequential):
    """Space to depth by a factor, and a convolution."""

    def __init__(self, factor: int, convolution: nn.Module) -> None:
        super().__init__(SpaceToDepth(factor), convolution)
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        factors = [self.factor] * (x.ndim - 2)
        cells = math.prod(factors)
        convolution = cast(nn.Conv2d, self[1])
        if few_positions(x, cells):
            return convolution(suit(space_to_depth(x, factors)))
        weight = convolution.weight.unflatten(1, (-1, cells)).transpose(1, 2).flatten(1, 2)
        x = space_to_depth(x, factors, cells_first=True)
        return convolution._conv_forward(x, weight, convolution.bias)


class Up(nn.Sequential):
    """A convolution, and depth to space by a factor."""

    def __init__(self, convolution: nn.Module, factor: int) -> None:
        super().__init__(convolution, DepthToSpace(factor))
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        factors = [self.factor] * (x.ndim - 2)
        convolution = cast(nn.Conv2d, self[0])
        if few_positions(x):
            return depth_to_space(convolution(suit(x)), factors)
        weight, bias = (
            parameter.unflatten(0, (-1, math.prod(factors))).transpose(0, 1).flatten(0, 1)
            for parameter in (convolution.weight, cast(Tensor, convolution.bias))
        )
        return depth_to_space(convolution._conv_forward(x, weight, bias), factors, cells_first=True)
