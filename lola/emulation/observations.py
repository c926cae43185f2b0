r"""Partial, noisy observations of states, and the operators that make them.

    y^i = A(x^i) + s eps,  eps ~ N(0, I)

with `x^i` the state at step `i` of a rollout in physical units, all fields of one time, and `A` one of

    subsample     every `factor`-th point along each axis
    block_mean    means of blocks of `factor` points along each axis
    sensors       `count` points, the same for all fields, drawn once
    mask          a share `1 / factor` of the points along each axis, drawn once, as a block somewhere

or any function of states that works row by row. Cells outside of the domain of a mask are not observed, and
means are of those inside.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lola.core.config import require
from lola.core.errors import DataError

Operator = Callable[[Tensor], Tensor]


def subsample(factor: int) -> Operator:
    """Of states `(B, C, *grid)` every `factor`-th point along each axis."""

    def operate(x: Tensor) -> Tensor:
        for axis in range(2, x.ndim):
            x = x[(*[slice(None)] * axis, slice(None, None, factor))]
        return x

    return operate


def block_mean(factor: int) -> Operator:
    """Of states `(B, C, *grid)` the means of blocks of `factor` points along each axis, which they divide."""

    def operate(x: Tensor) -> Tensor:
        grid = x.shape[2:]
        if any(size % factor for size in grid):
            raise DataError(f"blocks of {factor} do not divide a grid of {tuple(grid)}")
        pool = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[len(grid)]
        return pool(x, factor)

    return operate


def sensors(points: Tensor) -> Operator:
    """Of states `(B, C, *grid)` the values `(B, C, n)` at points, integers of shape `(n, axes)`."""

    def operate(x: Tensor) -> Tensor:
        places: Any = (..., *points.to(x.device).unbind(-1))
        return x[places]

    return operate


def masked(mask: Tensor) -> Operator:
    """Of states `(B, C, *grid)` the values `(B, n)` where a mask, which expands to `(C, *grid)`, is True."""
    return lambda x: x[:, mask.to(x.device).expand(x.shape[1:])]


def of_fields(operator: Operator, channels: Sequence[int]) -> Operator:
    """An operator that sees some of the channels only."""
    return lambda x: operator(x[:, list(channels)])


def of_domain(operator: Operator, valid: Tensor, channels: int) -> Operator:
    """A linear operator of points or means that sees the cells of the domain alone, whatever others hold.

    Arguments:
        valid: True in the cells of the domain, with shape `(*grid)`.
        channels: The number of channels of states.

    Returns:
        From states `(B, C, *grid)` to those observations, `(B, n)`, that depend on a cell of the domain.

    Raises:
        ConfigError: None does.
    """
    # The share of each observation that is inside of the domain: 0 or 1 of points
    share = operator(valid.expand(1, channels, *valid.shape).float()).flatten()
    seen = share > 0
    require(bool(seen.any()), "no observation is of cells in the domain of the mask; observe more of them")

    def operate(x: Tensor) -> Tensor:
        y = operator(torch.where(valid.to(x.device), x, 0)).flatten(1)
        return y[:, seen.to(x.device)] / share[seen].to(x)

    return operate


@dataclasses.dataclass(frozen=True, kw_only=True)
class Observations:
    """Observations of a rollout.

    Arguments:
        operator: `A`, from physical states `(n, C, *grid)` to observations `(n, ...)`, row by row.
        values: The observations `y` by the number of the emulated state, 1 the first after the context; each
            with shape `(B, ...)` for the rows of the rollout, or `(1, ...)` for all of them.
        noise: The deviation `s`, positive; a number, or a tensor that broadcasts with the values.
    """

    operator: Operator
    values: dict[int, Tensor]
    noise: float | Tensor

    def __post_init__(self) -> None:
        require(all(i >= 1 for i in self.values), "observed states count from 1, the first after the context")
        positive = bool((torch.as_tensor(self.noise) > 0).all())
        require(positive, "the noise of observations must be positive")

    def within(self, first: int, count: int) -> list[int]:
        """The numbers of those observed among `count` states from the `first`."""
        return [i for i in range(first, first + count) if i in self.values]

    def whiten(self, y: Tensor) -> Tensor:
        """Observations in units of their noise, with the shape of `y` and on its device."""
        return y / (self.noise.to(y.device) if isinstance(self.noise, Tensor) else self.noise)

    def rows(self, part: slice) -> "Observations":
        values = {i: y if len(y) == 1 else y[part] for i, y in self.values.items()}
        return dataclasses.replace(self, values=values)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Observed:
    """Observations of a window.

    Arguments:
        numbers: The numbers of the observed states.
        places: Their places in the window.
    """

    observations: Observations
    numbers: Sequence[int]
    places: Sequence[int]

    def whitened(self, rows: int) -> Tensor:
        """Observations in units of their noise, with shape `(rows, D)`."""
        values = [self.observations.whiten(self.observations.values[i]) for i in self.numbers]
        return torch.stack([y.expand(rows, *y.shape[1:]) for y in values], dim=1).flatten(1)

    def of_window(self, window: Tensor, physical: Operator) -> Tensor:
        """The same of windows `(B, C, L, *grid)`, whose states `(n, C, *grid)` a function makes physical."""
        states = window[:, :, list(self.places)].transpose(1, 2)
        y = self.observations.whiten(self.observations.operator(physical(states.flatten(0, 1))))
        return y.unflatten(0, states.shape[:2]).flatten(1)
