"""Pictures of example states, and how pictures are saved; none touches the global state of matplotlib."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

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
        figure.savefig(tmp_path, format=path.suffix.removeprefix("."), **options)
    figure.set_layout_engine("none")  # it is laid out: the next format need not do so again
    return path


@matplotlib.rc_context(STYLE)
def example_states(example: Example) -> Figure:
    """Pictures of states, a row per method and a column per lead time, on the truth's colour scale."""
    rows, columns = len(example.rows), len(example.lead_times)
    truth = example.rows[0][1]
    low, high = np.nanquantile(truth, [0.005, 0.995])  # NaN outside of the domain, which stays blank
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
