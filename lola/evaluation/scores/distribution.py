r"""How well an ensemble describes the distribution of the truth, cell by cell.

For an ensemble v_1, ..., v_M of the true value u in a cell, the continuous ranked probability score, in the
fair form, whose expectation does not depend on M (Ferro, 2014), is

    CRPS = 1/M sum_m |v_m - u| - 1/(2 M (M - 1)) sum_{m,n} |v_m - v_n|.

With the order statistics d_(1) <= ... <= d_(M) of d_m = v_m - u, from which precision is not lost where the
field is large and the spread is small,

    1/2 sum_{m,n} |v_m - v_n| = sum_i (2 i - M - 1) d_(i).

The rank of the truth is the number of members below it, 0 to M. Over many cells the histogram of the ranks
is flat if truth and members are exchangeable, a valley if the ensemble is too narrow, a hill if it is too
wide. A truth that equals T members could take T + 1 ranks: each is given 1/(T + 1) of the cell, which is what
breaking ties at random gives on average, without the randomness.
"""

import torch
from torch import Tensor

from lola.evaluation.scores.intervals import interval_scores
from lola.evaluation.scores.quadrature import grid_mean
from lola.evaluation.scores.sorting import sort_rows

EXACT = 2**24
"""Integers up to here are exact in single precision."""


def score_order_statistics(
    errors: Tensor, spatial: int, buffer: Tensor | None = None, weights: Tensor | None = None
) -> tuple[dict[str, Tensor], Tensor | None]:
    """The fair score, the scores of intervals and the rank histogram, given the errors d = v - u, which are
    overwritten.

    One sort serves all: unless a truth equals a member, a cell has a rank of m or more if d_(m) < 0, so that
    the histogram follows from the number of cells where that is so.

    Arguments:
        errors: The errors, with shape `(M, ..., *grid)`, in the unit of the field.
        buffer: Where errors are sorted, with shape `(M + 1, ..., *grid)`; allocated if None.
        weights: Those of the cells, with shape `(cells)`; None if all count the same.

    Returns:
        The score `crps` averaged over the grid, in the unit of the field, with shape `(...)`, and for two
        members or more what `interval_scores` gives; that of one member is the mean absolute error. And the
        share of the cells' weights by rank, with shape `(..., M + 1)`, which add up to 1, all NaN where a
        value is not finite; None of a single member.
    """
    grid, count = tuple(range(-spatial, 0)), len(errors)
    if count == 1:
        return {"crps": grid_mean(errors[0].abs_(), spatial, weights)}, None
    rows, order = sort_rows(errors, buffer)
    scores = interval_scores(rows, order, spatial, weights)
    magnitude = errors.abs_()
    ordered = grid_mean(rows, spatial, weights)[list(order)]
    places = 2 * torch.arange(1, count + 1, device=errors.device) - count - 1
    gaps = torch.einsum("m,m...->...", places.to(errors) / (count * (count - 1)), ordered)
    distance = (
        magnitude.mean((0, *grid)) if weights is None else grid_mean(magnitude.mean(0), spatial, weights)
    )
    scores["crps"] = distance - gaps
    cells = errors[0].numel() // gaps.numel()
    without_ties = bool((magnitude.amin() > 0) & ordered.isfinite().all())
    if not without_ties or cells > EXACT:
        return scores, _count_ranks(rows[list(order)], spatial, weights)
    signs = rows.sign_()
    signs = (
        signs.sum(grid).double() / cells if weights is None else grid_mean(signs, spatial, weights).double()
    )
    below = (1 - signs[list(order)]) / 2
    reached = torch.cat([torch.ones_like(below[:1]), below, torch.zeros_like(below[:1])])
    return scores, (reached[:-1] - reached[1:]).movedim(0, -1)


def _count_ranks(errors: Tensor, spatial: int, weights: Tensor | None) -> Tensor:
    """The histogram of the ranks, given d = v - u with shape `(M, ..., *grid)`."""
    count, leading = len(errors), errors.shape[1 : errors.ndim - spatial]
    # Sums of signs are small whole numbers, which floating point holds exactly; NaN stays.
    signs = errors.sign()
    above_less_below, untied = signs.sum(0), signs.square_().sum(0)
    below = ((untied - above_less_below) / 2).reshape(leading.numel(), -1)
    ties = (count - untied).reshape(leading.numel(), -1)
    extremes = errors.amin(tuple(range(-spatial, 0))), errors.amax(tuple(range(-spatial, 0)))
    finite = torch.stack(extremes).isfinite().all(0).all(0).reshape(-1, 1)
    # The share of a cell is added from the lowest rank it can have, and taken away after the highest.
    share = 1 / (ties + 1).nan_to_num(1.0).double()
    share *= 1 / below.shape[1] if weights is None else weights
    first, after = below.nan_to_num().long(), (below + ties + 1).nan_to_num().long()
    steps = share.new_zeros(leading.numel(), count + 2)
    steps.scatter_add_(1, first, share).scatter_add_(1, after, -share)
    return steps.cumsum(1)[:, :-1].where(finite, torch.nan).reshape(*leading, count + 1)
