r"""How long a prediction resembles the truth more than the climate does.

With c the climate, the mean of training states at the same time, the anomaly correlation of the truth u and
the ensemble's mean v is

    <(u - c) (v - c)> / sqrt( <(u - c)^2> <(v - c)^2> ),

1 of the truth itself and 0 where either is the climate (Murphy and Epstein, 1989, without removing the mean).
A prediction is valid until a lead time if its anomaly correlation has been at least 0.8 at every lead time up
to it. The mean valid time of predictions is the sum over lead times of the share that are valid, times the
time between two (`lola.evaluation.tables.valid_time`).
"""

import torch
from torch import Tensor

from lola.evaluation.scores.ensemble import TINY
from lola.evaluation.scores.quadrature import grid_mean

VALID = 0.8
"""The least anomaly correlation of a valid prediction."""


def anomaly_correlation(u: Tensor, v: Tensor, climate: Tensor, weights: Tensor | None = None) -> Tensor:
    """The anomaly correlation over cells, with shape `(...)`.

    Arguments:
        u, v, climate: Fields with shape `(..., cells)`.
        weights: Those of the cells, with shape `(cells)`; None if all count the same.
    """
    one, other = u - climate, v - climate
    lengths = [grid_mean(x.square(), 1, weights).sqrt() for x in (one, other)]
    return grid_mean(one * other, 1, weights) / (lengths[0] * lengths[1]).clamp(min=TINY)


def share_valid(correlation: Tensor) -> Tensor:
    """1 until the anomaly correlation `(..., L)` is below `VALID` or not finite, then 0."""
    return (correlation >= VALID).cumprod(-1).to(torch.float64)
