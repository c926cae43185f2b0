"""The charts of a sweep, for the page's script: over lead time, rate, solver steps, wavenumber and rank.

Rates, solver steps, samplers, contexts, overlaps and sizes of ensembles are chosen: they are keys of a curve
where methods of its model differ in them. Colour and line distinguish models and guidance.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lola.evaluation.page.charts import Axis, Chart, Choice, Series
from lola.evaluation.scores.spectra import BANDS, band_limits
from lola.evaluation.tables.cells import METHOD
from lola.evaluation.tables.curves import MEAN, Curve
from lola.evaluation.tables.derived import RATIO
from lola.evaluation.tables.lead_times import name_method
from lola.evaluation.tables.paper import printed
from lola.evaluation.tables.shown_metrics import UNITS
from lola.models.kinds import kind_titles, shown_kinds

DASHES = ("6 4", "2 3", "10 3 2 3")  # of kinds that take one evaluation of their network
AXES = {
    "vrmse": Axis("VRMSE of the ensemble's mean", log=True),
    "vrmse_pooled": Axis("pooled VRMSE of the ensemble's mean", log=True),
    "vrmse_member": Axis("VRMSE of single members", log=True),
    "crps_relative": Axis("CRPS over the deviation of the truth", log=True),
    RATIO: Axis("spread / skill", marks=[(1, "")]),
    "coverage_90": Axis("coverage of the 90 % interval"),
    "energy_block_relative": Axis("energy score of blocks over the deviation of the truth", log=True),
    "correlation": Axis("correlation of the ensemble's mean with the truth"),
    "anomaly_correlation": Axis("anomaly correlation of the ensemble's mean with the truth"),
    "valid": Axis("share of predictions with an anomaly correlation of 0.8 until then"),
    "nrmse": Axis("NRMSE of the ensemble's mean", log=True),
    "spectrum_rmse_low": Axis("error of the power at low wavenumbers", log=True),
    "spectrum_rmse_mid": Axis("error of the power at middle wavenumbers", log=True),
    "spectrum_rmse_high": Axis("error of the power at high wavenumbers", log=True),
    "spectrum_rmse_tail": Axis("error of the power beyond the bands", log=True),
    "increments": Axis("distance of the increments in time"),
    "stability": Axis("share of stable rollouts"),
    "out_of_bounds": Axis("share of rollouts out of bounds"),
    "crps": Axis("CRPS (unit of the field)", log=True),
}
REFERENCE_DASHES = {
    "climatology": "1 3",
    "persistence": "2 4",
    "autoencoded_persistence": "4 2 1 2",
    "autoencoder": "8 4",
}
UNSEEN = ("climatology", "persistence", "autoencoded_persistence")
"""What spectra are not shown of."""
TARGETS = {"truth": "the truth", "autoencoded": "the auto-encoded truth"}
VARIED = {"rate": "compression", **{key: key for key in METHOD[3:8]}}
"""Keys of curves that distinguish methods of one model, and their columns."""
LABELS = {"target": "against", "range": "lead times", "rate": "compression"}
MOST_LEAD_TIMES, MOST_BINS = 8, 64

Varying = dict[tuple[str, str], set[str]]


def lead_time_chart(
    curves: Iterable[Curve], names: Sequence[str], target: str = "truth", rows: str = ""
) -> Chart:
    """Some metrics of every method over lead time, by field, target and rate.

    Arguments:
        target: What they are against at first.
        rows: The key that the rows of the still picture differ in, such as `metric`.
    """
    targets = list(TARGETS)
    found = sorted(
        _shown(curves, names),
        key=lambda curve: (names.index(curve.metric), targets.index(curve.target)),
    )
    varying = _varying(pd.DataFrame([curve.method for curve in found], columns=METHOD))
    series = []
    for curve in found:
        place = {"metric": curve.metric, "field": curve.field, "target": curve.target}
        line = _line(curve.method, varying, place)
        line["label"] += count_seeds([curve.seeds])
        series.append(Series(**line, x=curve.lead_times, y=curve.value, low=curve.low, high=curve.high))
    return Chart(
        "Metrics of every method over lead time, with 95 % intervals over trajectories and training seeds",
        Axis("lead time (simulation steps)"),
        _axes(names),
        series,
        _choices(series, "metric", "rate", "field", "target", *VARIED, target=target),
        rows=rows,
        columns="rate",
    )


def reconstruction_chart(curves: Iterable[Curve], names: Sequence[str]) -> Chart:
    """Some metrics of the autoencoders alone over lead time, a curve per rate, by field."""
    found = [curve for curve in curves if curve.method["model"] == "autoencoder" and curve.target == "truth"]
    rates = sorted({curve.method["compression"] for curve in found})
    series = []
    for curve in sorted(_shown(found, names), key=lambda curve: names.index(curve.metric)):
        rate = curve.method["compression"]
        series.append(
            Series(
                f"{rate:.4g}×",
                f"shade-{rates.index(rate) % 6}",
                {"metric": curve.metric, "field": curve.field},
                *(curve.lead_times, curve.value, curve.low, curve.high),
            )
        )
    return Chart(
        "Metrics of the autoencoders over lead time, with 95 % intervals over trajectories",
        Axis("lead time (simulation steps)"),
        _axes(names),
        series,
        _choices(series, "metric", "field"),
    )


def _shown(curves: Iterable[Curve], names: Sequence[str]) -> Iterable[Curve]:
    """The curves of some metrics, but for means over fields that differ in their unit."""
    return (
        curve
        for curve in curves
        if curve.metric in names and not (curve.metric in UNITS and curve.field == MEAN)
    )


def rate_chart(tables: pd.DataFrame, system: str) -> Chart:
    """Metrics against compression rate by range of lead times, with the paper's figures of a system.

    Arguments:
        tables: Concatenated `lead_time_table`s, with a column `target`.
        system: The system's name.
    """
    varying = _varying(tables)
    latent = tables["space"] == "latent"
    paper = _printed(system, {int(name.split("-")[0]): name for name in tables["range"]})
    rates = np.concatenate([tables.loc[latent, "compression"], *(one.x for one in paper)])
    span = np.array([rates.min(), rates.max()])
    series = []
    for place, rows in _groups(tables[latent], "compression"):
        line = _line(rows.iloc[0], varying, place, "rate")
        line["label"] += count_seeds(rows["seeds"])
        series.append(Series(**line, **_points(rows, "compression")))
    for place, rows in _groups(tables[~latent], "compression"):
        line = _line(rows.iloc[0], varying, place) | {"dash": "2 4"}
        line["label"] += count_seeds(rows["seeds"])
        series.append(Series(**line, x=span, y=rows["value"].to_numpy().repeat(2)))
    series += paper
    return Chart(
        "Metrics against compression rate, by range of lead times; open points are the paper's figures",
        Axis("compression rate", log=True),
        _axes(list(dict.fromkeys(tables["metric"]))),
        series,
        _choices(series, "metric", "range", "target", *VARIED),
        columns="range",
    )


def steps_chart(tables: pd.DataFrame) -> Chart:
    """Metrics against solver steps, and of emulators without any; `tables` as for `rate_chart`."""
    latent = tables[(tables["space"] == "latent") & tables["model"].isin(kind_titles())]
    varying = _varying(latent)
    rates = sorted(latent["compression"].unique())
    span = latent.loc[latent["solver_steps"] > 0, "solver_steps"].agg(["min", "max"]).to_numpy()
    single = [kind.name for kind in shown_kinds().values() if not kind.sampler_steps]
    series = []
    for place, rows in _groups(latent, "solver_steps"):
        row = rows.iloc[0]
        line = _line(row, varying, place, "rate", "solver_steps")
        line["label"] += f" {row['compression']:.4g}×{count_seeds(rows['seeds'])}"
        line["colour"] = f"shade-{rates.index(row['compression']) % 6}"
        if row["solver_steps"]:
            series.append(Series(**line, **_points(rows, "solver_steps")))
        else:
            kind = str(row["model"]).removesuffix("_ema")
            dash = DASHES[single.index(kind) % len(DASHES)]
            series.append(Series(**line | {"dash": dash}, x=span, y=rows["value"].to_numpy().repeat(2)))
    return Chart(
        "Metrics against solver steps; dashed lines are emulators that take one evaluation of their network",
        Axis("solver steps", log=True),
        _axes(list(dict.fromkeys(tables["metric"]))),
        series,
        _choices(series, "metric", "range", "target", *VARIED),
        columns="range",
    )


def spectrum_chart(spectra: pd.DataFrame, shown: str) -> Chart:
    """The power spectrum of truth and methods, by field (one is shown first), lead time and rate."""
    rows = spectra[spectra["metric"].isin(["power_truth", "power_prediction"])]
    rows = _thinned(rows[(rows["target"] == "truth") & ~rows["model"].isin(UNSEEN)])
    varying = _varying(rows)
    series = []
    for (field, time), group in rows.groupby(["field", "lead_time"], sort=False):
        place = {"field": str(field), "lead_time": str(time)}
        truth = group[group["metric"] == "power_truth"].iloc[0]
        series.append(Series("Truth", "truth", place, x=truth["x"], y=truth["y"]))
        for _, row in group[group["metric"] == "power_prediction"].iterrows():
            series.append(Series(**_line(row, varying, place), x=row["x"], y=row["y"]))
    lowest = min((one.x[0] for one in series if len(one.x)), default=None)
    bands = () if lowest is None else tuple(zip(band_limits(lowest), BANDS, strict=False))
    return Chart(
        "Isotropic power of the truth and of every method over wavenumber",
        Axis("wavenumber (cycles per pixel)", log=True, marks=bands),
        Axis("power", log=True),
        series,
        _choices(series, "field", "lead_time", "rate", *VARIED, field=shown),
        rows="rate",
        columns="lead_time",
    )


def binned_chart(spectra: pd.DataFrame, metric: str, x: Axis, y: Axis, shown: str) -> Chart:
    """Another metric of the second table by bin, such as the coherence or the rank histogram."""
    rows = _thinned(spectra[spectra["metric"] == metric])
    varying = _varying(rows)
    series = []
    for _, row in rows.iterrows():
        place = {key: str(row[key]) for key in ("field", "lead_time", "target")}
        series.append(Series(**_line(row, varying, place), x=row["x"], y=row["y"]))
    choices = _choices(series, "field", "lead_time", "target", *VARIED, field=shown)
    about = f"{y.label} of every method over {x.label}"
    return Chart(about, x, y, series, choices, rows="rate", columns="lead_time")


def _thinned(spectra: pd.DataFrame) -> pd.DataFrame:
    """`mean_spectra` at a few lead times and bins, in order of lead times."""
    times = _spaced(spectra["lead_time"].unique(), MOST_LEAD_TIMES)
    rows = spectra[spectra["lead_time"].isin(times)].sort_values("lead_time", kind="stable")
    most = max(map(len, rows["x"]), default=0)
    bins = np.arange(most)
    if most > MOST_BINS:
        bins = np.unique(np.geomspace(1, most, MOST_BINS).astype(int)) - 1
    x, y = ([values[bins[bins < len(values)]] for values in rows[key]] for key in ("x", "y"))
    return rows.assign(x=x, y=y)


def _spaced(values: np.ndarray, most: int) -> np.ndarray:
    """At most so many of some values, evenly spaced, with the first and the last."""
    values = np.sort(values)
    return values[np.unique(np.linspace(0, len(values) - 1, most).round().astype(int))]


def _printed(system: str, ranges: dict[int, str]) -> list[Series]:
    """The paper's figures against rate, of the ranges (by their first lead time) that are shown."""
    rows = printed(system)
    rows = rows[rows["context"].isna() & (rows["space"] == "latent") & rows["first"].isin(list(ranges))]
    series = []
    for (model, metric, first), group in rows.groupby(["model", "metric", "first"], sort=False):
        keys = {"metric": str(metric), "range": ranges[first], "target": "truth"}
        label = f"Paper: {str(model).replace('_', ' ')}"
        series.append(Series(label, str(model), keys, **_points(group, "compression"), points=True))
    return series


def _groups(tables: pd.DataFrame, x: str) -> Iterable[tuple[dict[str, str], pd.DataFrame]]:
    """The rows of tables that make up a curve over a column, with the curve's place."""
    others = [key for key in METHOD if key != x]
    if x == "solver_steps":
        tables = tables.assign(stepped=tables["solver_steps"] > 0)
        others.append("stepped")
    for keys, rows in tables.groupby(["target", "metric", "range", *others], sort=False):
        yield dict(zip(("target", "metric", "range"), map(str, keys), strict=False)), rows.sort_values(x)


def _varying(methods: pd.DataFrame) -> Varying:
    """The keys in which methods of a model and space differ; rates always distinguish latent spaces."""
    found: Varying = {}
    for (model, space), group in methods.groupby(["model", "space"]):
        keys = {key for key, column in VARIED.items() if key != "rate" and group[column].nunique() > 1}
        found[str(model), str(space)] = keys | ({"rate"} if space == "latent" else set())
    return found


def _line(
    method: Mapping | pd.Series, varying: Varying, place: dict[str, str], *skipped: str
) -> dict[str, Any]:
    """Label, colour, keys and dash of a method's curve; skipped keys are on the axis or in the label."""
    method = dict(method)  # which is read faster than a row of a table
    model = str(method["model"])
    base = model.removesuffix("_ema")
    keys = varying[model, method["space"]] - set(skipped)
    own = {key: f"{method[column]:.4g}" if key == "rate" else str(method[column])
           for key, column in VARIED.items() if key in keys}  # fmt: skip
    guided = f", guided by {method['guidance']}" if method["guidance"] else ""
    emulator = method["space"] == "pixel" and model in kind_titles()
    colour = "guided" if guided else f"{base}-pixel" if emulator else base
    dash = REFERENCE_DASHES.get(base, "5 3" if model != base else "")
    label = name_method(method) + guided
    return {"label": label, "colour": colour, "keys": place | own, "dash": dash}


def count_seeds(counts: Iterable[int]) -> str:
    """What a label says of the numbers of training seeds that its points are means of: nothing of one."""
    low, high = min(counts), max(counts)
    return "" if high == 1 else f", {high} seeds" if low == high else f", {low} to {high} seeds"


def _points(rows: pd.DataFrame, x: str) -> dict[str, Any]:
    bounds = {name: rows[name].to_numpy(float) for name in ("low", "high") if name in rows}
    return {"x": rows[x].to_numpy(float), "y": rows["value"].to_numpy(float)} | bounds


def _axes(names: Sequence[str]) -> dict[str, Axis]:
    return {name: AXES.get(name, Axis(name.replace("_", " "))) for name in names}


def _choices(series: Sequence[Series], *keys: str, **initial: str) -> list[Choice]:
    """The choices among the values of keys that curves have; initially the mean and the most solver steps."""
    choices = []
    for key in dict.fromkeys(keys):
        values = list(dict.fromkeys(one.keys[key] for one in series if key in one.keys))
        if not values:
            continue
        if key in VARIED and key != "sampler":
            values.sort(key=float)
        defaults = {"field": MEAN, "solver_steps": values[-1], "lead_time": values[len(values) // 2]}
        names = list(zip(values, _names(key, values), strict=True))
        label = LABELS.get(key, key.replace("_", " "))
        first = (defaults | initial).get(key, values[0])
        choices.append(Choice(key, label, names, first if first in values else values[0]))
    return choices


def _names(key: str, values: Sequence[str]) -> list[str]:
    """The values of a key for people."""
    if key == "metric":
        return [AXES[value].label if value in AXES else value.replace("_", " ") for value in values]
    if key == "target":
        return [TARGETS[value] for value in values]
    return [f"{value}×" if key == "rate" else value.replace("-", "–").replace("_", " ") for value in values]
