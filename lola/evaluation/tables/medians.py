"""Medians over trajectories of errors, which no single trajectory can dominate."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lola.evaluation.tables.bootstrap import LEVELS, bootstrap_weights, resample_seeds, weighted_medians
from lola.evaluation.tables.cells import METHOD
from lola.evaluation.tables.lead_times import COLUMNS, Range, name_range, sort_methods


def median_table(errors: pd.DataFrame, metric: str, ranges: Sequence[Range]) -> pd.DataFrame:
    """The medians of a metric by method and range, as a `lead_time_table` of the metric `<metric>_median`.

    They are of errors that each trajectory has over a range; those of training seeds are averaged. A
    trajectory that is not finite is worse than any other: a method is unstable if half of them are lost.

    Arguments:
        errors: `trajectory_errors`.
    """
    rows = []
    names = [name_range(bounds) for bounds in ranges]
    chosen = errors[(errors["metric"] == metric) & errors["range"].isin(names)]
    for key, group in chosen.groupby([*METHOD, "range"]):
        values = group.pivot(index="training_seed", columns="trajectory", values="value")
        values = values.dropna(axis=1).to_numpy(dtype=float)
        row = dict(zip([*METHOD, "range"], key, strict=True)) | _median(values)
        rows.append(row | {"metric": f"{metric}_median"})
    if not rows:
        return pd.DataFrame(columns=COLUMNS)
    table = pd.DataFrame(rows)[COLUMNS]
    table = table.assign(place=table["range"].map(names.index)).sort_values("place", kind="stable")
    return sort_methods(table.drop(columns="place"))


def _median(values: np.ndarray) -> dict[str, float]:
    """The median of errors with shape `(S, T)`, averaged over seeds, with its interval."""
    seeds, count = values.shape
    weights = bootstrap_weights(count)
    by_seed = np.stack([weighted_medians(weights, each) for each in values])
    lost = np.isinf(by_seed[:, 0]).any()
    numbers = {"seeds": seeds, "trajectories": count}
    if lost:
        unstable = int(np.isinf(values).any(0).sum())
        return {"value": np.inf, "low": np.nan, "high": np.nan, **numbers, "unstable": unstable}
    with np.errstate(invalid="ignore"):  # resamplings of mostly lost trajectories
        draws = resample_seeds(by_seed[None], lambda medians: medians[0])
        low, high = np.quantile(draws[1:], LEVELS) if count > 1 else (np.nan, np.nan)
    return {"value": draws[0], "low": low, "high": high, **numbers, "unstable": 0}
