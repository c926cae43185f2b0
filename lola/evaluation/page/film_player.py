"""Films of a trajectory for the page's player: frames of truth, prediction and members, packed into pictures.

A frame is one field at one lead time, 8 bits over the range that holds 99 % of the truth; all frames of a row
and field are tiles of one WebP picture. The page colours them, so that it can also show differences from the
truth. Points where the first state of the truth is NaN, outside of the domain, stay blank.
"""

import base64
import dataclasses
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from PIL import Image

SIZE = 128
"""Points along the longest side of a frame at most; finer grids are averaged over blocks."""
FRAMES = 50
"""Frames at most; of more lead times evenly spaced ones are shown."""
COLUMNS = 10
QUALITY = 85


@dataclasses.dataclass(frozen=True)
class Row:
    """What one method makes of a trajectory.

    Arguments:
        name: Its name for people; the truth comes first.
        rate: The compression rate that it belongs to, None if it is shown at every rate.
        states: Fields with shape `(C, L, X, Y)`, x to the right and y upwards.
        scale: `truth` for states, `spread` for deviations, which start at zero.
        method: The method that it belongs to, such as a member to its ensemble; its name if left out.
    """

    name: str
    rate: float | None
    states: np.ndarray
    scale: str = "truth"
    method: str = ""


@dataclasses.dataclass(frozen=True)
class Film:
    """A trajectory as several methods see it.

    Arguments:
        lead_times: Simulation steps since the last context state, with shape `(L,)`.
        rows: The truth, then the methods.
        shown: The field that is shown first.
        limits: The range of each field's colours; those that hold 99 % of the truth if none are given.
    """

    title: str
    fields: Sequence[str]
    lead_times: Sequence[int]
    rows: Sequence[Row]
    shown: str = ""
    limits: np.ndarray | None = None


def pack(film: Film) -> dict[str, Any]:
    """The film as JSON: pictures as data URLs, and what the player must know of them."""
    frames = choose_frames(len(film.lead_times))
    limits = limits_of(film.rows[0].states) if film.limits is None else film.limits
    width, height = shrink(film.rows[0].states[:1, :1]).shape[-2:]
    first = shrink(film.rows[0].states[0, 0])
    blank = np.isnan(first)[None].astype(float)
    rows = []
    for row in film.rows:
        bounds = limits
        if row.scale == "spread":
            bounds = np.stack([np.zeros(len(limits)), np.ptp(limits, axis=1) / 2], axis=1)
        states = shrink(row.states[:, frames])
        sheets = [sheet(field, *bound) for field, bound in zip(states, bounds, strict=True)]
        rate = None if row.rate is None else f"{row.rate:.4g}"
        method = row.method or row.name
        rows.append({"name": row.name, "method": method, "rate": rate, "scale": row.scale, "sheets": sheets})
    return {
        "title": film.title,
        "fields": [name.replace("_", " ") for name in film.fields],
        "shown": film.fields.index(film.shown) if film.shown else 0,
        "limits": [[float(f"{bound:.4g}") for bound in pair] for pair in limits],
        "lead_times": [int(film.lead_times[i]) for i in frames],
        "width": width,
        "height": height,
        "columns": COLUMNS,
        "rows": rows,
        **({"blank": sheet(blank, 0, 1)} if blank.any() else {}),
        "maps": {name: colour_map(name) for name in ("inferno", "RdBu_r")},
    }


def choose_frames(count: int) -> np.ndarray:
    """The frames that are shown of so many lead times."""
    return np.unique(np.linspace(0, count - 1, FRAMES).round().astype(int))


def select_frames(row: Row) -> Row:
    """A row with the frames that the film shows; of states on disk no others are read."""
    frames = choose_frames(row.states.shape[1])
    states = np.stack([shrink(row.states[:, frame]) for frame in frames], 1)
    return dataclasses.replace(row, states=states)


def shrink(states: np.ndarray, size: int = SIZE) -> np.ndarray:
    """Average `(..., X, Y)` over square blocks until no side has more than `size` points."""
    block = math.ceil(max(states.shape[-2:]) / size)
    x, y = (length // block for length in states.shape[-2:])
    cut = states[..., : x * block, : y * block]
    return cut.reshape(*states.shape[:-2], x, block, y, block).mean((-3, -1))


def sheet(frames: np.ndarray, low: float, high: float) -> str:
    """Frames with shape `(L, X, Y)` as tiles of one grey picture, low black and high white, as a data URL."""
    count, width, height = frames.shape
    scaled = (np.nan_to_num(frames, nan=low, posinf=high, neginf=low) - low) / max(high - low, 1e-12)
    tiles = np.zeros((math.ceil(count / COLUMNS) * COLUMNS, height, width), np.uint8)
    tiles[:count] = (255 * scaled.clip(0, 1)).round().swapaxes(1, 2)[:, ::-1]
    grid = tiles.reshape(-1, COLUMNS, height, width).swapaxes(1, 2).reshape(-1, COLUMNS * width)
    file = io.BytesIO()
    Image.fromarray(grid).save(file, "WEBP", quality=QUALITY)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def colour_map(name: str) -> str:
    """The 256 colours of one of matplotlib's maps, six hexadecimal digits each."""
    colours = (255 * colormaps[name](np.linspace(0, 1, 256))[:, :3]).round().astype(int)
    return "".join(f"{r:02x}{g:02x}{b:02x}" for r, g, b in colours)


def limits_of(truth: np.ndarray) -> np.ndarray:
    """The range that holds 99 % of each field of `(C, L, X, Y)`, NaN left out, shape `(C, 2)`."""
    return np.array([np.nanquantile(field, [0.005, 0.995]) for field in truth], float)
