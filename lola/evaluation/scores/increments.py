r"""Whether predictions change in time as the truth does.

Let du = u(t) - u(t - 1) be the increment between two successive states of an evaluation, and dv that of a
member. With W_1 the Wasserstein distance of order 1 between the distributions of their cells,

    increments       1/M sum_m W_1(dv_m, du) / std(du),
    autocorrelation  1/M sum_m rho(v_m(t), v_m(t - 1)) - rho(u(t), u(t - 1)),

where rho is the correlation of two fields over the grid: above 0, predictions change more slowly than the
truth. The state before the first lead time is the last known one for all.
"""

import torch
from torch import Tensor

from lola.evaluation.scores.ensemble import TINY
from lola.evaluation.scores.quadrature import grid_mean

MEMBERS = 4
"""Members whose increments are sorted, which takes longer than all other scores of as many."""
CELLS = 2**14
"""Cells of a field that are sorted, evenly spaced, at most."""


def increment_scores(u: Tensor, v: Tensor, weights: Tensor | None = None) -> dict[str, Tensor]:
    """Scores of the last `L` of `L + 1` states.

    Arguments:
        u, v: Truth `(C, L + 1, cells)` and members `(M, C, L + 1, cells)`.
        weights: Those of the cells, with shape `(cells)`; None if all count the same.

    Returns:
        The scores with shape `(C, L)`. NaN or infinite where a value is not finite, or where the truth does
        not change and members do.
    """
    step = -(-u.shape[-1] // CELLS)
    of_truth, of_members = (x[..., ::step].diff(dim=-2) for x in (u, v[:MEMBERS]))
    if weights is None:
        distance = (of_members.sort(-1).values - of_truth.sort(-1).values).abs_().mean((0, -1))
        deviation = of_truth.std(-1)
    else:
        own = (weights[::step] / weights[::step].sum()).to(u)
        distance = weighted_wasserstein(of_members, of_truth, own).mean(0)
        deviation = ((of_truth - (of_truth @ own).unsqueeze(-1)).square() @ own).sqrt()
    change = _correlation(v, weights).mean(0) - _correlation(u, weights)
    return {"increments": distance / deviation.clamp(min=TINY), "autocorrelation": change}


def weighted_wasserstein(a: Tensor, b: Tensor, weights: Tensor) -> Tensor:
    """The Wasserstein distance of order 1 of values of cells with weights: the area between the distribution
    functions.

    Arguments:
        a, b: Values with shapes `(..., cells)`, which are broadcast.
        weights: With shape `(cells)` and sum 1.
    """
    values, order = torch.cat(torch.broadcast_tensors(a, b), -1).sort(-1)
    between = torch.cat([weights, -weights])[order].cumsum(-1)
    return (between[..., :-1].abs() * values.diff(dim=-1)).sum(-1)


def _correlation(x: Tensor, weights: Tensor | None) -> Tensor:
    """The correlation over cells of each state `(..., L + 1, cells)` with the one before, `(..., L)`."""
    centred = x - grid_mean(x, 1, weights).unsqueeze(-1)
    if weights is not None:
        centred = centred * weights.sqrt().to(x)
    products = (centred[..., 1:, :] * centred[..., :-1, :]).sum(-1)
    lengths = torch.linalg.vector_norm(centred, dim=-1)
    return products / (lengths[..., 1:] * lengths[..., :-1]).clamp(min=TINY)
