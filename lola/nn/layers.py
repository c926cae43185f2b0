r"""Normalisation, convolution and resampling on grids of one, two or three axes.

Tensors are `(B, C, *grid)` in shape and channels-last in memory: normalising over channels then reads
contiguous numbers, and convolutions need no reordering. Where a CPU convolves few positions, reordering
weights costs more than reordering states, and channels come first (`to_fast_memory_format`).

    normalisation       y_c = (x_c - m) / sqrt(v + eps),  m = sum_c x_c / C,  v = sum_c (x_c - m)^2 / (C - 1)
    in groups           the same over the channels of a group and the grid, v divided by their number N
    space to depth      y[c, p, q; i, j] = x[c; i P + p, j Q + q]

Space to depth orders the new channels as (c, p, q), as published weights do. States are copied faster in the
order (p, q, c), which is closer to channels-last: the convolution's weights are reordered instead.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from lola.nn.norms import Norm, group_count

MEMORY_FORMATS = {2: torch.channels_last, 3: torch.channels_last_3d}
FEW_POSITIONS_PER_CHANNEL = 4


def has_few_positions(x: Tensor, cells: int = 1) -> bool:
    """Whether a CPU that convolves `(B, C, *grid)` would reorder weights for longer than states.

    Arguments:
        x: The states.
        cells: Cells that are folded into one position before the convolution.
    """
    positions = len(x) * math.prod(x.shape[2:])
    return x.is_cpu and positions // cells < FEW_POSITIONS_PER_CHANNEL * x.shape[1] * cells


def to_fast_memory_format(x: Tensor) -> Tensor:
    """States `(B, C, *grid)` in the memory format that convolutions are fastest in."""
    channels_last = MEMORY_FORMATS.get(x.ndim - 2, torch.contiguous_format)
    return x.contiguous(memory_format=torch.contiguous_format if has_few_positions(x) else channels_last)


class ChannelNorm(nn.Module):
    """Normalise `(B, C, *grid)` over its channels, C > 1, without affine parameters.

    Arguments:
        norm: `layer` removes the mean and divides by the deviation; `rms` divides by the root mean square.
        eps: Added to the variance.
    """

    def __init__(self, norm: Literal["layer", "rms"] = "layer", eps: float = 1e-5) -> None:
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


def normalisation(norm: Norm, channels: int) -> nn.Module:
    """The normalisation of `(B, channels, *grid)`, without affine parameters."""
    if norm == "group":
        return nn.GroupNorm(group_count(channels), channels, affine=False)
    return ChannelNorm(norm)


def convolution(
    in_channels: int,
    out_channels: int,
    spatial: int,
    kernel_size: int | Sequence[int] = 3,
    stride: int | Sequence[int] = 1,
    periodic: bool = False,
) -> nn.Module:
    """A convolution over `spatial` grid axes that keeps the size, but for the stride; odd kernels only."""
    sizes = (kernel_size,) * spatial if isinstance(kernel_size, int) else tuple(kernel_size)
    kind: Callable[..., nn.Module] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[spatial - 1]
    return kind(
        in_channels,
        out_channels,
        sizes,
        stride=stride if isinstance(stride, int) else tuple(stride),
        padding=tuple(size // 2 for size in sizes),
        padding_mode="circular" if periodic else "zeros",
    )


class WindowConvolution(nn.Module):
    """A convolution of windows `(B, C, L, *grid)` over time and 1 to 3 grid axes, initialised as torch's are.

    Arguments:
        inputs, outputs: Channels in and out.
        kernel_size: Sizes along time and each grid axis, odd.
        stride: Strides along time and each grid axis; none is 1.
        periodic: Whether the grid wraps around; time, and a grid that does not, are padded with zeros.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel_size: Sequence[int],
        stride: Sequence[int] | None = None,
        periodic: bool = False,
    ) -> None:
        super().__init__()
        self.stride = tuple(stride or [1] * len(kernel_size))
        self.margins = [size // 2 for size in kernel_size]
        self.periodic = periodic
        bound = 1 / math.sqrt(inputs * math.prod(kernel_size))
        self.weight = nn.Parameter(torch.empty(outputs, inputs, *kernel_size).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, inputs, L, *grid)` to `(B, outputs, L / stride, *grid / stride)`, rounded up."""
        time, *grid = self.margins
        if self.periodic:
            pads = [margin for margin in reversed(grid) for _ in range(2)]
            x = F.pad(x.flatten(1, 2), pads, mode="circular").unflatten(1, x.shape[1:3])
            grid = [0] * len(grid)
        if x.ndim <= 5:
            convolve = (F.conv2d, F.conv3d)[x.ndim - 4]
            return convolve(x, self.weight, self.bias, self.stride, (time, *grid))
        return self._convolve_slices(x, time, grid)

    def _convolve_slices(self, x: Tensor, time: int, grid: Sequence[int]) -> Tensor:
        """Convolve over three grid axes, with neighbouring states as channels: torch has no conv4d."""
        x = F.pad(x, (*[0] * 6, time, time))
        x = x.unfold(2, 2 * time + 1, self.stride[0]).movedim(-1, 2)  # (B, C, K, L, *grid)
        states = x.movedim(3, 1).flatten(2, 3)  # (B, L, C K, *grid)
        weight = self.weight.flatten(1, 2)
        y = F.conv3d(states.flatten(0, 1), weight, self.bias, self.stride[1:], tuple(grid))
        return y.unflatten(0, states.shape[:2]).transpose(1, 2)


@torch.no_grad()
def scale_parameters(module: nn.Module, factor: float) -> None:
    """Multiply all parameters of a module in place."""
    for parameter in module.parameters():
        parameter.mul_(factor)


@torch.no_grad()
def init_near_identity_(convolution: nn.Module) -> None:
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
    """Fold `(B, C, H P, W Q)` into `(B, C P Q, H, W)`, for up to four axes.

    The new channels are in the order (C, P, Q), or (P, Q, C) if `cells_first`.
    """
    fine, coarse = _patterns(len(factors), cells_first)
    return rearrange(x, f"b c {fine} -> {coarse}", **_sizes(factors)).movedim(-1, 1)


def depth_to_space(x: Tensor, factors: Sequence[int], cells_first: bool = False) -> Tensor:
    """Unfold `(B, C P Q, H, W)` into `(B, C, H P, W Q)`: the inverse of `space_to_depth`."""
    fine, coarse = _patterns(len(factors), cells_first)
    return rearrange(x.movedim(1, -1), f"{coarse} -> b {fine} c", **_sizes(factors)).movedim(-1, 1)


def _patterns(axes: int, cells_first: bool) -> tuple[str, str]:
    """The axes of the fine grid, such as `(h p) (w q)`, and the coarse tensor, `b h w (c p q)`."""
    coarse, cells = "hwdt"[:axes], " ".join("pqrs"[:axes])
    fine = " ".join(f"({size} {cell})" for size, cell in zip(coarse, "pqrs", strict=False))
    channels = f"{cells} c" if cells_first else f"c {cells}"
    return fine, f"b {' '.join(coarse)} ({channels})"


def _sizes(factors: Sequence[int]) -> dict[str, int]:
    return dict(zip("pqrs", factors, strict=False))


class SpaceToDepth(nn.Module):
    """`space_to_depth` by one factor along every grid axis, or by one along each."""

    def __init__(self, factors: int | Sequence[int]) -> None:
        super().__init__()
        self.factors = factors

    def forward(self, x: Tensor) -> Tensor:
        factors = self.factors
        return space_to_depth(x, [factors] * (x.ndim - 2) if isinstance(factors, int) else factors)


class DepthToSpace(nn.Module):
    """`depth_to_space` by one factor along every grid axis, or by one along each."""

    def __init__(self, factors: int | Sequence[int]) -> None:
        super().__init__()
        self.factors = factors

    def forward(self, x: Tensor) -> Tensor:
        factors = self.factors
        return depth_to_space(x, [factors] * (x.ndim - 2) if isinstance(factors, int) else factors)


class Down(nn.Sequential):
    """Space to depth by a factor along each grid axis, and a convolution."""

    def __init__(self, factors: Sequence[int], convolution: nn.Module) -> None:
        super().__init__(SpaceToDepth(factors), convolution)
        self.factors = tuple(factors)

    def forward(self, x: Tensor) -> Tensor:
        cells = math.prod(self.factors)
        convolution = cast(nn.Conv2d, self[1])
        if has_few_positions(x, cells):
            return convolution(to_fast_memory_format(space_to_depth(x, self.factors)))
        weight = convolution.weight.unflatten(1, (-1, cells)).transpose(1, 2).flatten(1, 2)
        x = space_to_depth(x, self.factors, cells_first=True)
        return convolution._conv_forward(x, weight, convolution.bias)


class Up(nn.Sequential):
    """A convolution, and depth to space by a factor along each grid axis."""

    def __init__(self, convolution: nn.Module, factors: Sequence[int]) -> None:
        super().__init__(convolution, DepthToSpace(factors))
        self.factors = tuple(factors)

    def forward(self, x: Tensor) -> Tensor:
        convolution = cast(nn.Conv2d, self[0])
        if has_few_positions(x):
            return depth_to_space(convolution(to_fast_memory_format(x)), self.factors)
        weight, bias = (
            parameter.unflatten(0, (-1, math.prod(self.factors))).transpose(0, 1).flatten(0, 1)
            for parameter in (convolution.weight, cast(Tensor, convolution.bias))
        )
        return depth_to_space(convolution._conv_forward(x, weight, bias), self.factors, cells_first=True)
