"""Accuracy by the number of known states, as the paper's Table 7."""

from collections.abc import Sequence

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from lola.evaluation.paper import printed
from lola.evaluation.tables import NAMES, Range, lead_time_table


def context_table(metrics: pa.Table, ranges: Sequence[Range], system: str) -> pd.DataFrame:
    """VRMSE of the emulators in latent space by context, averaged over rates, with the paper's figures.

    Arguments:
        metrics: Tidy rows of one system, of each diffusion model at one number of solver steps.
        ranges: Inclusive ranges of lead times in simulation steps; None is the end.
        system: The system's name, for the paper's figures.

    Returns:
        Rows of strings: `method`, `context`, a column per range (with its 95 % interval) and the paper's.
    """
    models = pa.array(["diffusion", "neural_solver"])
    keep = pc.and_(pc.is_in(metrics["model"], models), pc.equal(metrics["space"], "latent"))
    rows = metrics.filter(pc.and_(keep, pc.equal(metrics["guidance"], "")))
    # What has one rate for all is averaged over it: a trajectory is resampled with all its rates.
    at = rows.column_names.index("compression")
    rows = rows.set_column(at, "compression", pa.array([0.0] * len(rows)))
    table = lead_time_table(rows, "vrmse", ranges)
    figures = printed(system)
    known = figures[figures["context"].notna()].set_index(["model", "context", "first"])["value"].to_dict()
    shown = []
    for (model, context), group in table.groupby(["model", "context"], sort=False):
        row = {"method": NAMES[str(model)], "context": str(context)}
        for _, cell in group.iterrows():
            interval = "" if pd.isna(cell["low"]) else f" ({cell['low']:.3f}–{cell['high']:.3f})"
            row[str(cell["range"]).replace("-", "–")] = f"{cell['value']:.3f}{interval}"
        for where in group["range"]:
            value = known.get((model, context, int(where.split("-")[0])))
            row[f"paper, {where.replace('-', '–')}"] = "–" if value is None else f"{value:.3f}"
        shown.append(row)
    return pd.DataFrame(shown)
