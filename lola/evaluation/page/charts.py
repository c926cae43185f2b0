"""Descriptions of charts: what the page's script draws, and Vega-Lite for still pictures, as data.

A chart is a set of curves with keys, and choices among the values of these keys: those curves are drawn whose
keys agree with what is chosen. A curve without a key is always drawn.
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Axis:
    """An axis of a chart: its label, whether it is logarithmic, and values with names that lines mark."""

    label: str
    log: bool = False
    marks: Sequence[tuple[float, str]] = ()


@dataclasses.dataclass(frozen=True)
class Choice:
    """A choice among values of a key, each with a name for people, and the value that is chosen at first."""

    key: str
    label: str
    options: Sequence[tuple[str, str]]
    initial: str


@dataclasses.dataclass(frozen=True)
class Series:
    """A curve.

    Arguments:
        label: Its name in the legend.
        colour: A colour of the page: a model's, or `shade-0` to `shade-5`.
        keys: What must be chosen for it to be drawn.
        x, y: Coordinates with shape `(n,)`; what is not finite is left out.
        low, high: The interval, if it has one.
        dash: Lines and gaps as SVG has them, empty for a solid line.
        points: Whether points stand alone, without a line.
    """

    label: str
    colour: str
    keys: dict[str, str]
    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    dash: str = ""
    points: bool = False


@dataclasses.dataclass(frozen=True)
class Chart:
    """A chart.

    Arguments:
        about: What it shows, for those who cannot see it.
        y: The vertical axis, or one for each value of the key `metric`.
        choices: What can be chosen; a choice of less than two values is not offered.
        rows, columns: Keys of choices that the panels of a still picture differ in.
    """

    about: str
    x: Axis
    y: Axis | dict[str, Axis]
    series: Sequence[Series]
    choices: Sequence[Choice] = ()
    rows: str = ""
    columns: str = ""

    def matching(self, chosen: Mapping[str, str]) -> list[Series]:
        """The curves whose keys agree with chosen values."""
        return [
            one for one in self.series if all(chosen.get(key, own) == own for key, own in one.keys.items())
        ]

    def vertical(self, chosen: Mapping[str, str]) -> Axis:
        return self.y[chosen["metric"]] if isinstance(self.y, dict) else self.y


def charts_json(charts: dict[str, Chart]) -> str:
    """Charts by name as JSON that may stand in a script element; numbers have four digits."""
    return script_json({name: _chart(chart) for name, chart in charts.items()})


def script_json(value: Any) -> str:
    """JSON that may stand in a script element."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _chart(chart: Chart) -> dict[str, Any]:
    axes = chart.y if isinstance(chart.y, dict) else {"": chart.y}
    grids: list[list[float | None]] = []
    series = [_series(one, grids) for one in chart.series]
    return {
        "about": chart.about,
        "x": dataclasses.asdict(chart.x),
        "y": {metric: dataclasses.asdict(axis) for metric, axis in axes.items()},
        "grids": grids,
        "series": series,
        "choices": [dataclasses.asdict(one) for one in chart.choices if len(one.options) > 1],
    }


def _series(series: Series, grids: list[list[float | None]]) -> dict[str, Any]:
    """A curve as JSON; coordinates are kept once for all curves that share them."""
    x = rounded(series.x)
    if x not in grids:
        grids.append(x)
    known = {"label": series.label, "colour": series.colour, "keys": series.keys, "x": grids.index(x)}
    parts = {"y": series.y, "low": series.low, "high": series.high}
    known |= {
        name: rounded(part) for name, part in parts.items() if part is not None and np.isfinite(part).any()
    }
    return (
        known | ({"dash": series.dash} if series.dash else {}) | ({"points": True} if series.points else {})
    )


def rounded(values: np.ndarray) -> list[float | None]:
    """Numbers with four digits, None where they are not finite."""
    numbers = np.asarray(values, float).tolist()
    return [float(f"{number:.4g}") if math.isfinite(number) else None for number in numbers]
