"""Figures of the tidy tables and of example states.

Colours are those of Okabe and Ito, which colour-blind readers can tell apart; methods differ in their lines
and markers as well. No figure touches the global state of matplotlib.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from lola.evaluation.scores.spectra import BANDS, band_limits
from lola.evaluation.tables.cells import METHOD, RATIO
from lola.evaluation.tables.curves import MEAN, Curve
from lola.evaluation.tables.lead_times import EMULATORS, in_order, name_method
from lola.storage.stages import atomic_path

P = ParamSpec("P")

STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.edgecolor": "#8a929c",
    "grid.color": "#e6e9ed",
    "grid.linewidth": 0.8,
    "xtick.color": "#4a525c",
    "ytick.color": "#4a525c",
    "axes.labelcolor": "#2b3138",
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "legend.frameon": False,
}
LINES: dict[tuple[str, str], dict[str, Any]] = {
    ("persistence", "pixel"): {"color": "#8a929c", "linestyle": (0, (1, 1.5))},
    ("autoencoder", "latent"): {"color": "#009e73", "linestyle": (0, (5, 2))},
    ("neural_solver", "pixel"): {"color": "#cc79a7", "linestyle": (0, (4, 1.5, 1, 1.5)), "marker": "s"},
    ("neural_solver", "latent"): {"color": "#d55e00", "linestyle": "-", "marker": "^"},
    ("diffusion", "pixel"): {"color": "#56b4e9", "linestyle": "-", "marker": "D"},
    ("diffusion", "latent"): {"color": "#0072b2", "linestyle": "-", "marker": "o"},
}
# Averaged weights are drawn as the others are, lighter and thinner.
LINES |= {
    (f"{model}_ema", space): line | {"linewidth": 1.0, "alpha": 0.7, "markerfacecolor": "white"}
    for (model, space), line in LINES.items()
    if model != "persistence"
}
MARKERS = "osD^vP"
COLOURS = ("#8a929c", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9")
DPI = 160


@dataclasses.dataclass(frozen=True)
class Example:
    """One trajectory as several methods see it.

    Arguments:
        title: Which trajectory and field.
        rows: A name and a field with shape `(L, X, Y)` for each row of pictures, the truth first, x to the
            right and y upwards; of a field in three dimensions, a slice.
        lead_times: Simulation steps since the last context state, with shape `(L,)`.
    """

    title: str
    rows: Sequence[tuple[str, np.ndarray]]
    lead_times: Sequence[int]


def save(figure: Figure, path: Path) -> Path:
    """Write a figure in the format of the path's ending (PNG or SVG), aside, then renamed."""
    # Without a date and with named marks, the same figure is the same file.
    metadata = {"Date": None} if path.suffix == ".svg" else None
    with atomic_path(path, durable=False) as tmp_path, matplotlib.rc_context({"svg.hashsalt": path.stem}):
        options: Any = {"dpi": DPI, "facecolor": "white", "metadata": metadata}
        figure.savefig(tmp_path, format=path.suffix.removeprefix("."), **options)
    figure.set_layout_engine("none")  # it is laid out: the next format need not do so again
    return path


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw with the style of this module, and leave the global one as it is."""

    @functools.wraps(draw)
    def drawn(*arguments: P.args, **options: P.kwargs) -> Figure:
        with matplotlib.rc_context(STYLE):
            return draw(*arguments, **options)

    return drawn


def new_panels(count: int, *, height: float = 3.4, sharey: bool = True) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(max(5.5, 3.6 * count), height), layout="constrained")
    return figure, list(figure.subplots(1, count, sharey=sharey, squeeze=False)[0])


def estimates_over_time(curves: Iterable[Curve], metric: str, target: str = "truth") -> pd.DataFrame:
    """Estimates at every lead time, averaged over fields; of each diffusion model the finest solver."""
    parts = [
        pd.DataFrame(
            {"lead_time": curve.lead_times, "value": curve.value, "low": curve.low, "high": curve.high}
        ).assign(**curve.method)
        for curve in curves
        if (curve.metric, curve.target, curve.field) == (metric, target, MEAN)
    ]
    empty = pd.DataFrame(columns=[*METHOD, "lead_time", "value", "low", "high"])
    return finest(in_order(pd.concat(parts, ignore_index=True))) if parts else empty


def finest(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of the most solver steps of each model and rate."""
    most = frame.groupby(["model", "space", "compression"])["solver_steps"].transform("max")
    return frame[frame["solver_steps"] == most]


def latent_rates(frame: pd.DataFrame) -> list[float]:
    """The compression rates in latent space, or the pixel space alone."""
    return sorted(frame.loc[frame["space"] == "latent", "compression"].unique()) or [1.0]


def at_rate(frame: pd.DataFrame, rate: float) -> Iterable[tuple[pd.Series, pd.DataFrame]]:
    """The methods of a rate, and those in pixel space beside them."""
    chosen = frame[(frame["compression"] == rate) | (frame["space"] == "pixel")]
    for _, group in chosen.groupby(METHOD, sort=False):
        yield group.iloc[0], group


def draw_curve(axes: Axes, x: pd.Series, rows: pd.DataFrame, label: str, **line) -> None:
    """A curve with its confidence band; it breaks off where the method is unstable."""
    value = rows["value"].where(np.isfinite(rows["value"]))
    if np.isfinite(value).any():
        axes.plot(x, value, label=label, markevery=max(1, len(x) // 6), **line)
        axes.fill_between(x, rows["low"], rows["high"], color=line["color"], alpha=0.15, linewidth=0)


def plain_ticks(axis: Axis) -> None:
    """Ticks of a logarithmic axis as 0.1, 0.2, 0.5 rather than powers."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def shared_legend(figure: Figure, panels: Sequence[Axes], columns: int = 5) -> None:
    """One legend for all panels, above them."""
    entries: dict = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    figure.legend(entries.values(), entries.keys(), loc="outside upper left", ncols=columns)


def name_metric(metric: str) -> str:
    """A metric's name on an axis."""
    names = {"vrmse": "VRMSE", "crps": "CRPS", RATIO: "spread / skill"}
    return names.get(metric, metric.replace("spectrum_rmse", "power,").replace("_", " "))


@styled
def error_over_lead_time(curves: Iterable[Curve], metric: str = "vrmse", target: str = "truth") -> Figure:
    """A metric over lead time, a panel per compression rate, with 95 % confidence bands."""
    found = estimates_over_time(curves, metric, target)
    rates = latent_rates(found)
    figure, panels = new_panels(len(rates))
    for axes, rate in zip(panels, rates, strict=True):
        for method, group in at_rate(found, rate):
            line = LINES[method["model"], method["space"]]
            draw_curve(axes, group["lead_time"], group, name_method(method), **line)
        axes.set(title=f"{rate:.4g}× compression", xlabel="lead time (simulation steps)", yscale="log")
        plain_ticks(axes.yaxis)
    panels[0].set_ylabel(name_metric(metric))
    shared_legend(figure, panels)
    return figure


@styled
def guidance_over_lead_time(curves: Iterable[Curve], metric: str = "vrmse") -> Figure:
    """A metric of diffusion models with and without observations over lead time, a panel per rate."""
    found = estimates_over_time(curves, metric)
    found = found[found["model"] == "diffusion"]
    names = sorted(found["guidance"].unique())
    rates = latent_rates(found)
    figure, panels = new_panels(len(rates))
    for axes, rate in zip(panels, rates, strict=True):
        for name, colour, marker in zip(names, COLOURS[1:], MARKERS, strict=False):
            rows = found[(found["compression"] == rate) & (found["guidance"] == name)]
            label = name or "Without observations"
            draw_curve(axes, rows["lead_time"], rows, label, color=colour, marker=marker)
        axes.set(title=f"{rate:.4g}× compression", xlabel="lead time (simulation steps)")
        axes.set_ylim(bottom=0)
    panels[0].set_ylabel(name_metric(metric))
    shared_legend(figure, panels)
    return figure


@styled
def spread_skill_over_lead_time(curves: Iterable[Curve]) -> Figure:
    """The spread-skill ratio of every ensemble over lead time; a calibrated one lies at 1."""
    found = estimates_over_time(curves, RATIO)
    figure, (axes,) = new_panels(1)
    figure.set_figwidth(7.2)
    axes.axhline(1, color="#4a525c", linewidth=1.2)
    methods = list(found.groupby(METHOD, sort=False))
    shades = matplotlib.colormaps["viridis"](np.linspace(0.1, 0.8, len(methods)))
    for (_, group), shade, marker in zip(methods, shades, MARKERS * len(methods), strict=False):
        rate = f" {group['compression'].iloc[0]:.4g}×" if group["space"].iloc[0] == "latent" else ""
        draw_curve(
            axes, group["lead_time"], group, name_method(group.iloc[0]) + rate, color=shade, marker=marker
        )
    axes.set(xlabel="lead time (simulation steps)", ylabel="spread / skill")
    axes.set_ylim(0, max(1.25, axes.get_ylim()[1]))
    shared_legend(figure, [axes], columns=4)
    return figure


@styled
def spectra_at(spectra: pd.DataFrame, field: str, lead_times: Sequence[int]) -> Figure:
    """The power spectrum of a field, truth and methods, a row per rate and a column per lead time.

    Arguments:
        spectra: `mean_spectra`.
        field: The field.
        lead_times: Simulation steps since the last context state.
    """
    chosen = (spectra["field"] == field) & spectra["lead_time"].isin(lead_times)
    chosen &= (spectra["target"] == "truth") & (spectra["model"] != "persistence")
    mean = finest(spectra[chosen & spectra["metric"].isin(["power_truth", "power_prediction"])])
    rates = latent_rates(mean)
    size = (max(5.5, 3.6 * len(lead_times)), 2.6 * len(rates) + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(rates), len(lead_times), sharex=True, sharey=True, squeeze=False)
    for row, rate in zip(grid, rates, strict=True):
        for axes, time in zip(row, lead_times, strict=True):
            _draw_spectra(axes, at_rate(mean[mean["lead_time"] == time], rate))
            axes.set_title(f"{rate:.4g}×, lead time {time}")
        row[0].set_ylabel("power")
    for axes in grid[-1]:
        axes.set_xlabel("wavenumber (cycles per pixel)")
        plain_ticks(axes.xaxis)
    shared_legend(figure, list(grid.flat))
    return figure


def _draw_spectra(axes: Axes, methods: Iterable[tuple[pd.Series, pd.DataFrame]]) -> None:
    truth = None
    for method, group in methods:
        parts = group.set_index("metric")
        prediction, truth = parts.loc["power_prediction"], parts.loc["power_truth"]
        line = {"linewidth": 1.6} | LINES[method["model"], method["space"]] | {"marker": ""}
        power = np.where(np.isfinite(prediction["y"]), prediction["y"], np.nan)
        axes.plot(prediction["x"], power, label=name_method(method), **line)
    axes.set(xscale="log", yscale="log")
    if truth is None or not len(truth["x"]):
        return
    axes.plot(truth["x"], truth["y"], color="#1b1f24", linewidth=1.1, label="Truth", zorder=3)
    # Methods that lose fine scales fall far below the truth, whose range is what matters.
    axes.set_ylim(truth["y"].min() / 30, truth["y"].max() * 30)
    edges = band_limits(truth["x"].min())
    for edge in edges[1:]:
        axes.axvline(edge, color="#b9c0c8", linewidth=0.8, linestyle=(0, (2, 2)))
    for name, left in zip(BANDS, edges, strict=True):
        place: Any = {"transform": axes.get_xaxis_transform(), "verticalalignment": "top"}
        axes.text(left * 1.06, 0.98, name, fontsize=8, color="#6a727c", **place)


@styled
def accuracy_over_steps(table: pd.DataFrame) -> Figure:
    """The metric of a `lead_time_table` of diffusion models against solver steps, beside neural solvers."""
    names = list(dict.fromkeys(table["range"]))
    latent = table[(table["space"] == "latent") & table["model"].isin(EMULATORS)]
    rates = latent_rates(latent)
    shades = matplotlib.colormaps["viridis"](np.linspace(0.1, 0.8, len(rates)))
    figure, panels = new_panels(len(names), sharey=False)
    for axes, name in zip(panels, names, strict=True):
        for rate, shade, marker in zip(rates, shades, MARKERS * len(rates), strict=False):
            rows = latent[(latent["compression"] == rate) & (latent["range"] == name)]
            rows = rows[np.isfinite(rows["value"])]
            sampled, one = rows[rows["model"] == "diffusion"], rows[rows["model"] == "neural_solver"]
            line = {"color": shade, "marker": marker}
            draw_curve(axes, sampled["solver_steps"], sampled, f"Diffusion {rate:.4g}×", **line)
            for value in one["value"]:
                label = f"Neural solver {rate:.4g}×"
                axes.axhline(value, color=shade, linestyle=(0, (4, 2)), linewidth=1.2, label=label)
        steps = sorted(latent.loc[latent["solver_steps"] > 0, "solver_steps"].unique())
        axes.set(title=f"lead times {name.replace('-', '–')}", xlabel="solver steps", xscale="log")
        axes.set_xticks(steps, [str(step) for step in steps])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
    panels[0].set_ylabel(name_metric(table["metric"].iloc[0]))
    shared_legend(figure, panels, columns=len(rates))
    return figure


@styled
def training_curves(curves: pd.DataFrame, x: str, label: str) -> Figure:
    """Losses of every arm of a study against a column of its curves: means and ranges over seeds."""
    figure, panels = new_panels(2, height=3.8)
    figure.set_figwidth(10)
    for axes, metric, title in zip(
        panels, ("train_loss", "valid_loss"), ("Training", "Validation"), strict=True
    ):
        arms = list(curves.groupby("arm", sort=False))
        for i, (arm, group) in enumerate(arms):
            place, losses = (group.pivot(index="step", columns="seed", values=name) for name in (x, metric))
            rows = pd.DataFrame(
                {
                    "value": losses.mean(axis=1, skipna=False),
                    "low": losses.min(axis=1, skipna=False),
                    "high": losses.max(axis=1, skipna=False),
                }
            )
            line = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}
            draw_curve(axes, place.mean(axis=1), rows, str(arm), **line)
        axes.set(title=title, xlabel=label, yscale="log")
        plain_ticks(axes.yaxis)
    panels[0].set_ylabel("loss")
    shared_legend(figure, panels)
    return figure


@styled
def example_states(example: Example) -> Figure:
    """Pictures of states, a row per method and a column per lead time, on the truth's colour scale."""
    rows, columns = len(example.rows), len(example.lead_times)
    truth = example.rows[0][1]
    low, high = np.quantile(truth, [0.005, 0.995])
    aspect = truth.shape[-1] / truth.shape[-2]
    layout = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0, hspace=0, compress=True)
    figure = Figure(figsize=(1.75 * columns + 2.6, 1.75 * rows * aspect + 0.5), layout=layout)
    grid = figure.subplots(rows, columns, squeeze=False)
    style = {"origin": "lower", "cmap": "inferno", "interpolation": "nearest"}
    for line, (name, states) in zip(grid, example.rows, strict=True):
        for axes, state in zip(line, states, strict=True):
            image = axes.imshow(state.T, vmin=low, vmax=high, **style)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
    for axes, time in zip(grid[0], example.lead_times, strict=True):
        axes.set_title(f"lead time {time}", loc="center", fontsize=10, fontweight="normal")
    figure.colorbar(image, ax=grid, shrink=0.6, aspect=30, extend="both")
    return figure
