"""Charts as still pictures: Vega-Lite draws PNG and SVG files of what the page's script draws.

A still shows the initial value of every choice, except for the keys that its panels differ in.
"""

import contextlib
import functools
import importlib.resources
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lola.evaluation.page.charts import Axis, Chart, Series, rounded
from lola.models.kinds import kind_colours
from lola.storage.stages import atomic_path

CHILD = Path(__file__).with_name("still_child.py")
ASSETS = importlib.resources.files("lola.evaluation.page") / "assets"
PROCESSES = 2  # that draw charts at once
MOST_COLUMNS = 6
FEW = 5
"""Curves of at most so many points have markers, and axes of at most so many values a tick at each."""
CONFIG: dict[str, Any] = {
    "background": "white",
    "font": "DejaVu Sans, Verdana, sans-serif",
    "view": {"stroke": None},
    "axis": {"gridColor": "#e6e9ed", "domainColor": "#8a929c", "tickColor": "#8a929c", "format": ".6~g"},
    "axisX": {"grid": False},
    "axisY": {"titleFontSize": 10},
    "title": {"anchor": "start", "frame": "group", "fontSize": 12},
    "legend": {"orient": "top", "title": None, "labelLimit": 400, "symbolType": "stroke", "symbolSize": 400},
    "line": {"invalid": "break-paths-show-path-domains"},
    "area": {"invalid": "break-paths-show-path-domains", "opacity": 0.14},
    "point": {"invalid": "filter", "opacity": 1},
    "rule": {"color": "#4a525c", "strokeDash": [2, 2]},
    "text": {"color": "#6a727c", "align": "left", "baseline": "top", "dx": 3},
}

WHISKER: dict[str, Any] = {"type": "rule", "strokeDash": [1, 0], "strokeWidth": 1.5}


class Stills:
    """Charts that other processes draw meanwhile, as an SVG and a PNG file each.

    As a context manager it ends those processes.

    Arguments:
        charts: The charts by the names of their files.
    """

    def __init__(self, charts: Mapping[str, Chart]) -> None:
        found = {name: vega_lite(chart) for name, chart in charts.items()}
        self.drawn = {name: each for name, each in found.items() if each["vconcat"]}
        self.folder = tempfile.TemporaryDirectory()
        self.processes: list[subprocess.Popen] = []

    def _start(self, names: Sequence[str]) -> subprocess.Popen:
        """Start to draw some of the charts."""
        with Path(self.folder.name, f"{names[0]}.txt").open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, "-P", str(CHILD)], stdin=subprocess.PIPE, stderr=errors
            )
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError), process.stdin as pipe:  # `save` says why it ended
            pipe.write(json.dumps([self.folder.name, {name: self.drawn[name] for name in names}]).encode())
        return process

    def save(self, name: str, folder: Path) -> list[Path]:
        """Write the files of a chart, once all are drawn; none if it has no curve that can be drawn.

        Raises:
            RuntimeError: A process failed.
        """
        if name not in self.drawn:
            return []
        if {process.wait() for process in self.processes} != {0}:
            texts = sorted(Path(self.folder.name).glob("*.txt"))
            errors = "".join(path.read_text("utf-8", "replace") for path in texts)
            raise RuntimeError(f"charts cannot be drawn: {errors}")
        written = []
        for suffix in ("svg", "png"):
            written.append(folder / f"{name}.{suffix}")
            with atomic_path(written[-1], durable=False) as tmp_path:
                shutil.copyfile(Path(self.folder.name, f"{name}.{suffix}"), tmp_path)
        return written

    def __enter__(self) -> "Stills":
        names = [*self.drawn]
        try:
            for share in filter(None, (names[i::PROCESSES] for i in range(PROCESSES))):
                self.processes.append(self._start(share))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        self.folder.cleanup()


def vega_lite(chart: Chart) -> dict[str, Any]:
    """The Vega-Lite specification of a still: a grid of panels; those of a row share their vertical range."""
    initial = {choice.key: choice.initial for choice in chart.choices}
    columns = _panel_values(chart, chart.columns)
    few = np.unique(np.linspace(0, len(columns) - 1, MOST_COLUMNS).round().astype(int))
    grid = []
    for row in _panel_values(chart, chart.rows):
        panels = [initial | row | columns[i] for i in few]
        curves = [[one for one in chart.matching(chosen) if np.isfinite(one.y).any()] for chosen in panels]
        if any(curves):
            grid.append((chart.vertical(initial | row), list(zip(panels, curves, strict=True))))
    looks = _looks([one for _, line in grid for _, curves in line for one in curves])
    size = {"width": 260, "height": 200} if len(grid) * len(few) > 1 else {"width": 560, "height": 300}
    rows = []
    for axis, line in grid:
        limits = _limits(axis, [one for _, curves in line for one in curves])
        rows.append([
            {"title": _title(chart, chosen), **size, "layer": _layers(chart.x, axis, limits, curves, looks)}
            for chosen, curves in line
        ])  # fmt: skip
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "config": CONFIG,
        "vconcat": [{"hconcat": row} for row in rows],
    }


def _panel_values(chart: Chart, key: str) -> list[dict[str, str]]:
    """What is chosen in each row or column of panels."""
    options = next((choice.options for choice in chart.choices if choice.key == key), ())
    return [{key: value} for value, _ in options] or [{}]


def _title(chart: Chart, chosen: dict[str, str]) -> str:
    """The values of the keys that panels differ in; the vertical axis names the metric."""
    keys = {chart.rows, chart.columns} - {"metric"}
    choices = [choice for choice in chart.choices if choice.key in keys and len(choice.options) > 1]
    return ", ".join(f"{choice.label} {dict(choice.options)[chosen[choice.key]]}" for choice in choices)


def _limits(axis: Axis, curves: Sequence[Series]) -> list[float]:
    """The range of an axis: that of the curves, or around the truth's, which others may fall far below."""
    truth = [one for one in curves if one.colour == "truth"]
    values = np.concatenate([*(one.y for one in truth or curves), [mark for mark, _ in axis.marks]])
    values = values[np.isfinite(values) & ((values > 0) | (not axis.log))]
    if not len(values):
        return [0.1, 1.0]
    low, high = float(values.min()), float(values.max())
    if truth:
        return [low / 30, high * 30]
    # Intervals may widen the axis, but not by so much that the curves become flat.
    parts = [part for one in curves for part in (one.low, one.high) if part is not None]
    bounds = np.concatenate([*parts, [low, high]])
    bounds = np.clip(bounds[np.isfinite(bounds)], low / 1.3, high * 1.3)
    low, high = float(bounds.min()), float(bounds.max())
    return [low / 1.1, high * 1.1] if axis.log else [min(0.0, low), high * 1.08 or 1.0]


def _looks(curves: Sequence[Series]) -> dict[str, Any]:
    """Colours and dashes by the names of curves, the same in all panels."""
    named = {one.label: one for one in curves}
    ranges = {
        "color": [palette()[one.colour] for one in named.values()],
        "strokeDash": [_dash(one) for one in named.values()],
    }
    legend = {"columns": 4 if max(map(len, named), default=0) < 30 else 2}
    return {
        channel: {"field": "curve", "scale": {"domain": list(named), "range": values}, "legend": legend}
        for channel, values in ranges.items()
    }


def _dash(curve: Series) -> list[int]:
    """Lengths of dashes and gaps in the legend and along the line."""
    dash = "1 4" if curve.points else curve.dash or "1 0"
    return [int(length) for length in dash.split()]


def palette() -> dict[str, str]:
    """The colours of the page on white by name."""
    light = _style().split("@media")[0]
    kinds = {name: colour.light for name, colour in kind_colours().items()}
    return dict(re.findall(r"--c-([\w-]+): (#\w+)", light)) | kinds


@functools.cache
def _style() -> str:
    return (ASSETS / "style.css").read_text("utf-8")


def _layers(
    x: Axis, y: Axis, limits: list[float], curves: Sequence[Series], looks: dict[str, Any]
) -> list[dict[str, Any]]:
    """Marked values, and the bands, lines and points of the curves of a panel."""
    places = np.unique(np.concatenate([one.x for one in curves])).tolist() if curves else []
    ticks = {"axis": {"values": places}} if len(places) <= FEW else {}
    along = {
        "x": {"field": "x", **_channel(x, padding=8), **ticks},
        "y": {"field": "y", **_channel(y, domain=limits)},
    }
    layers = [*_marks("x", x), *_marks("y", y)]
    band = along | {"y": along["y"] | {"field": "low"}, "y2": {"field": "high"}}
    few = [one for one in curves if len(one.x) <= FEW and not (len(one.x) > 1 and np.ptp(one.y) == 0)]
    marks: tuple[tuple[dict[str, Any], dict[str, Any], list[Series]], ...] = (
        ({"type": "area"}, band, [one for one in curves if one.low is not None and len(one.x) > 1]),
        (WHISKER, band, [one for one in curves if one.low is not None and len(one.x) == 1]),
        ({"type": "line"}, along, [one for one in curves if not one.points]),
        ({"type": "point", "filled": True}, along, [one for one in few if not one.points]),
        ({"type": "point"}, along, [one for one in curves if one.points]),
    )
    for mark, encoding, drawn in marks:
        rows = [row for one in drawn for row in _rows(one, y.log)]
        if rows:
            shown = {"color": looks["color"]} if mark["type"] in ("point", "rule") else looks
            layers.append(
                {"data": {"values": rows}, "mark": mark | {"clip": True}, "encoding": encoding | shown}
            )
    # Vega refuses a panel without layers, such as that of a lead time without finite values
    empty = {"data": {"values": [{}]}, "mark": {"type": "text", "text": "no finite value"}}
    return layers or [empty | {"encoding": {"x": {"value": 0}, "y": {"value": 0}}}]


def _marks(channel: str, axis: Axis) -> Iterator[dict[str, Any]]:
    """Lines across a panel at the marked values of an axis, with their names."""
    for value, name in axis.marks:
        place = {channel: {"datum": value, **_channel(axis)}}
        yield {"data": {"values": [{}]}, "mark": "rule", "encoding": place}
        if name:
            other = {"y": {"value": 0}} if channel == "x" else {"x": {"value": 0}}
            yield {
                "data": {"values": [{}]},
                "mark": {"type": "text", "text": name},
                "encoding": place | other,
            }


def _channel(axis: Axis, **scale: Any) -> dict[str, Any]:
    kind: dict[str, Any] = {"type": "log"} if axis.log else {"zero": False}
    return {"type": "quantitative", "title": axis.label, "scale": kind | {"nice": False} | scale}


def _rows(curve: Series, log: bool) -> list[dict[str, Any]]:
    """A row per point; coordinates that have no place on the vertical axis are null."""
    columns = {"y": curve.y}
    if curve.low is not None and curve.high is not None:
        columns |= {"low": curve.low, "high": curve.high}
    found = {
        name: rounded(np.where(values > 0, values, np.nan) if log else values)
        for name, values in columns.items()
    }
    found["x"] = rounded(curve.x)
    return [
        {"curve": curve.label, **dict(zip(found, row, strict=True))}
        for row in zip(*found.values(), strict=True)
    ]
