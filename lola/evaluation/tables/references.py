r"""Errors of all methods of a rate as shares of those of one of them, the reference.

With e_t the errors of a method over a range of lead times, and r_t those of the reference on the same
trajectories, both means over training seeds,

    relative = mean_t e_t / mean_t r_t - 1,

whose interval is that of `bootstrap`: trajectories, and seeds where both have the same ones, are resampled
in pairs.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from lola.evaluation.tables.cells import METHOD
from lola.evaluation.tables.formats import name_columns
from lola.evaluation.tables.lead_times import Range, name_range, sort_methods
from lola.evaluation.tables.significance import SIGNIFICANT, by_seed, compare_shares, holm
from lola.models.kinds import kind_titles

COLUMNS = [*METHOD, "metric", "range", "relative", "low", "high", "p_holm", "seeds", "trajectories"]


def reference_table(
    errors: pd.DataFrame, metric: str, ranges: Sequence[Range], reference: Mapping[str, object]
) -> pd.DataFrame:
    """Emulators against a reference of their rate.

    Arguments:
        errors: `trajectory_errors` of one context, without guidance; less of the metric is better.
        ranges: Inclusive ranges of lead times in simulation steps; None is the end.
        reference: Columns of the reference, such as `{"model": "diffusion", "solver_steps": 16}`.

    Returns:
        A row per method and range with `relative, low, high`, the numbers of `seeds` and `trajectories`, and
        Wilcoxon's `p_holm`, corrected for the number of rows. Rates without the reference have no rows.
    """
    names = [name_range(bounds) for bounds in ranges]
    chosen = errors[
        (errors["metric"] == metric) & errors["range"].isin(names) & errors["model"].isin(kind_titles())
    ]
    is_reference = np.all([chosen[name] == value for name, value in reference.items()], axis=0)
    rivals = {
        key: by_seed(group) for key, group in chosen[is_reference].groupby(["space", "compression", "range"])
    }
    rows = []
    for (*method, where), group in chosen[~is_reference].groupby([*METHOD, "range"]):
        row = dict(zip(METHOD, method, strict=True)) | {"metric": metric, "range": where}
        rival = rivals.get((row["space"], row["compression"], where))
        if rival is not None:
            rows.append(row | compare_shares(by_seed(group), rival))
    if not rows:
        return pd.DataFrame(columns=COLUMNS)
    table = pd.DataFrame(rows)
    table = table.assign(p_holm=holm(table["p"].to_numpy(float)), place=table["range"].map(names.index))
    return sort_methods(table.sort_values("place", kind="stable"))[COLUMNS]


def shown_shares(table: pd.DataFrame) -> pd.DataFrame:
    """A `reference_table` as strings: methods down, ranges across; significant differences have a `*`."""
    ranges = list(dict.fromkeys(table["range"]))
    first = table.drop_duplicates(METHOD).reset_index(drop=True)
    shown = pd.DataFrame(name_columns(first)).drop(columns="members")
    cells = table.set_index([*METHOD, "range"])
    for name in ranges:
        found = [cells.loc[(*key, name)] for key in first[METHOD].itertuples(index=False, name=None)]
        shown[name.replace("-", "–")] = [_share(row) for row in found]
    return shown


def _share(row: pd.Series) -> str:
    if not np.isfinite(row["relative"]):
        return "–"
    mark = " *" if row["p_holm"] < SIGNIFICANT else ""
    return f"{row['relative']:+.1%} ({row['low']:+.1%} to {row['high']:+.1%}){mark}"
