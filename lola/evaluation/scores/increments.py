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

MEMBERS = 4
"""Members whose increments are sorted, which takes longer than all other scores of as many."""
CELLS = 2**14
"""Cells of a field that are sorted, evenly spaced, at most."""


def increment_scores(u: Tensor, v: Tensor) -> dict[str, Tensor]:
    """Scores of the last `L` of `L + 1` states.

    Arguments:
        u, v: Truth `(C, L + 1, cells)` and members `(M, C, L + 1, cells)`.

    Returns:
        The scores with shape `(C, L)`. NaN or infinite where a value is not finite, or where the truth does
        not change and members do.
    """
    step = -(-u.shape[-1] // CELLS)
    of_truth, of_members = (x[..., ::step].diff(dim=-2) for x in (u, v[:MEMBERS]))
    distance = (of_members.sort(-1).values - of_truth.sort(-1).values).abs_().mean((0, -1))
    change = _correlation(v).mean(0) - _correlation(u)
    return {"increments": distance / of_truth.std(-1).clamp(min=TINY), "autocorrelation": change}


def _correlation(x: Tensor) -> Tensor:
    """The correlation over cells of each state `(..., L + 1, cells)` with the one before, `(..., L)`."""
    centred = x - x.mean(-1, keepdim=True)
    products = (centred[..., 1:, :] * centred[..., :-1, :]).sum(-1)
    lengths = torch.linalg.vector_norm(centred, dim=-1)
    return products / (lengths[..., 1:] * lengths[..., :-1]).clamp(min=TINY)
