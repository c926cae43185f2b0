"""Figures that survey a sweep, as the paper's Figures 3, 5, 6, 8 and 9."""

from collections.abc import Iterable, Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lola.evaluation.page.figures import (
    LINES,
    MARKERS,
    draw_curve,
    estimates_over_time,
    finest,
    latent_rates,
    name_metric,
    new_panels,
    plain_ticks,
    shared_legend,
    styled,
)
from lola.evaluation.tables.cells import METHOD, RATIO
from lola.evaluation.tables.curves import Curve
from lola.evaluation.tables.lead_times import name_method
from lola.evaluation.tables.paper import printed


@styled
def reconstruction_over_time(curves: Iterable[Curve], metric: str = "vrmse") -> Figure:
    """What compression alone loses over lead time, a line per rate (Figure 3)."""
    found = estimates_over_time(curves, metric)
    found = found[found["model"] == "autoencoder"]
    rates = latent_rates(found)
    figure, (axes,) = new_panels(1)
    for rate, shade, marker in zip(rates, _shades(len(rates)), MARKERS * len(rates), strict=False):
        rows = found[found["compression"] == rate]
        draw_curve(axes, rows["lead_time"], rows, f"{rate:.4g}×", color=shade, marker=marker)
    axes.set(xlabel="lead time (simulation steps)", ylabel=name_metric(metric), yscale="log")
    plain_ticks(axes.yaxis)
    shared_legend(figure, [axes])
    return figure


@styled
def error_over_rate(table: pd.DataFrame, system: str) -> Figure:
    """A metric against compression rate by range of lead times, with the paper's figures (Figure 5).

    Arguments:
        table: A `lead_time_table` of one metric.
        system: The system's name, for the paper's figures.
    """
    names = list(dict.fromkeys(table["range"]))
    figure, panels = new_panels(len(names))
    for axes, name in zip(panels, names, strict=True):
        _draw_rates(axes, finest(table[table["range"] == name]))
        _draw_printed(axes, system, table["metric"].iloc[0], int(name.split("-")[0]))
        axes.set(
            title=f"lead times {name.replace('-', '–')}",
            xlabel="compression rate",
            xscale="log",
            yscale="log",
        )
        plain_ticks(axes.xaxis)
        plain_ticks(axes.yaxis)
    panels[0].set_ylabel(name_metric(table["metric"].iloc[0]))
    shared_legend(figure, panels, columns=4)
    return figure


def _draw_rates(axes: Axes, rows: pd.DataFrame) -> None:
    for (model, space), group in rows.groupby(["model", "space"], sort=False):
        line = LINES[str(model), str(space)]
        label, group = name_method(group.iloc[0]), group.sort_values("compression")
        if space == "latent":
            draw_curve(axes, group["compression"], group, label, **line)
        elif np.isfinite(group["value"].iloc[0]):
            axes.axhline(group["value"].iloc[0], label=label, **line | {"marker": ""})


def _draw_printed(axes: Axes, system: str, metric: str, first: int) -> None:
    figures = printed(system)
    figures = figures[figures["context"].isna() & (figures["metric"] == metric) & (figures["first"] == first)]
    for model, group in figures[figures["space"] == "latent"].groupby("model", sort=False):
        look = {
            "marker": "o",
            "linestyle": "",
            "markerfacecolor": "white",
            "color": LINES[str(model), "latent"]["color"],
        }
        axes.plot(
            group["compression"], group["value"], label=f"Paper: {str(model).replace('_', ' ')}", **look
        )


@styled
def metrics_over_time(curves: Sequence[Curve], names: Sequence[str], target: str = "truth") -> Figure:
    """Metrics over lead time: a row per metric, a column per rate (Figures 8 and 9)."""
    parts = [(name, estimates_over_time(curves, name, target)) for name in names]
    parts = [(name, part) for name, part in parts if len(part)]
    rates = latent_rates(pd.concat([part for _, part in parts], ignore_index=True))
    size = (max(5.5, 3.4 * len(rates)), 2.3 * len(parts) + 0.8)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(parts), len(rates), sharex=True, sharey="row", squeeze=False)
    for row, (name, found) in zip(grid, parts, strict=True):
        for axes, rate in zip(row, rates, strict=True):
            chosen = found[(found["compression"] == rate) | (found["space"] == "pixel")]
            for (model, space, *_), group in chosen.groupby(METHOD, sort=False):
                line = LINES[str(model), str(space)]
                draw_curve(axes, group["lead_time"], group, name_method(group.iloc[0]), **line)
            if name == RATIO:
                axes.axhline(1, color="#4a525c", linewidth=1)
            else:
                axes.set_yscale("log")
                plain_ticks(axes.yaxis)
        row[0].set_ylabel(name_metric(name))
    for axes, rate in zip(grid[0], rates, strict=True):
        axes.set_title(f"{rate:.4g}× compression")
    for axes in grid[-1]:
        axes.set_xlabel("lead time (simulation steps)")
    shared_legend(figure, list(grid.flat), columns=4)
    return figure


def _shades(count: int) -> np.ndarray:
    return matplotlib.colormaps["viridis"](np.linspace(0.1, 0.8, count))
