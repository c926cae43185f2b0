r"""Comparisons paired by trajectory, such as of diffusion with the neural solver, a rival.

Both predict the same trajectories t = 1 ... T, so that what makes a trajectory hard cancels in the
differences

    d_t = mean_{f, l in R} x_t(method) - mean_{f, l in R} x_t(rival)

of a metric x over a range R of lead times. Their mean has a 95 % interval by the bootstrap over trajectories,
and Wilcoxon's signed-rank test asks whether they are symmetric about zero. Its p-values are corrected for the
number of comparisons by Holm's method: p_(i) of m sorted ones becomes max_{j <= i} min(1, (m - j + 1) p_(j)).

A trajectory on which a method is not finite counts as won by the other, by more than any finite difference;
the mean and its interval are then undefined.

Any two methods a, b are also compared by the ratio of their errors, over one range or several,

    J = exp mean_R log( sum_t w_t a_tR / sum_t w_t b_tR ),

with the weights w of `lola.evaluation.tables.lead_times` for both alike: trajectories are resampled in pairs.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy.stats import wilcoxon

from lola.evaluation.tables.cells import METHOD
from lola.evaluation.tables.lead_times import (
    Range,
    bootstrap_weights,
    in_sentence,
    name_range,
    to_frame,
    weighted_means,
)
from lola.models.kinds import shown_kinds

ERRORS = [*METHOD, "metric", "range", "trajectory", "value", "cells"]
COLUMNS = [
    *("model", "space", "compression", "solver_steps", "rival", "metric", "range"),
    *("difference", "low", "high", "relative", "wins", "trajectories", "p", "p_holm"),
]


def trajectory_errors(metrics: pa.Table, names: Sequence[str], ranges: Sequence[Range]) -> pd.DataFrame:
    """Errors by method and trajectory over ranges of lead times; starts and training seeds are averaged.

    Arguments:
        metrics: Tidy rows of one system.
        ranges: Inclusive ranges of lead times in simulation steps; None is the end.

    Returns:
        The columns `METHOD`, `metric, range, trajectory`; `value`, the mean over rows; and `cells`, the mean
        over fields and lead times of means over starts and seeds. What is not finite is infinite.
    """
    rows = to_frame(metrics, "truth", names)
    rows = rows.assign(value=rows["value"].where(np.isfinite(rows["value"]), np.inf))
    keys = [*METHOD, "metric", "trajectory"]
    parts = []
    for first, last in ranges:
        within = rows[rows["lead_time"].between(first, np.inf if last is None else last)]
        cells = within.groupby([*keys, "field", "lead_time"])["value"].mean()
        means = within.groupby(keys)["value"].mean().to_frame().assign(cells=cells.groupby(keys).mean())
        parts.append(means.reset_index().assign(range=name_range((first, last))))
    return pd.concat(parts, ignore_index=True)[ERRORS]


def paired_table(errors: pd.DataFrame, metric: str, ranges: Sequence[Range]) -> pd.DataFrame:
    """Emulators against those of kinds before theirs, of the same rate or in pixel space.

    Those with sampler steps are taken at their most.

    Arguments:
        errors: `trajectory_errors` of one context, without guidance; less of the metric is better.
        ranges: Inclusive ranges of lead times in simulation steps; None is the end.

    Returns:
        A row per emulator, rival (such as `neural solver`, `neural solver in pixel space`) and range with
        `difference, low, high` (negative where the emulator is better), `relative` to the rival's mean,
        `wins` of the emulator over `trajectories`, and the test's `p` and `p_holm` over all rows.
    """
    errors = errors[errors["metric"] == metric]
    scores: dict[tuple, dict[str, pd.Series]] = {}
    for (*key, where), group in errors.groupby([*METHOD, "range"]):
        scores.setdefault(tuple(key), {})[str(where)] = group.set_index("trajectory")["value"]
    rows = []
    for method, rival, name in _pairs(scores):
        for where in (name_range(bounds) for bounds in ranges):
            if where in scores[method] and where in scores[rival]:
                pair = pd.concat([scores[method][where], scores[rival][where]], axis=1, join="inner")
                names = dict(zip(METHOD, method, strict=True))
                place = {"rival": name, "metric": metric, "range": where}
                rows.append(names | place | compare(pair.to_numpy()))
    table = pd.DataFrame(rows, columns=[name for name in COLUMNS if name != "p_holm"])
    return table.assign(p_holm=holm(table["p"].to_numpy(dtype=float)))


def compare(pair: np.ndarray) -> dict[str, float]:
    """Compare the two columns of values with shape `(T, 2)`; see `paired_table` for what is returned."""
    finite = np.isfinite(pair)
    count = len(pair)
    values = np.where(finite, pair, 0)
    difference = values[:, 0] - values[:, 1]
    beyond = 2 * np.abs(difference).max() + 1
    ranked = np.where(
        finite.all(1), difference, beyond * (finite[:, 1].astype(int) - finite[:, 0].astype(int))
    )
    result = {
        "difference": np.nan, "low": np.nan, "high": np.nan, "relative": np.nan,
        "wins": int((ranked < 0).sum()), "trajectories": count,
        "p": float(wilcoxon(ranked).pvalue) if ranked.any() else 1.0,
    }  # fmt: skip
    if finite.all():
        means = bootstrap_weights(count) @ difference
        result |= {"difference": means[0], "relative": means[0] / values[:, 1].mean()}
        if count > 1:
            result |= dict(zip(("low", "high"), np.quantile(means[1:], [0.025, 0.975]), strict=True))
    return result


def error_ratio(one: np.ndarray, other: np.ndarray) -> tuple[float, float, float]:
    """J of the errors of two methods on the same trajectories, and its 95 % interval.

    Arguments:
        one, other: Errors a and b, with shape `(T, K)` for K ranges; NaN where a trajectory ends before a
            range, and infinite where it is not finite.

    Returns:
        The ratio, infinite where a is not finite and NaN where b is not; and the ends of its interval, NaN if
        anything is not finite or there is one trajectory.
    """
    if np.isinf(other).any():
        return np.nan, np.nan, np.nan
    if np.isinf(one).any():
        return np.inf, np.nan, np.nan
    weights = bootstrap_weights(len(one))
    ratios = np.exp(np.nanmean(np.log(weighted_means(weights, one) / weighted_means(weights, other)), axis=1))
    low, high = np.quantile(ratios[1:], [0.025, 0.975]) if len(one) > 1 else (np.nan, np.nan)
    return float(ratios[0]), float(low), float(high)


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's correction of p-values with shape `(m,)`."""
    order = np.argsort(p)
    factors = np.arange(len(p), 0, -1)
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(1, np.maximum.accumulate(factors * p[order]))
    return corrected


def _pairs(scores: dict[tuple, dict[str, pd.Series]]) -> Iterator[tuple[tuple, tuple, str]]:
    """Every emulator at its most solver steps, with its rivals and their names."""
    order = list(shown_kinds())
    every = [dict(zip(METHOD, key, strict=True)) | {"key": key} for key in scores]
    best: dict[tuple, dict] = {}
    for method in every:
        place = (method["model"], method["space"], method["compression"])
        if method["model"] in order and method["solver_steps"] >= best.get(place, method)["solver_steps"]:
            best[place] = method
    ranked = sorted(best.values(), key=lambda method: order.index(method["model"]))
    for method in ranked:
        for other in ranked:
            name = in_sentence(shown_kinds()[other["model"]].title)
            if order.index(other["model"]) >= order.index(method["model"]):
                continue
            if _same(method, other, "space", "compression"):
                yield method["key"], other["key"], name
            elif other["space"] == "pixel":
                yield method["key"], other["key"], f"{name} in pixel space"


def _same(one: dict, other: dict, *keys: str) -> bool:
    return all(one[key] == other[key] for key in keys)
