"""The most accurate emulator of each kind against persistence and climatology: a sweep's last lines."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from rich.table import Table

from lola.evaluation.tables.lead_times import REFERENCES, beats_persistence
from lola.models.kinds import kind_titles, shown_kinds


def best_of_kinds(table: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Kinds of emulators and spaces, each with the rows of the least VRMSE, by their ranges.

    Arguments:
        table: As for `best_table`.
    """
    table = table.assign(kind=table["model"].str.removesuffix("_ema"))
    for (kind, space), rows in table[table["model"].isin(kind_titles())].groupby(["kind", "space"]):
        yield kind, space, rows.loc[rows.groupby("range")["value"].idxmin()].set_index("range")


def best_table(table: pd.DataFrame) -> Table:
    """For the console: kinds of emulators, persistence and climatology down, ranges of lead times across.

    A kind has the least VRMSE of its emulators in a space, chosen over each range as the report does, with
    raw or averaged weights.

    Arguments:
        table: VRMSE in `value`, infinite if unstable, by `model`, `space`, `compression`, `solver_steps` and
            `range`.
    """
    ranges = list(dict.fromkeys(table["range"]))
    shown = Table(
        title="Best of each kind: VRMSE over lead times (* not below persistence)",
        title_justify="left",
        box=None,
        padding=(0, 3, 0, 0),
    )
    for name in ("", *ranges):
        shown.add_column(name.replace("-", "–"), no_wrap=True)
    table = table.assign(beats=beats_persistence(table))
    for kind, space, best in best_of_kinds(table):
        where = " in pixel space" if space == "pixel" else ""
        shown.add_row(shown_kinds()[kind].title + where, *(_cell(best.loc[name]) for name in ranges))
    for name in ("persistence", "climatology"):
        values = table[table["model"] == name].set_index("range")["value"]
        if len(values):
            shown.add_row(REFERENCES[name], *(f"{values[each]:.3f}" for each in ranges))
    return shown


def _cell(row: Any) -> str:
    """An estimate, with the emulator that it is of: `0.123 (64×, 8 steps)`."""
    if not np.isfinite(row["value"]):
        return "unstable"
    mark = "" if pd.isna(row["beats"]) or row["beats"] else "*"
    of = [f"{row['compression']:.4g}×"] if row["space"] == "latent" else []
    of += [f"{row['solver_steps']} steps"] if row["solver_steps"] else []
    return f"{row['value']:.3f}{mark}" + (f" ({', '.join(of)})" if of else "")
