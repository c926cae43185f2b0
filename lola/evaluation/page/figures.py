"""Pictures of example states, and how pictures are saved; none touches the global state of matplotlib."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from lola.storage.stages import atomic_path

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
DPI = 160
WIDTH, GAP, BAR = 1.75, 0.06, 0.16  # inches: of a picture, between pictures, and of a colour bar


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


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure in the format of the path's suffix (PNG or SVG), to a temporary file that is renamed."""
    # No date and a fixed salt for identifiers: the same figure is the same file.
    metadata = {"Date": None} if path.suffix == ".svg" else None
    with atomic_path(path, durable=False) as tmp_path, matplotlib.rc_context({"svg.hashsalt": path.stem}):
        options: Any = {"dpi": DPI, "facecolor": "white", "metadata": metadata}
        options["bbox_inches"] = figure.get_tightbbox().padded(GAP)  # `tight` would draw it twice
        figure.savefig(tmp_path, format=path.suffix.removeprefix("."), **options)
    return path


class PictureGrid:
    """A grid of pictures with names of rows to the left and titles of columns above, all in one axes.

    Its coordinates are inches from the upper left corner of the first picture, which takes a fraction of the
    time that as many axes take. Names may be of any length: `save_figure` makes room for them.

    Arguments:
        names, titles: Of rows and of columns.
        width, height: Of a picture, in inches.
    """

    @matplotlib.rc_context(STYLE)
    def __init__(self, names: Sequence[str], titles: Sequence[str], width: float, height: float) -> None:
        self.width, self.height = width, height
        self.step = width + GAP, height + GAP
        self.size = len(titles) * self.step[0] - GAP, len(names) * self.step[1] - GAP
        self.figure = Figure(figsize=self.size)
        self.figure.suppressComposite = True  # one picture of all would be drawn again for each
        self.axes = self.figure.add_axes((0, 0, 1, 1), frame_on=False, autoscale_on=False)
        self.axes.set(xlim=(0, self.size[0]), ylim=(-self.size[1], 0), xticks=[], yticks=[])
        for row, name in enumerate(names):
            middle = -row * self.step[1] - height / 2
            self.axes.text(-GAP, middle, name, ha="right", va="center", color=STYLE["axes.labelcolor"])
        for column, title in enumerate(titles):
            self.axes.text(column * self.step[0] + width / 2, GAP, title, ha="center", va="bottom")

    def corner(self, row: int, column: int) -> tuple[float, float]:
        """Left and bottom of a picture."""
        return column * self.step[0], -row * self.step[1] - self.height

    @matplotlib.rc_context(STYLE)
    def add_bar(self, picture: ScalarMappable, first: int, last: int, length: float, **options: Any) -> None:
        """Add a colour bar to the right of some rows, along a part of their height."""
        rows = (last - first) * self.step[1] + self.height
        bottom = self.corner(last, 0)[1] + self.size[1] + rows * (1 - length) / 2
        across, up = self.size
        box = (across + 2 * GAP) / across, bottom / up, BAR / across, rows * length / up
        self.figure.colorbar(picture, cax=self.figure.add_axes(box), **options)


def example_states(example: Example) -> Figure:
    """Pictures of states, a row per method and a column per lead time, on the truth's colour scale."""
    truth = example.rows[0][1]
    low, high = np.nanquantile(truth, [0.005, 0.995])  # NaN outside of the domain, which stays blank
    names, titles = [name for name, _ in example.rows], [f"lead time {time}" for time in example.lead_times]
    grid = PictureGrid(names, titles, WIDTH, WIDTH * truth.shape[-1] / truth.shape[-2])
    style: Any = {"origin": "lower", "cmap": "inferno", "interpolation": "nearest", "aspect": "auto"}
    for row, (_, states) in enumerate(example.rows):
        for column, state in enumerate(states):
            left, bottom = grid.corner(row, column)
            extent = (left, left + grid.width, bottom, bottom + grid.height)
            image = grid.axes.imshow(state.T, vmin=low, vmax=high, extent=extent, **style)
    grid.add_bar(image, 0, len(names) - 1, min(1, 3 / len(names)), extend="both")
    return grid.figure
