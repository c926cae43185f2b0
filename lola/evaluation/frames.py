"""Pictures of simulations: some states of a trajectory, straight from a file of The Well."""

from collections.abc import Sequence
from pathlib import Path

import h5py
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from lola.data.systems import System
from lola.errors import DataError
from lola.evaluation.figures import STYLE


def trajectory_frames(
    path: Path, system: System, index: int = 0, steps: Sequence[int] = (), channels: Sequence[str] = ()
) -> Figure:
    """A row of pictures per channel and a column per state, each row on one scale, at the true coordinates.

    Arguments:
        path: The file.
        system: Its physical system. Channels that it transforms are drawn as logarithms, and of three
            dimensions the middle slice.
        index: The trajectory.
        steps: The states; six of them, evenly spaced, by default.
        channels: The channels; the scalar ones by default.

    Raises:
        DataError: The file cannot be read, or holds no such trajectory, state or channel.
    """
    chosen = tuple(channels) or tuple(field.name for field in system.fields if field.order == 0)
    try:
        with h5py.File(path, "r") as file:
            names = [str(name) for name in file["dimensions"].attrs["spatial_dims"]]
            axes = [np.asarray(file["dimensions"][name]) for name in names]
            times = np.asarray(file["dimensions"]["time"])
            states = tuple(steps) or tuple(np.linspace(0, len(times) - 1, 6).round().astype(int))
            rows = {name: _row(file, system, index, name, states) for name in chosen}
    except (OSError, LookupError, ValueError) as error:
        raise DataError(f"{path} gives no pictures of trajectory {index}: {error}") from None
    with matplotlib.rc_context(STYLE):
        return _draw(rows, axes, [f"t = {times[step]:.3g}" for step in states])


def _row(file: h5py.File, system: System, index: int, channel: str, states: Sequence[int]) -> np.ndarray:
    number = system.channels.index(channel)
    field = next(each for each in system.fields if channel.startswith(each.name))
    values = np.stack([file[f"t{field.order}_fields"][field.name][index, int(step)] for step in states])
    if field.order:
        values = values[..., "xyz".index(channel[-1])]
    if system.dimensions == 3:
        values = values[..., values.shape[-1] // 2]
    return values if system.transforms[number] == "identity" else np.log10(np.maximum(values, 1e-30))


def _draw(rows: dict[str, np.ndarray], axes: Sequence[np.ndarray], titles: Sequence[str]) -> Figure:
    x, y = axes[:2]
    aspect = np.ptp(y) / np.ptp(x)
    size = (2.1 * len(titles) + 1, (2.0 * aspect + 0.3) * len(rows) + 0.3)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(rows), len(titles), squeeze=False, sharex=True, sharey=True)
    for line, (name, values) in zip(grid, rows.items(), strict=True):
        low, high = np.quantile(values, [0.005, 0.995])
        for panel, state in zip(line, values, strict=True):
            picture = panel.pcolormesh(x, y, state.T, vmin=low, vmax=high, cmap="magma", rasterized=True)
            panel.set(xticks=[], yticks=[], aspect="equal")
            panel.grid(visible=False)
        line[0].set_ylabel(name.replace("_", " "))
        figure.colorbar(picture, ax=list(line), fraction=0.03, aspect=12)
    for panel, title in zip(grid[0], titles, strict=True):
        panel.set_title(title)
    return figure
