"""Blocks of cells of a grid: the last one along an axis may have fewer cells than others."""

import torch.nn.functional as F
from torch import Tensor


def block_sums(x: Tensor, block: int, spatial: int) -> Tensor:
    """The sums of fields `(..., *grid)` over blocks of `block` cells along each axis, `(..., *blocks)`."""
    x = _fill_up(x, block, spatial)
    for axis in range(-spatial, 0):
        x = x.unflatten(axis, (-1, block)).sum(axis)
    return x


def split_blocks(x: Tensor, block: int, spatial: int) -> Tensor:
    """The cells of blocks of fields `(..., *grid)`, filled up with zeros, `(..., *blocks, cells)`."""
    x, axis = _fill_up(x, block, spatial), -spatial  # of the next grid axis
    for _ in range(spatial):  # the cells within the blocks of the axes before are at the end
        x = x.unflatten(axis, (-1, block)).movedim(axis, -1)
    return x.flatten(-spatial)


def _fill_up(x: Tensor, block: int, spatial: int) -> Tensor:
    short = [-size % block for size in x.shape[-spatial:]]
    return F.pad(x, [n for size in reversed(short) for n in (0, size)]) if any(short) else x
