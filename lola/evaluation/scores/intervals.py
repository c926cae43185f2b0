r"""Central intervals of an ensemble, and its error by its spread, cell by cell.

The quantile q of an ensemble of M members with order statistics v_(1) <= ... <= v_(M) is interpolated
linearly at the position q (M + 1), as an exchangeable truth is below v_(i) with probability i / (M + 1);
positions beyond 1 and M are those of the smallest and the largest member. Few members cannot cover as much as
is asked: `nominal_coverage` says what the interval of a calibrated ensemble covers, 7/9 in place of 90 % with
M = 8. An interval [l, u] of nominal coverage 1 - alpha has the interval score (Winkler, 1972; Gneiting and
Raftery, 2007, Eq. 43)

    (u - l) + 2 / alpha (l - x)_+ + 2 / alpha (x - u)_+

for the truth x, in the unit of the field. The share of cells that it covers follows from the rank histogram,
interpolated likewise.

Cells are sorted by their spread into bins of equal count: where a calibrated ensemble expects larger errors,
they are larger.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lola.evaluation.scores.quadrature import grid_mean

COVERAGES = (0.5, 0.9)
SPREAD_BINS = 8
BINNED = ("binned_skill", "binned_spread")


def _positions(coverage: float, members: int) -> tuple[float, float]:
    """The positions of an interval's ends among the order statistics, which count from 1."""
    low = max(1.0, (1 - coverage) / 2 * (members + 1))
    return low, members + 1 - low


def nominal_coverage(coverage: float, members: int) -> float:
    """What the interval of a calibrated ensemble covers: `coverage`, or less where members are few."""
    low, high = _positions(coverage, members)
    return (high - low) / (members + 1)


def coverages(ranks: Tensor) -> dict[str, Tensor]:
    """The share of cells that central intervals cover, `coverage_50` and `coverage_90`, with shape `(...)`.

    Arguments:
        ranks: The rank histogram, with shape `(..., M + 1)`.
    """
    members = ranks.shape[-1] - 1
    numbers = torch.arange(members + 1, device=ranks.device)
    found = {}
    for coverage in COVERAGES:
        low, _ = _positions(coverage, members)
        below = (low - numbers).clamp(0, 1)  # the share of a rank that is below the interval
        found[f"coverage_{100 * coverage:.0f}"] = ranks @ (1 - below - below.flip(0)).to(ranks)
    return found


def interval_scores(
    rows: Tensor, order: Sequence[int], spatial: int, weights: Tensor | None
) -> dict[str, Tensor]:
    """The scores of central intervals, `interval_50` and `interval_90`.

    Arguments:
        rows: Errors d = v - x, with shape `(M or more, ..., *grid)`, in the unit of the field.
        order: The row that holds each order statistic, from the smallest.
        spatial: The number of axes of the grid.
        weights: Those of the cells, with shape `(cells)`; None if all count the same.

    Returns:
        Means over the grid, with shape `(...)`.
    """
    found: dict[str, Tensor] = {}
    for coverage in COVERAGES:
        low, high = (_quantile(rows, order, place) for place in _positions(coverage, len(order)))
        width, outside = high - low, low.clamp(min=0) + (-high).clamp(min=0)
        name = f"interval_{100 * coverage:.0f}"
        alpha = 1 - nominal_coverage(coverage, len(order))
        found[name] = grid_mean(width + 2 / alpha * outside, spatial, weights)
    return found


def _quantile(rows: Tensor, order: Sequence[int], place: float) -> Tensor:
    """The order statistic at a place from 1 to M, interpolated."""
    below = min(int(place), len(order) - 1)
    return torch.lerp(rows[order[below - 1]], rows[order[below]], place - below)


def sort_into_bins(spread: Tensor) -> Tensor | None:
    """The order of cells by their spread `(N, cells)`; None if there are fewer cells than bins."""
    return spread.argsort(1) if spread.shape[1] >= SPREAD_BINS else None


def mean_by_bin(values: Tensor, order: Tensor, weights: Tensor | None) -> Tensor:
    """Means `(N, bins)` over bins of equal count of values `(N, cells)`, in the order of `sort_into_bins`.

    NaN where a value is not finite. Within its bin a cell counts by its weight, of `(cells)`.
    """
    parts = values.gather(1, order).tensor_split(SPREAD_BINS, 1)
    if weights is None:
        means = torch.stack([part.mean(1) for part in parts], 1)
    else:
        own = weights.to(values)[order].tensor_split(SPREAD_BINS, 1)
        sums = [(part * each).sum(1) / each.sum(1) for part, each in zip(parts, own, strict=True)]
        means = torch.stack(sums, 1)
    return means.where(means.isfinite().all(1, keepdim=True), torch.nan)
