"""Accuracy by the number of known states, as the paper's Table 7."""

from collections.abc import Sequence

import pandas as pd

from lola.evaluation.tables.cells import METHOD
from lola.evaluation.tables.lead_times import Range, estimate_means, name_range, sort_methods
from lola.evaluation.tables.paper import printed
from lola.models.kinds import shown_kinds

CONTEXTS = (1, 2, 3)
"""Those of the paper."""


def context_table(errors: pd.DataFrame, ranges: Sequence[Range], system: str) -> pd.DataFrame:
    """VRMSE of the emulators in latent space by context, averaged over rates, with the paper's figures.

    Arguments:
        errors: `trajectory_errors` of one system, of each emulator at one number of solver steps.
        ranges: Inclusive ranges of lead times in simulation steps; None is the end.
        system: The system's name, for the paper's figures.

    Returns:
        Rows of strings: `method`, `context`, a column per range (with its 95 % interval) and the paper's.
    """
    rows = errors[errors["model"].isin(shown_kinds()) & (errors["space"] == "latent")]
    rows = rows[(rows["guidance"] == "") & (rows["metric"] == "vrmse")]
    # What has one rate for all is averaged over it: a trajectory is resampled with all its rates, of the
    # training seeds that all of them have.
    keys = [key for key in METHOD if key != "compression"]
    names = [name_range(bounds) for bounds in ranges]
    found = [
        dict(zip([*keys, "range"], key, strict=True))
        | {"compression": 0.0}
        | estimate_means(
            _common_seeds(group)
            .pivot_table("value", "training_seed", "trajectory", dropna=False)
            .to_numpy(dtype=float)
        )
        for key, group in rows.groupby([*keys, "range"])
        if key[-1] in names
    ]
    if not found:
        return pd.DataFrame()
    table = pd.DataFrame(found)
    table = table.assign(place=table["range"].map(names.index)).sort_values("place", kind="stable")
    table = sort_methods(table)
    figures = printed(system)
    known = figures[figures["context"].notna()].set_index(["model", "context", "first"])["value"].to_dict()
    shown = []
    for (model, context), group in table.groupby(["model", "context"], sort=False):
        row = {"method": shown_kinds()[str(model)].title, "context": str(context)}
        for _, cell in group.iterrows():
            interval = "" if pd.isna(cell["low"]) else f" ({cell['low']:.3f}–{cell['high']:.3f})"
            row[str(cell["range"]).replace("-", "–")] = f"{cell['value']:.3f}{interval}"
        for where in group["range"]:
            value = known.get((model, context, int(where.split("-")[0])))
            row[f"paper, {where.replace('-', '–')}"] = "–" if value is None else f"{value:.3f}"
        shown.append(row)
    return pd.DataFrame(shown)


def _common_seeds(errors: pd.DataFrame) -> pd.DataFrame:
    """The rows of the training seeds that all rates have."""
    rates = errors.groupby("training_seed")["compression"].nunique()
    return errors[errors["training_seed"].map(rates) == errors["compression"].nunique()]
