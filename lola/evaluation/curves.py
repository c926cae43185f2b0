r"""Estimates at every lead time and field, for charts.

With the weights w of `lola.evaluation.tables`, and for one field f or the mean over all,

    x_l = mean_f sum_t w_t x_tfl,    ratio_l = mean_f sqrt( sum_t w_t Spread_tfl^2 / sum_t w_t Skill_tfl^2 ),

so that curves and tables agree where a range is one lead time.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lola.evaluation.tables import METHOD, RATIO, bootstrap_weights

MEAN = "mean of all fields"


@dataclasses.dataclass(frozen=True)
class Curve:
    """A metric of one method over lead time.

    Arguments:
        method: The values of the columns `METHOD`, by name.
        field: The field, or `MEAN`.
        lead_times: Simulation steps since the last context state, with shape `(L,)`.
        value, low, high: Estimate and 95 % interval with shape `(L,)`; NaN where a trajectory is not finite.
    """

    method: dict
    field: str
    lead_times: np.ndarray
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


def curves(metrics: pa.Table, metric: str, *, target: str = "truth", draws: int = 1000) -> Iterator[Curve]:
    """The curves of every method that has a metric, field by field and for their mean.

    Arguments:
        metrics: Tidy rows of one system.
        metric: The name of a metric of the rows, or `spread_skill_ratio`.
        target: What was scored against, `truth` or `autoencoded`.
        draws: Resamplings of the bootstrap.
    """
    names = ["spread", "skill"] if metric == RATIO else [metric]
    chosen = pc.and_(pc.equal(metrics["target"], target), pc.is_in(metrics["metric"], pa.array(names)))
    rows = metrics.filter(chosen)
    if metric == RATIO:
        square = pc.multiply(rows["value"], rows["value"])
        rows = rows.set_column(rows.column_names.index("value"), "value", square)
        rows = rows.filter(pc.greater(rows["members"], 1))
    fields = list(dict.fromkeys(rows["field"].to_pylist()))
    keys = [*METHOD, "trajectory", "field", "lead_time", "metric"]
    # Starts and training seeds are averaged: the trajectory is what is drawn independently.
    frame = rows.unify_dictionaries().group_by(keys).aggregate([("value", "mean")]).to_pandas()
    frame = frame.astype(dict.fromkeys(frame.select_dtypes("category").columns, "str"))
    for values, group in frame.groupby(METHOD):
        cells = group.pivot_table("value_mean", "trajectory", ["metric", "field", "lead_time"], dropna=False)
        method = dict(zip(METHOD, values, strict=True))
        yield from _of_method(
            method, cells, names, [name for name in fields if name in set(group["field"])], draws
        )


def _of_method(method: dict, cells, names: list[str], fields: list[str], draws: int) -> Iterator[Curve]:
    lead_times = np.unique(cells.columns.get_level_values("lead_time").to_numpy())
    count = len(cells)
    parts = np.stack(
        [
            np.stack(
                [cells[name, field].reindex(columns=lead_times).to_numpy(dtype=float) for field in fields]
            )
            for name in names
        ]
    )
    means = bootstrap_weights(count, draws) @ np.where(np.isfinite(parts), parts, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        estimates = np.sqrt(means[0] / means[1]) if len(names) == 2 else means[0]
    for field, values in [(MEAN, estimates.mean(0)), *zip(fields, estimates, strict=True)]:
        interval = (
            np.quantile(values[1:], [0.025, 0.975], axis=0)
            if count > 1
            else np.full((2, *lead_times.shape), np.nan)
        )
        yield Curve(method, field, lead_times, values[0], interval[0], interval[1])
