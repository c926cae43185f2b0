r"""What a mean over the grid is, and how spectra treat each axis.

Cells of an uneven grid stand for parts of the domain of different size. With the quadrature weights of every
axis (`lola.data.geometry`) and w_i their products over the cells of the domain, which add up to 1,

    <x> = sum_i w_i x_i

is the mean over the domain. Where all cells are equally large it is the mean over cells.

A Fourier transform needs an axis that is even and periodic. Of an even axis that is not periodic, spectra are
those of the cosine transform, which are free of the jump from one end to the other (Denis, Cote and Laprise,
2002). They are averaged, with the weights, along an uneven axis. A grid with uneven axes alone is taken by
cosine transforms of its cells.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Literal, Self

import numpy as np
import torch
from torch import Tensor

from lola.data.geometry import AxisKind, quadrature_weights
from lola.data.systems import Boundary


@dataclasses.dataclass(frozen=True)
class GridAxis:
    """How scores treat an axis.

    Arguments:
        transform: How spectra do; `none` averages over it.
        weights: The share of the domain by cell; empty if all are equal.
    """

    transform: Literal["fourier", "cosine", "none"] = "fourier"
    weights: tuple[float, ...] = ()


def grid_axes(
    kinds: Sequence[AxisKind], coordinates: Sequence[np.ndarray], boundary: np.ndarray
) -> tuple[GridAxis, ...]:
    """How scores treat the axes of a grid.

    Arguments:
        kinds: What each axis is.
        coordinates: Those of its cells, each with shape `(n,)`.
        boundary: The `Boundary` at both ends of each axis, with shape `(d, 2)`.

    Raises:
        ValueError: Coordinates are not those of their kind, or give a cell no weight.
    """
    axes = []
    for kind, x, ends in zip(kinds, coordinates, boundary, strict=True):
        if kind in ("uniform", "longitude"):
            axes.append(GridAxis("fourier" if (ends == Boundary.PERIODIC).all() else "cosine"))
            continue
        weights = quadrature_weights(kind, x)
        if not np.isfinite(weights).all() or weights.min() <= 0:
            raise ValueError(f"{len(x)} coordinates of a {kind} axis repeat, or are not finite")
        axes.append(GridAxis("none", tuple((weights / weights.sum()).tolist())))
    if all(axis.transform == "none" for axis in axes):
        axes = [dataclasses.replace(axis, transform="cosine") for axis in axes]
    return tuple(axes)


@dataclasses.dataclass(frozen=True, eq=False)
class Domain:
    """The cells that are scored, and how much each counts.

    Arguments:
        axes: How each axis is treated.
        valid: True in cells of the domain, with shape `(*grid)`; None if all are.
        weights: The weights w of the cells of the domain, in double precision, with shape `(n,)`; None if all
            count the same.
        shares: How much each cell of the grid counts, 0 outside of the domain and 1 on average inside, with
            shape `(*grid)`; None if all count the same.
    """

    axes: tuple[GridAxis, ...]
    valid: Tensor | None = None
    weights: Tensor | None = None
    shares: Tensor | None = None

    @classmethod
    def of(
        cls, members: Tensor, spatial: int, axes: tuple[GridAxis, ...] = (), valid: Tensor | None = None
    ) -> Self:
        """The domain of fields `(..., *grid)`, on their device; without `axes`, all are even and periodic."""
        axes = axes or (GridAxis(),) * spatial
        shares = None if valid is None else valid.to(members)
        if not any(axis.weights for axis in axes):
            return cls(axes, valid, None, shares)
        grid = members.shape[-spatial:]
        each = [
            torch.tensor(axis.weights or [1 / n] * n, dtype=torch.float64)
            for axis, n in zip(axes, grid, strict=True)
        ]
        product = functools.reduce(lambda a, b: a.unsqueeze(-1) * b, each).to(members.device)
        product = product if valid is None else product * valid
        inside = product.flatten() if valid is None else product[valid]
        shares = (product * (len(inside) / inside.sum())).to(members)
        return cls(axes, valid, inside / inside.sum(), shares)

    def cells(self, x: Tensor) -> Tensor:
        """The values `(..., n)` of fields `(..., *grid)` in the cells of the domain."""
        return x.flatten(-len(self.axes)) if self.valid is None else x[..., self.valid]


def grid_mean(x: Tensor, spatial: int, weights: Tensor | None) -> Tensor:
    """The mean over the last axes, those of the grid or of the cells of the domain.

    Arguments:
        x: Values, with shape `(..., *grid)`.
        weights: Those of the cells, with shape `(n,)`, which add up to 1; None if all count the same.
    """
    if weights is None:
        return x.mean(tuple(range(-spatial, 0)))
    return x.flatten(-spatial) @ weights.to(x)
