"""Pictures of simulations: some states of a trajectory, as they are in the files."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lola.data.domain import inside
from lola.data.planes import as_plane
from lola.data.well.splits import WellSplit
from lola.evaluation.page.figures import WIDTH, PictureGrid
from lola.evaluation.page.film_player import shrink
from lola.evaluation.page.page import Section

FRAMES = 6
SIZE = 256
"""Points along the longest side of a picture at most; finer grids are averaged over blocks."""


def trajectory_frames(split: WellSplit) -> Figure:
    """The scalar fields of the first trajectory in rows, evenly spaced states in columns.

    Each row has one scale and the true coordinates. Fields that their system transforms are drawn as
    logarithms, and of three dimensions the middle slice.

    Raises:
        DataError: The file cannot be read.
        StorageError: The file cannot be reached.
    """
    system = split.system
    shown = np.linspace(0, split.trajectories[0].steps - 1, FRAMES).round().astype(int).tolist()
    names = [field.name for field in system.fields if field.order == 0 and field.role != "scalar"]
    names = names or [system.channels[number] for number in system.evolving]
    numbers = [system.channels.index(name) for name in names]
    read = [split.read(0, step, step + 1) for step in shown]
    states = np.stack([x[numbers, 0].numpy() for x in read], axis=1)
    valid = inside(read[0], system)
    states = states if valid is None else np.where(valid[0, 0].numpy(), states, np.nan)
    states = as_plane(states, system.dimensions)
    rows = {}
    for name, number, values in zip(names, numbers, states, strict=True):
        match system.transforms[number]:
            case "identity":
                rows[name.replace("_", " ")] = values
            case "arcsinh":  # of both signs
                rows[f"arcsinh {name}"] = np.arcsinh(values)
            case _:
                rows[f"log10 {name}"] = np.log10(np.maximum(values, 1e-30))
    times = split.axis(0, "time")
    rows = {name: shrink(values, SIZE) for name, values in rows.items()}
    axes = [_shrunk(axis, split.grid[:2]) for axis in split.coordinates[:2]]
    return _draw(rows, axes, [f"t = {times[step]:.3g}" for step in shown])


def simulation_section(split: WellSplit) -> Section:
    """A part of a page: pictures of the first trajectory of a split, of two grid axes or three.

    Raises:
        DataError: A file is corrupt or unrecognised.
        StorageError: A file cannot be reached.
    """
    system = split.system
    about = ", ".join(
        f"{name} = {value:.4g}"
        for name, value in zip(split.constants, split.trajectories[0].scalars, strict=True)
    )
    slices = "; the middle slice" if system.dimensions == 3 else ""
    return Section(
        f"simulation_{system.name}",
        f"Simulation: {system.name.replace('_', ' ')}",
        f"{split.trajectories[0].id}{about and ', '}{about}: states of the simulation in physical units "
        f"and true proportions; logarithms of the fields that networks see as logarithms{slices}.",
        trajectory_frames(split),
    )


def _shrunk(axis: np.ndarray, grid: Sequence[int]) -> np.ndarray:
    """The coordinates of a picture's points along an axis."""
    block = math.ceil(max(grid) / SIZE)
    return axis[: len(axis) // block * block].reshape(-1, block).mean(1)


def _draw(rows: dict[str, np.ndarray], axes: Sequence[np.ndarray], titles: Sequence[str]) -> Figure:
    x, y = map(_edges, axes)
    grid = PictureGrid(list(rows), titles, WIDTH, WIDTH * np.ptp(y) / np.ptp(x))
    inches = grid.width / np.ptp(x)
    for row, values in enumerate(rows.values()):
        low, high = np.nanquantile(values, [0.005, 0.995])
        style: Any = {"vmin": low, "vmax": high, "cmap": "magma", "rasterized": True}
        for column, state in enumerate(values):
            left, bottom = grid.corner(row, column)
            place = left + inches * (x - x.min()), bottom + inches * (y - y.min())
            picture = grid.axes.pcolormesh(*place, state.T, **style)
        grid.add_bar(picture, row, row, 1)
    return grid.figure


def _edges(centres: np.ndarray) -> np.ndarray:
    """The edges of the cells around coordinates."""
    between = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([2 * centres[:1] - between[:1], between, 2 * centres[-1:] - between[-1:]])
