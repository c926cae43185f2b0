"""Accuracy against cost, as a chart and a table: what tells a user which method to choose."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from lola.evaluation.page.charts import Axis, Chart, Choice, Series
from lola.evaluation.page.page import Section
from lola.evaluation.page.sweep_charts import AXES, REFERENCE_DASHES, count_seeds
from lola.evaluation.tables.aggregates import WHOLE, Aggregates
from lola.evaluation.tables.cost_table import COSTS, add_costs, cost_table, pareto
from lola.evaluation.tables.lead_times import REFERENCES, name_method, name_range
from lola.evaluation.tables.speed import Timing

METRICS = {"crps_relative": "CRPS / deviation", "vrmse": "VRMSE", "energy_block_relative": "energy score"}
BASELINES = ("climatology", "persistence")
FRONT = "Pareto front: none is both cheaper and more accurate"
DASHES = ("", "6 3", "2 3", "10 3 2 3")
"""Of compression rates, which the label names as well."""


def cost_sections(scores: Aggregates, timings: Sequence[Timing]) -> Iterator[Section]:
    """Accuracy against seconds per state, and against minutes of training."""
    table = scores.main.estimates
    table = table[(table["target"] == "truth") & table["metric"].isin(METRICS)]
    costs = add_costs(table, timings)
    known = [metric for metric in METRICS if (costs["metric"] == metric).any()]
    if not known:
        return
    whole = table[table["range"] == name_range(WHOLE)]
    names = {metric: METRICS[metric] for metric in known}
    yield Section(
        "cost",
        "Accuracy against cost",
        "Towards the lower left are methods that are accurate and fast. Seconds are of all members of an "
        "ensemble, which its scores need; a line joins the numbers of solver steps of one model. The table "
        "is over all lead times.",
        chart=cost_chart(table, costs, "seconds", known),
        plain=cost_table(whole, timings, names),
        note="Training: minutes of an emulator's training steps, as long as they took with its workers, with "
        "those of every model that its weights started from; without start-up and validation. Autoencoder: "
        "likewise, of the autoencoder that all emulators of a rate share. Pareto front: no other emulator "
        f"has a smaller {METRICS[known[0]]} at the same cost or less, where training is the sum of both; "
        "differences within intervals may be chance.",
    )
    if costs["minutes"].notna().any():
        yield Section(
            "cost_training",
            "",
            "The same against minutes of training, those of the autoencoder and of the models that an "
            "emulator started from included.",
            chart=cost_chart(table, costs.dropna(subset="minutes"), "minutes", known),
        )


def cost_chart(table: pd.DataFrame, costs: pd.DataFrame, cost: str, metrics: Sequence[str]) -> Chart:
    """Errors against a cost by metric and range of lead times, with the Pareto fronts and baselines.

    Arguments:
        table: Rows of estimates, of which baselines are taken.
        costs: What `add_costs` gave.
        cost: Its column, such as `seconds`.
    """
    rates = sorted(costs.loc[costs["space"] == "latent", "compression"].unique())
    ranges = list(dict.fromkeys([name_range(WHOLE), *costs["range"]]))
    ranges = [name for name in ranges if (costs["range"] == name).any()]
    span = np.array([costs[cost].min(), costs[cost].max()])
    series = []
    for metric in metrics:
        for where in ranges:
            keys = {"metric": metric, "range": where}
            rows = costs[(costs["metric"] == metric) & (costs["range"] == where)]
            front = rows[pareto(rows[cost].to_numpy(float), rows["value"].to_numpy(float))].sort_values(cost)
            x, y = (front[name].to_numpy(float) for name in (cost, "value"))
            series.append(Series(FRONT, "front", keys, x, y))
            base = table[(table["metric"] == metric) & (table["range"] == where)]
            for model in BASELINES:
                level = base.loc[base["model"] == model, "value"].min()
                if np.isfinite(level):
                    looks = (REFERENCES[model], model, keys)
                    series.append(Series(*looks, span, np.full(2, level), dash=REFERENCE_DASHES[model]))
            for _, points in rows.groupby(["model", "space", "compression"], sort=False):
                series.append(_points(points.sort_values("solver_steps"), cost, keys, rates))
    return Chart(
        f"Errors of emulators against {COSTS[cost]}, with 95 % intervals",
        Axis(COSTS[cost], log=True),
        {metric: AXES[metric] for metric in metrics},
        series,
        [
            Choice("metric", "metric", [(name, METRICS[name]) for name in metrics], metrics[0]),
            Choice("range", "lead times", [(name, name.replace("-", "–")) for name in ranges], ranges[0]),
        ],
        columns="range",
    )


def _points(rows: pd.DataFrame, cost: str, keys: dict[str, str], rates: Sequence[float]) -> Series:
    """The points of one model at all its numbers of solver steps."""
    row = rows.iloc[0]
    base, latent = str(row["model"]).removesuffix("_ema"), row["space"] == "latent"
    label = name_method(row) + (f" {row['compression']:.4g}×" if latent else "") + count_seeds(rows["seeds"])
    number = rates.index(row["compression"]) if latent else 0
    hollow = len(rows) == 1 and number % 2 == 1  # a single point has no line to tell rates apart by
    x, y, low, high = (rows[name].to_numpy(float) for name in (cost, "value", "low", "high"))
    return Series(
        label,
        base if latent else f"{base}-pixel",
        keys,
        x,
        y,
        low,
        high,
        DASHES[number % len(DASHES)],
        hollow,
    )
