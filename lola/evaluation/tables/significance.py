r"""Comparisons paired by trajectory, such as of diffusion with the neural solver, a rival.

Both predict the same trajectories t = 1 ... T, so that what makes a trajectory hard cancels in the
differences

    d_st = mean_{f, l in R} x_stfl(method) - mean_{f, l in R} x_stfl(rival)

of a metric x over a range R of lead times. A metric that `derived` makes of a score in the unit of a field is
the score over the deviation of the true field, sqrt( mean_t Var_tfl ), which is the same for all methods: the
mean of such errors over trajectories is the metric. Of a single prediction the CRPS is the absolute error.

Wilcoxon's signed-rank test asks whether the means of d_st over training seeds s, if there are several, are
symmetric about zero: it is about the models at hand. The mean difference has the 95 % interval of
`bootstrap`, over trajectories, and over seeds where method and rival have the same ones. P-values are
corrected for the number of comparisons by Holm's method: p_(i) of m sorted ones becomes
max_{j <= i} min(1, (m - j + 1) p_(j)). No p-value of T <= 50 trajectories is below 2^(1 - T): few of them and
many comparisons cannot give a significant one, however large the differences are.

A trajectory on which a method is not finite counts as won by the other, by more than any finite difference;
the mean and its interval are then undefined.

Any two methods a, b are also compared by the ratio of their errors, over one range or several,

    J = exp mean_R log( sum_t w_t a_tR / sum_t w_t b_tR ),

with the weights w of `bootstrap` for both alike: trajectories are resampled in pairs.
"""

import functools
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy.stats import rankdata, wilcoxon

from lola.evaluation.tables.bootstrap import LEVELS, bootstrap_weights, resample_seeds, weighted_means
from lola.evaluation.tables.cells import METHOD, Cells, CellTable
from lola.evaluation.tables.derived import RATIO, combine
from lola.evaluation.tables.lead_times import Range, in_sentence, name_range
from lola.models.kinds import shown_kinds

ERRORS = [*METHOD, "metric", "range", "training_seed", "trajectory", "value"]
COLUMNS = [
    *("model", "space", "compression", "solver_steps", "rival", "metric", "range"),
    *("difference", "low", "high", "relative", "wins", "better", "trajectories", "seeds", "rival_seeds", "p"),
    *("p_holm", "attainable"),
]
SIGNIFICANT = 0.05


def trajectory_errors(
    metrics: pa.Table, names: Sequence[str], ranges: Sequence[Range], target: str = "truth"
) -> pd.DataFrame:
    """Errors by method, training seed and trajectory over ranges of lead times, from tidy rows of one system.

    Arguments:
        names: Metrics of the rows, scores over the deviation of the true field, or the spread-skill ratio.
        ranges: Inclusive ranges of lead times in simulation steps; None is the end.
        target: What was scored against, `truth` or `autoencoded`.

    Returns:
        The columns `METHOD`, `metric, range, training_seed, trajectory` and `value`, the mean over fields and
        lead times of means over starts. What is not finite is infinite.
    """
    table = CellTable(metrics)
    found = [cell_errors(table.of(name, target), name, ranges) for name in names]
    return pd.concat([part for part in found if len(part)] or found, ignore_index=True)


def cell_errors(cells: Sequence[Cells], metric: str, ranges: Sequence[Range]) -> pd.DataFrame:
    """The `trajectory_errors` of cells of one metric."""
    parts = []
    for each in cells:
        method = dict(zip(METHOD, each.method, strict=True))
        errors = _ratios(each) if metric == RATIO else _over_deviation(each)
        for first, last in ranges:
            within = (each.lead_times >= first) & (each.lead_times <= (np.inf if last is None else last))
            values = errors[..., within]
            exists = ~np.isnan(values)
            with np.errstate(invalid="ignore"):
                means = np.where(exists, values, 0).sum((2, 3)) / exists.sum((2, 3))
            seed, trajectory = np.nonzero(~np.isnan(means))
            columns = {
                "training_seed": np.array(each.seeds)[seed],
                "trajectory": np.array(each.trajectories)[trajectory],
                "value": means[seed, trajectory],
            }
            place = {"metric": metric, "range": name_range((first, last))}
            parts.append(pd.DataFrame(method | place | columns))
    parts = [part for part in parts if len(part)]
    return pd.concat(parts, ignore_index=True)[ERRORS] if parts else pd.DataFrame(columns=ERRORS)


def _ratios(cells: Cells) -> np.ndarray:
    """Spread over skill by cell, `(S, T, F, L)`: fields have different units, so that it is averaged last."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(np.isinf(cells.values).any(0), np.inf, combine(RATIO, cells.values))


def _over_deviation(cells: Cells) -> np.ndarray:
    """Values `(S, T, F, L)`, over the deviation of the true field if that is the second statistic."""
    if len(cells.values) == 1:
        return cells.values[0]
    score, variance = cells.values
    exists = np.isfinite(variance)  # all statistics of what is lost are infinite
    with np.errstate(invalid="ignore", divide="ignore"):
        deviation = np.sqrt(np.where(exists, variance, 0).sum((0, 1)) / exists.sum((0, 1)))
        return np.where(np.isinf(score), np.inf, score / deviation)


def paired_table(errors: pd.DataFrame, metric: str, ranges: Sequence[Range]) -> pd.DataFrame:
    """Emulators against those of kinds before theirs, of the same rate, and against those in pixel space.

    Those with sampler steps are taken at their most. An arm of a sweep is compared with what is of its kind
    alone, unless it is the only one.

    Arguments:
        errors: `trajectory_errors` of one context, without guidance; less of the metric is better.
        ranges: Inclusive ranges of lead times in simulation steps; None is the end.

    Returns:
        A row per emulator, rival (such as `neural solver`, `neural solver in pixel space`) and range with
        `difference, low, high` (negative where the emulator is better), `relative` to the rival's mean,
        `wins` of the emulator over `trajectories`, whether it is `better` by the test's ranks, the numbers of
        `seeds` that both are means of, and the test's `p`, `p_holm` over all rows, and `attainable`, the
        least that `p_holm` can be.
    """
    errors = errors[errors["metric"] == metric]
    scores: dict[tuple, dict[str, pd.DataFrame]] = {}
    for (*key, where), group in errors.groupby([*METHOD, "range"]):
        scores.setdefault(tuple(key), {})[str(where)] = by_seed(group)
    rows = []
    for method, rival, name in _pairs(scores):
        for where in (name_range(bounds) for bounds in ranges):
            if where in scores[method] and where in scores[rival]:
                one, other = scores[method][where].align(scores[rival][where], join="inner", axis=0)
                names = dict(zip(METHOD, method, strict=True))
                place = {"rival": name, "metric": metric, "range": where}
                alike = same_seeds(one, other)
                rows.append(names | place | compare(one.to_numpy().T, other.to_numpy().T, alike))
    table = pd.DataFrame(rows, columns=[name for name in COLUMNS if name not in ("p_holm", "attainable")])
    least = np.array([least_p(count) for count in table["trajectories"]], dtype=float)
    return table.assign(p_holm=holm(table["p"].to_numpy(dtype=float)), attainable=holm(least))


def by_seed(errors: pd.DataFrame) -> pd.DataFrame:
    """Errors of one method and range by trajectory down and training seed across."""
    return errors.pivot(index="trajectory", columns="training_seed", values="value")


def same_seeds(*errors: pd.DataFrame) -> bool:
    """Whether errors by trajectory down and training seed across are of the same seeds."""
    return all(each.columns.equals(errors[0].columns) for each in errors)


def compare(one: np.ndarray, other: np.ndarray, alike: bool = True) -> dict[str, float]:
    """Compare errors with shape `(T,)`, or `(S, T)` of several seeds, which are `alike` or not.

    Returns:
        As `paired_table`, and whether several seeds were compared one by one, `over_seeds`.
    """
    one, other = np.atleast_2d(one), np.atleast_2d(other)
    seeds = len(one), len(other)
    if not alike or seeds[0] != seeds[1]:  # a difference of means over seeds
        one, other = one.mean(0, keepdims=True), other.mean(0, keepdims=True)
    finite = np.stack([np.isfinite(values).all(0) for values in (one, other)])
    a, b = (np.where(np.isfinite(values), values, 0) for values in (one, other))
    difference = a - b
    means = difference.mean(0)
    beyond = 2 * np.abs(means).max() + 1
    ranked = np.where(finite.all(0), means, beyond * (finite[1].astype(int) - finite[0].astype(int)))
    count = one.shape[1]
    result = {
        "difference": np.nan, "low": np.nan, "high": np.nan, "relative": np.nan,
        "wins": int((ranked < 0).sum()), "trajectories": count,
        "better": bool((np.sign(ranked) * rankdata(np.abs(ranked))).sum() < 0),
        "seeds": seeds[0], "rival_seeds": seeds[1], "over_seeds": len(difference) > 1,
        "p": float(wilcoxon(ranked).pvalue) if ranked.any() else 1.0,
    }  # fmt: skip
    if finite.all():
        resampled = bootstrap_weights(count) @ difference[..., None]
        draws = resample_seeds(resampled[None, ..., 0], lambda means: means[0])
        result |= {"difference": means.mean(), "relative": means.mean() / b.mean()}
        if count > 1:
            result |= dict(zip(("low", "high"), np.quantile(draws[1:], LEVELS), strict=True))
    return result


def compare_shares(one: pd.DataFrame, other: pd.DataFrame) -> dict[str, float]:
    """`compare`, but `low, high` are the interval of `relative`, the ratio of the means less one.

    Arguments:
        one, other: Errors by trajectory down and training seed across.
    """
    one, other = one.align(other, join="inner", axis=0)
    values = [table.to_numpy().T for table in (one, other)]
    found = compare(values[0], values[1], same_seeds(one, other))
    if not found["over_seeds"]:
        values = [each.mean(0, keepdims=True) for each in values]
    if np.isnan(found["low"]):
        return found
    resampled = np.stack([each @ bootstrap_weights(each.shape[1]).T for each in values])
    draws = resample_seeds(resampled, lambda means: means[0] / means[1] - 1)
    return found | dict(zip(("low", "high"), np.quantile(draws[1:], LEVELS), strict=True))


@functools.cache
def least_p(count: int) -> float:
    """The least p-value of the test of so many trajectories: all differences have the same sign."""
    return float(wilcoxon(np.arange(1.0, count + 1)).pvalue)


def trajectories_needed(tests: int) -> int:
    """The fewest trajectories of which the least p-value, corrected for so many tests, is significant."""
    return next(count for count in itertools.count(1) if tests * least_p(count) < SIGNIFICANT)


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
    low, high = np.quantile(ratios[1:], LEVELS) if len(one) > 1 else (np.nan, np.nan)
    return float(ratios[0]), float(low), float(high)


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's correction of p-values with shape `(m,)`."""
    order = np.argsort(p)
    factors = np.arange(len(p), 0, -1)
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(1, np.maximum.accumulate(factors * p[order]))
    return corrected


def _pairs(scores: dict[tuple, dict[str, pd.DataFrame]]) -> Iterator[tuple[tuple, tuple, str]]:
    """Every emulator at its most solver steps, with its rivals and their names.

    The first of each kind are compared with each other, further arms with what is of their kind; the first
    ones in latent space also with those in pixel space, of their kind and of kinds before theirs.
    """
    kinds = shown_kinds()
    order = list(kinds)
    every = [dict(zip(METHOD, key, strict=True)) | {"key": key} for key in scores]
    best: dict[tuple, dict] = {}
    for method in every:
        place = (method["model"], method["space"], method["compression"])
        if method["model"] in order and method["solver_steps"] >= best.get(place, method)["solver_steps"]:
            best[place] = method
    ranked = sorted(best.values(), key=lambda method: order.index(method["model"]))
    firsts: dict[tuple, str] = {}
    for method in ranked:
        firsts.setdefault(
            (kinds[method["model"]].config, method["space"], method["compression"]), method["model"]
        )
    for method, other in itertools.permutations(ranked, 2):
        one, rival = kinds[method["model"]], kinds[other["model"]]
        alike, earlier = one.config is rival.config, order.index(rival.name) < order.index(one.name)
        both_first = all(
            kind.name == firsts[kind.config, each["space"], each["compression"]]
            for kind, each in ((one, method), (rival, other))
        )
        name = in_sentence(rival.title)
        if _same(method, other, "space", "compression"):
            if earlier and (alike or both_first):
                yield method["key"], other["key"], name
        elif other["space"] == "pixel" and (alike or earlier) and both_first:
            yield method["key"], other["key"], f"{name} in pixel space"


def _same(one: dict, other: dict, *keys: str) -> bool:
    return all(one[key] == other[key] for key in keys)
