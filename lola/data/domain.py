"""Cells outside of the domain: land, solids, whatever a mask says the physics does not reach.

A description names a constant field and the value that it has outside (`lola.data.systems.Mask`). There the
values of all fields but the mask, whatever a file holds, are replaced as they are read: by the mean of their
channel, or while statistics are computed by the mean of the cells inside. Networks see the mask as a channel;
losses, statistics and scores leave its cells out.
"""

import numpy as np
import torch
from torch import Tensor

from lola.data.systems import Mask, System
from lola.data.transforms import TRANSFORMS

TOLERANCE = 1e-3
"""How far a value may be from the mask's after standardising and back, relative to the larger of it and 1."""


def _tolerance(mask: Mask) -> float:
    return TOLERANCE * max(1.0, abs(mask.outside))


def outside(values: np.ndarray, mask: Mask) -> np.ndarray:
    """Where values of the mask's field say that a cell is outside."""
    return np.abs(values.astype(np.float64) - mask.outside) <= _tolerance(mask)


def inside(x: Tensor, system: System) -> Tensor | None:
    """Which cells belong to the domain; None if all do, since there is no mask.

    Arguments:
        x: Fields in physical units, with shape `(..., C, L, *grid)`.
        system: The physical system.

    Returns:
        True where a cell belongs to the domain, with shape `(..., 1, 1, *grid)`.
    """
    if system.mask is None:
        return None
    cells = x.narrow(-system.dimensions - 2, system.channels.index(system.mask.field), 1)
    cells = cells.narrow(-system.dimensions - 1, 0, 1)
    return (cells - system.mask.outside).abs() > _tolerance(system.mask)


def fill(values: np.ndarray, cells: np.ndarray, first: int, system: System) -> np.ndarray:
    """Values with those outside replaced.

    Arguments:
        values: Some consecutive channels in physical units, with shape `(c, T, *grid)`.
        cells: Where cells are outside, with shape `(*grid)`.
        first: The number of the first channel.
        system: The physical system.
    """
    if system.mean:
        channels = range(first, first + len(values))
        means = [TRANSFORMS[system.transforms[n]][1](torch.tensor(system.mean[n])) for n in channels]
        fills = np.array(means, dtype=np.float32)
    else:
        fills = values[..., ~cells].astype(np.float64).mean((1, 2)).astype(np.float32)
    return np.where(cells, fills.reshape(-1, *[1] * (values.ndim - 1)), values)
