r"""Estimates at every lead time and field, for charts.

With the weights w of `lola.evaluation.tables.lead_times`, and for one field f or the mean over all,

    x_l = mean_f sum_st v_s w_t x_stfl,
    ratio_l = mean_f sqrt( sum_st v_s w_t Spread_stfl^2 / sum_st v_s w_t Skill_stfl^2 ),

and likewise other metrics of means, so that curves and tables agree where a range is one lead time.
Trajectories that are too short for l have no weight there.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from lola.evaluation.tables.bootstrap import (
    DRAWS,
    LEVELS,
    bootstrap_weights,
    resample_seeds,
    weighted_means,
)
from lola.evaluation.tables.cells import METHOD, Cells
from lola.evaluation.tables.derived import combine

MEAN = "mean of all fields"


@dataclasses.dataclass(frozen=True)
class Curve:
    """A metric of one method over lead time.

    Arguments:
        metric, target: What was scored, against what.
        method: The values of the columns `METHOD`, by name.
        field: The field, or `MEAN`.
        lead_times: Simulation steps since the last context state, with shape `(L,)`.
        value, low, high: Estimate and 95 % interval with shape `(L,)`; NaN where a trajectory is not finite.
        seeds: How many training seeds it is the mean of.
    """

    metric: str
    target: str
    method: dict
    field: str
    lead_times: np.ndarray
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    seeds: int = 1


def curves_of(cells: Sequence[Cells], metric: str, target: str, draws: int = DRAWS) -> Iterator[Curve]:
    """The curves of cells of one metric and target, field by field and for their mean."""
    for method_cells in cells:
        method = dict(zip(METHOD, method_cells.method, strict=True))
        count = len(method_cells.trajectories)
        parts = method_cells.values.swapaxes(2, 3)
        lost = np.isinf(parts)
        means = weighted_means(bootstrap_weights(count, draws), np.where(lost, 0, parts)).swapaxes(2, 3)
        estimates = resample_seeds(means, lambda means: combine(metric, means)).swapaxes(0, 1)
        estimates = np.where(lost.any((0, 1, 3))[:, None], np.nan, estimates)
        estimates = np.concatenate([estimates.mean(0, keepdims=True), estimates])
        interval = np.full((2, len(estimates), len(method_cells.lead_times)), np.nan)
        if count > 1:
            # A resampling may have no trajectory that is long enough
            resampled = np.where(np.isnan(estimates[:, :1]), 0, estimates[:, 1:])
            # NumPy's quantiles with NaN take one column after the other
            quantile = np.nanquantile if np.isnan(resampled).any() else np.quantile
            interval = quantile(resampled, LEVELS, axis=1)
            interval[:, np.isnan(estimates[:, 0])] = np.nan
        for field, values, low, high in zip([MEAN, *method_cells.fields], estimates, *interval, strict=True):
            # A view would keep all resamplings
            seeds = len(method_cells.seeds)
            yield Curve(
                metric, target, method, field, method_cells.lead_times, values[0].copy(), low, high, seeds
            )
