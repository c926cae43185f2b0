"""The numbers that the paper prints, with the column names of the tidy tables (Tables 1, 4 and 6 to 10).

Tables 6 (VRMSE), 7 (VRMSE by context) and 8 to 10 (spectra) are `paper_tables.csv`, as printed. Two of its
entries, 0.98 and 0.99 in columns of numbers near 0.1, are misprints of 0.098 and 0.099 and are read as these.
Table 7 does not name its rates: it has no `compression` here.

The paper's grids are finer than those of a small run: equal rates do not make two numbers comparable.
"""

import functools
import importlib.resources

import numpy as np
import pandas as pd

from lola.data.systems import System
from lola.evaluation.tables.lead_times import Range

MISPRINTS = {
    ("euler", "autoencoder", 80, "psd_rmse_high", "61:100"): 0.098,
    ("rayleigh_benard", "autoencoder", 64, "psd_rmse_high", "1:20"): 0.099,
}
TABLES = {
    "vrmse": dict.fromkeys(("euler", "rayleigh_benard", "turbulence_gravity_cooling"), "Table 6"),
    "context": dict.fromkeys(("euler", "rayleigh_benard", "turbulence_gravity_cooling"), "Table 7"),
    "spectra": {"euler": "Table 8", "rayleigh_benard": "Table 9", "turbulence_gravity_cooling": "Table 10"},
}
"""The number of the paper's table of a kind and system."""

SECONDS = {
    ("neural_solver", "pixel"): 0.056,
    ("neural_solver", "latent"): 0.013,
    ("diffusion", "latent"): 0.084,
}
"""Seconds per state of Euler on an A100 by model and space (Table 1)."""

LOSSES = {
    ("adam", False): (0.065, 0.029, 0.017, 19),
    ("adam", True): (0.039, 0.023, 0.014, 19),
    ("psgd", True): (0.023, 0.015, 0.011, 25),
}
"""Losses after 10, 100 and 1000 of 1024 epochs, and the time, by optimiser and initialisation (Table 4)."""


@functools.cache
def _printed() -> pd.DataFrame:
    source = importlib.resources.files("lola.evaluation.tables").joinpath("paper_tables.csv")
    with source.open(encoding="utf-8") as file:
        table = pd.read_csv(file)
    for (system, method, rate, metric, lead_time), value in MISPRINTS.items():
        at = (table["system"] == system) & (table["method"] == method) & (table["compression"] == rate)
        at &= (table["metric"] == metric) & (table["lead_time"] == lead_time)
        table.loc[at, "value"] = value
    first = table["lead_time"].str.split(":").str[0].astype(int)
    return table.assign(
        model=table["method"].str.replace(" ", "_"),
        space=np.where(table["compression"] == 1, "pixel", "latent"),
        metric=table["metric"].str.replace("psd_rmse", "spectrum_rmse"),
        first=first,
    ).drop(columns="method")


def printed(system: str) -> pd.DataFrame:
    """The printed figures of a system, none if the paper does not study it.

    Returns:
        The columns `model, space, compression, context, metric, lead_time, first, value`: the range of lead
        times as printed and its first. `context` is NaN in Tables 6 and 8 to 10, `compression` in Table 7.
    """
    table = _printed()
    return table[table["system"] == system].drop(columns="system").reset_index(drop=True)


def paper_ranges(system: System, metric: str) -> tuple[Range, ...]:
    """The ranges of lead times that the paper tabulates a metric of a system by."""
    spectrum = metric.startswith("spectrum") and system.spectrum_ranges
    return system.spectrum_ranges if spectrum else system.ranges


def printed_values(table: pd.DataFrame, system: str) -> pd.Series:
    """The printed figure of each row of a `lead_time_table`, NaN where systems, rates or ranges differ.

    Models match with trained, not averaged, weights, one state of context and no guidance.
    """
    rows = printed(system)
    rows = rows[rows["context"].isna()]
    keys = ["model", "space", "compression", "metric", "first"]
    figures = rows.set_index(keys)["value"].to_dict()
    first = table["range"].str.split("-").str[0].astype(int) if len(table) else []
    places = table.assign(first=first)[keys].itertuples(index=False, name=None)
    values = pd.Series([figures.get(place, np.nan) for place in places], table.index, dtype=float)
    return values.where((table["context"] == 1) & (table["guidance"] == ""))


def printed_table(system: str, metrics: list[str]) -> pd.DataFrame:
    """A system's printed figures as the paper lays them out: methods down, metrics and ranges across.

    Returns:
        The columns `method`, `rate` and one per metric and range; empty if there are none.
    """
    rows = printed(system)
    rows = rows[rows["metric"].isin(metrics) & rows["context"].isna()]
    if not len(rows):
        return pd.DataFrame(columns=["method", "rate"])
    where = rows["lead_time"].str.replace(":", "–")
    band = rows["metric"].str.removeprefix("spectrum_rmse_") + " " if len(metrics) > 1 else ""
    rows = rows.assign(column=band + where)
    names = rows["model"].str.replace("_", " ").where(rows["space"] == "latent", "neural solver, pixel space")
    wide = rows.assign(method=names, rate=rows["compression"]).pivot_table(
        "value", ["method", "rate"], "column", sort=False
    )
    shown = wide.map("{:.3f}".format).reset_index()
    return shown.assign(rate=shown["rate"].map("{:g}".format)).rename_axis(columns=None)
