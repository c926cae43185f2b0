r"""The choice of a sampler: made on the validation split, reported on the test split.

A diffusion model drawn with a candidate s (a sampler, its order, its step spacing) and n evaluations of its
network per window has the error x_tR(s, n) on trajectory t over a range R of lead times, averaged over
fields. On the trajectories of the validation split alone, one candidate is chosen for each n,

    s*(n) = argmin_s  mean_R log mean_t x_tR(s, n),

and with several models one for all of them, whose logarithms are averaged over the models too. Ties go to
the candidate named first; one that is not finite somewhere is never chosen before one that is. On the test
split, what was chosen is compared with the same model at its most evaluations N, drawn with s*(N), with a
fine reference, and with the sampler in use, by the ratios of `tables.significance`: in pairs, since
all of them start from the same noise.

Scores are a table with the columns `emulator, compression, split, sampler, steps, metric, range, trajectory,
value`, in which the reference is as any other sampler.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa

from lola.evaluation.tables.lead_times import Range
from lola.evaluation.tables.significance import compare, error_ratio, trajectory_errors

METRICS = ("vrmse", "crps")
ALL = "all"
COMMON = "all models"
OWN, SHARED, PRESENT, FINE = "own", "common", "present", "fine"


def trajectory_scores(metrics: pa.Table, ranges: Sequence[Range]) -> pd.DataFrame:
    """The errors of one evaluation by trajectory, averaged over fields, lead times and starts.

    Arguments:
        metrics: Its tidy rows.
        ranges: Inclusive ranges of lead times in simulation steps; None is the end.

    Returns:
        Rows `metric, range, trajectory, value`; a value that is not finite is infinite.
    """
    errors = trajectory_errors(metrics, METRICS, ranges)
    return errors[["metric", "range", "trajectory", "value"]]


def log_errors(scores: pd.DataFrame, metric: str) -> pd.DataFrame:
    """`mean_R log mean_t x_tR` of every emulator, sampler and number of steps, as the column `error`."""
    rows = scores[scores["metric"] == metric]
    means = rows.groupby(["emulator", "steps", "sampler", "range"], sort=False)["value"].mean()
    logs = np.log(means).groupby(["emulator", "steps", "sampler"], sort=False).mean()
    return logs.rename("error").reset_index()


def choose(scores: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The sampler with the least error of each emulator at each number of steps, and of all emulators.

    Arguments:
        scores: Those of the candidates on the validation split, in the candidates' order.

    Returns:
        Rows `emulator, steps, sampler, error`; with several emulators also rows of `COMMON`, for samplers
        that all of them were drawn with.
    """
    errors = log_errors(scores, metric)
    count = errors["emulator"].nunique()
    if count > 1:
        groups = errors.groupby(["steps", "sampler"], sort=False)["error"]
        shared = groups.mean()[groups.count() == count].reset_index()
        errors = pd.concat([errors, shared.assign(emulator=COMMON)], ignore_index=True)
    best = errors.groupby(["emulator", "steps"], sort=False)["error"].idxmin()
    return errors.loc[best].reset_index(drop=True)


def ratio_table(
    scores: pd.DataFrame, chosen: pd.DataFrame, present: str, fine: tuple[str, int]
) -> pd.DataFrame:
    """Every choice on the test split against the most steps, and against the fine reference.

    Arguments:
        scores: Those on the test split.
        chosen: What `choose` gave.
        present: The sampler in use, which is compared as well.
        fine: The sampler of the fine reference, and its steps.

    Returns:
        Rows `emulator, choice, steps, sampler, metric, range, reference, ratio, low, high, wins,
        trajectories, p`. The choice is `own`, `common` or `present`; the reference `N steps`, the most, drawn
        as chosen for the emulator, `fine`, or `present`, the sampler in use with as many. The range `all` is
        the geometric mean over ranges. Wins are trajectories on which the reference is worse; p is of the
        signed-rank test. Rows of `all models` are of their common choice.
    """
    most = int(chosen["steps"].max())
    emulators = [name for name in chosen["emulator"].unique() if name != COMMON]
    ranges = list(scores["range"].unique())
    errors = {
        key: rows.pivot(index="trajectory", columns="range", values="value")[ranges]
        for key, rows in scores.groupby(["emulator", "sampler", "steps", "metric"])
    }
    own = chosen.set_index(["emulator", "steps"])["sampler"]
    rows = []
    for place, sampler, steps, choice in _choices(chosen, emulators, present):
        members = emulators if place == COMMON else [place]
        references = {
            f"{most} steps": [(own[name, most], most) for name in members],
            FINE: [fine] * len(members),
            PRESENT: [(present, steps)] * len(members),
        }
        for reference, others in references.items():
            for metric in METRICS:
                numerators = [errors.get((name, sampler, steps, metric)) for name in members]
                denominators = [
                    errors.get((name, title, count, metric))
                    for name, (title, count) in zip(members, others, strict=True)
                ]
                if any(part is None for part in (*numerators, *denominators)):
                    continue
                key = {"emulator": place, "choice": choice, "steps": steps, "sampler": sampler}
                key |= {"metric": metric, "reference": reference}
                rows += [key | row for row in _compare_ranges(numerators, denominators)]
    return pd.DataFrame(rows)


def _choices(chosen: pd.DataFrame, emulators: list[str], present: str) -> Iterator[tuple[str, str, int, str]]:
    """What is reported: emulator, sampler, steps, and why."""
    common = chosen[chosen["emulator"] == COMMON]
    for name in (*emulators, COMMON):
        own = chosen[chosen["emulator"] == name]
        kinds = {OWN: own, SHARED: common, PRESENT: own.assign(sampler=present)}
        for choice, rows in kinds.items():
            for row in rows.itertuples() if (name, choice) != (COMMON, OWN) else ():
                yield name, str(row.sampler), int(row.steps), choice


def _compare_ranges(numerators: list[pd.DataFrame], denominators: list[pd.DataFrame]) -> Iterator[dict]:
    """Comparisons over all ranges, then over each."""
    a, b = (np.stack([part.to_numpy() for part in parts], axis=-1) for parts in (numerators, denominators))
    ranges = list(numerators[0].columns)
    every = list(range(len(ranges)))
    for name, chosen in ((ALL, every), *((name, [i]) for i, name in enumerate(ranges))):
        one, other = (values[:, chosen].reshape(len(values), -1) for values in (a, b))
        exists = ~np.isnan(one).all(1)  # others end before the range
        one, other = one[exists], other[exists]
        ratio, low, high = error_ratio(one, other)
        with np.errstate(over="ignore"):
            tested = compare(*(np.exp(np.nanmean(np.log(values), 1)) for values in (one, other)))
        kept = {key: tested[key] for key in ("wins", "trajectories", "p")}
        yield {"range": name, "ratio": ratio, "low": low, "high": high} | kept


def fewest_steps(ratios: pd.DataFrame, metric: str, tolerance: float) -> pd.DataFrame:
    """The fewest steps of each emulator whose own choice is within a tolerance of the most over all ranges.

    Arguments:
        ratios: What `ratio_table` gave.
        tolerance: How much larger the error may be, such as 0.03.

    Returns:
        Rows `emulator, steps, sampler, ratio, low, high, sure`, sure where the interval is within the
        tolerance too.
    """
    most = f"{int(ratios['steps'].max())} steps"
    rows = ratios[
        (ratios["choice"] == OWN)
        & (ratios["metric"] == metric)
        & (ratios["range"] == ALL)
        & (ratios["reference"] == most)
        & (ratios["ratio"] <= 1 + tolerance)
    ]
    first = rows.loc[rows.groupby("emulator", sort=False)["steps"].idxmin()]
    sure = first["high"] <= 1 + tolerance
    return first[["emulator", "steps", "sampler", "ratio", "low", "high"]].assign(sure=sure)
