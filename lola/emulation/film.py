"""Films of an ensemble: the truth where it is known, mean, spread and members of one trajectory, in time.

A field keeps one colour scale throughout, which holds 99 % of its truth, or of the mean where there is none.
The spread, the deviation between members, has a scale from zero of its own. Volumes are shown by their middle
slice along the last axis. States are read one at a time, so that an MP4 needs no more memory than a frame,
and a GIF a byte per pixel of each.
"""

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import imageio.v2 as imageio
import imageio_ffmpeg
import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from PIL import Image
from scipy.spatial import cKDTree

from lola.core.config import prefix_options
from lola.core.errors import DataError, StorageError
from lola.core.waiting import Log, Reminder, describe_progress, progress_reminder
from lola.data.domain import outside
from lola.data.hdf5 import open_hdf5
from lola.data.planes import as_plane, plane_shape
from lola.data.systems import Field, Mask, System
from lola.data.well.attributes import texts
from lola.data.well.fields import location, read_field
from lola.data.well.header import infer_system
from lola.data.well.splits import WellSplit, open_well_file
from lola.emulation.ensembles import Ensemble, read_provenance
from lola.emulation.film_config import DPI, FilmConfig
from lola.storage.remote import AnyPath
from lola.storage.stages import Location, atomic_path

FORMATS = ("mp4", "gif")
STATES, SPREAD = "inferno", "viridis"
SCALE_VALUES = 1_000_000  # at most, that a colour scale is chosen from
PALETTE = {STATES: 128, SPREAD: 96, "gray": 32}
"""Colours of each map among the 256 of a GIF; the greys are for the text and the lines."""


def check_film(config: FilmConfig, ensemble: Ensemble) -> None:
    """Raise `ConfigError` unless a film can show an ensemble that is about to be drawn."""
    split = ensemble.split
    with prefix_options("film."):
        config.check_contents(split.system.channels, len(ensemble.config.trajectories))
        config.frame(plane_shape(split.grid), len(config.columns(ensemble.members, truth=True)))


def film_paths(ensemble: AnyPath) -> list[AnyPath]:
    """The files of an ensemble's films, next to its own."""
    return [ensemble.with_suffix(f".{suffix}") for suffix in FORMATS]


class EnsembleFrames:
    """The states of one trajectory of an ensemble's file, and its truth.

    Arguments:
        file: The open file, as `write_ensemble` makes it.
        config: The selection of fields, members and trajectory.
        truth: The file that the initial states are from, if there is one.

    Raises:
        DataError: The file is no ensemble.
        ConfigError: It has no such trajectory or field.
    """

    def __init__(self, file: h5py.File, system: System, config: FilmConfig, truth: WellSplit | None) -> None:
        if "lola_members" not in file.attrs:
            raise DataError(f"{file.filename} is no ensemble; films are of files that emulate.py writes")
        self.file, self.system, self.truth = file, system, truth
        self.members = int(file.attrs["lola_members"])
        self.steps = read_provenance(file, "steps")
        self.times = np.asarray(file["dimensions/time"])
        trajectories = read_provenance(file, "trajectories")
        config.check_contents(system.channels, len(trajectories))
        self.source, self.place = trajectories[config.trajectory], config.trajectory
        dimensions = file["dimensions"]
        self.grid = tuple(len(dimensions[axis]) for axis in texts(dimensions.attrs["spatial_dims"]))
        self.blank = self._outside()
        self.fields = config.fields or (str(file.attrs.get("lola_shown", system.channels[0])),)

    def _outside(self) -> np.ndarray | None:
        """Which cells of the known states are outside of the domain, with shape `(X, Y)`, if any are."""
        mask = _mask(self.file)
        if mask is None:
            return None
        known = len(self.steps) - 1 if self.file.attrs["lola_backward"] else 0
        values = self._read(Field(mask.field), self.place * self.members, known)[0]
        return as_plane(outside(values, mask), self.system.dimensions)

    def _read(self, field: Field, row: int, number: int) -> np.ndarray:
        """The components of a field in a state of a sample, with shape `(d^order, *grid)`."""
        return read_field(self.file[location(field)], row, slice(number, number + 1), 1, self.grid)[:, 0]

    def _drawn(self, values: np.ndarray) -> np.ndarray:
        """Values `(..., X, Y)`, NaN outside of the domain."""
        return values if self.blank is None else np.where(self.blank, np.nan, values)

    def ensemble(self, name: str, number: int) -> np.ndarray:
        """All members of a channel in a state, with shape `(M, X, Y)`."""
        channel = self.system.channels.index(name)
        first = self.place * self.members
        for field, size in zip(self.system.fields, self.system.sizes, strict=True):
            if channel < size:
                rows = range(first, first + self.members)
                values = np.stack([self._read(field, row, number)[channel] for row in rows])
                return self._drawn(as_plane(values, self.system.dimensions))
            channel -= size
        raise AssertionError("a channel belongs to a field")

    def true(self, name: str, number: int) -> np.ndarray | None:
        """The truth of a channel in a state, with shape `(X, Y)`, if it is known."""
        step = self.steps[number]
        if self.truth is None or not 0 <= step < self.truth.trajectories[self.source].steps:
            return None
        state = self.truth.read(self.source, step, step + 1)[self.system.channels.index(name), 0]
        return self._drawn(as_plane(state.numpy(), self.system.dimensions))

    def scales(self, name: str) -> tuple[float, float, float]:
        """The range that holds 99 % of the values of a channel, and that from zero of its spread."""
        parts: list[np.ndarray] = []
        thinned = math.ceil(math.prod(self.grid) * len(self.steps) / SCALE_VALUES)
        for number in range(len(self.steps)):
            members, true = self.ensemble(name, number), self.true(name, number)
            pair = np.stack([members.mean(axis=0) if true is None else true, members.std(axis=0)])
            parts.append(pair.reshape(2, -1)[:, number % thinned :: thinned])
        values, spread = (each[np.isfinite(each)] for each in np.concatenate(parts, axis=1))
        low, high = np.quantile(values, [0.005, 0.995]) if values.size else (0.0, 1.0)
        low, high = (low, high) if low < high else (low, low + 1.0)
        return float(low), float(high), float(np.quantile(spread, 0.995)) if spread.size else 0.0


def _mask(file: h5py.File) -> Mask | None:
    """The mask of the system of an ensemble, if it has one."""
    if "lola_mask" not in file.attrs:
        return None
    return Mask(str(file.attrs["lola_mask"]), float(file.attrs["lola_outside"]))


class FrameRenderer:
    """The pictures of a frame: a row per field, a column for the truth, mean, spread and each member."""

    def __init__(self, frames: EnsembleFrames, config: FilmConfig) -> None:
        self.frames = frames
        self.columns = config.columns(frames.members, frames.truth is not None)
        shape = frames.ensemble(frames.fields[0], 0).shape[1:]
        self.figure = Figure(config.frame(shape, len(self.columns)), DPI, layout="constrained")
        self.canvas = FigureCanvasAgg(self.figure)
        grid = self.figure.subplots(len(frames.fields), len(self.columns), squeeze=False)
        self.images: dict[tuple[str, str], AxesImage] = {}
        for name, line in zip(frames.fields, grid, strict=True):
            low, high, spread = frames.scales(name)
            for column, axes in zip(self.columns, line, strict=True):
                own = column == "spread"
                image = axes.imshow(
                    np.full(shape[::-1], np.nan),
                    origin="lower",
                    cmap=SPREAD if own else STATES,
                    vmin=0.0 if own else low,
                    vmax=(spread or 1.0) if own else high,
                )
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set_visible(False)
                if own:
                    axes.set_xlabel(f"0 to {spread:.3g}", fontsize=8)
                if name == frames.fields[0]:
                    axes.set_title(column, fontsize=10)
                self.images[name, column] = image
            line[0].set_ylabel(name.replace("_", " "))
            value = next(column for column in self.columns if column != "spread")
            self.figure.colorbar(self.images[name, value], ax=list(line), shrink=0.8, aspect=25)

    def draw(self, number: int) -> np.ndarray:
        """The frame of a state, with shape `(height, width, 3)`, both even, of bytes."""
        frames = self.frames
        for name in frames.fields:
            members = frames.ensemble(name, number)
            pictures = {"truth": frames.true(name, number), "mean": members.mean(axis=0)}
            pictures |= {"spread": members.std(axis=0), "emulated": members[0]}
            pictures |= {f"member {each + 1}": member for each, member in enumerate(members)}
            for column in self.columns:
                picture = pictures[column]
                image = self.images[name, column]
                image.set_data(np.full(members.shape[:0:-1], np.nan) if picture is None else picture.T)
        self.figure.suptitle(f"time {frames.times[number]:.4g}", fontsize=11)
        self.canvas.draw()
        self.figure.set_layout_engine("none")  # pictures keep their places when the title changes
        frame = np.asarray(self.canvas.buffer_rgba())[..., :3]
        return frame[: frame.shape[0] // 2 * 2, : frame.shape[1] // 2 * 2]


def write_film(
    ensemble: AnyPath,
    config: FilmConfig,
    truth: Location | None = None,
    log: Log = lambda _: None,
) -> list[AnyPath]:
    """Write the film of an ensemble as MP4 and GIF next to its file.

    Arguments:
        ensemble: The file, as `write_ensemble` makes it.
        config: The selection of fields, members and trajectory.
        truth: The file with the initial states and those that followed them.
        log: Called with the progress every few seconds.

    Returns:
        The films.

    Raises:
        LolaError: A file is missing or unrecognised, or has no such field or trajectory.
    """
    location: Location = ensemble if isinstance(ensemble, Path) else str(ensemble)
    with open_hdf5(location) as file:
        system = infer_system(location, str(file.attrs["dataset_name"]))
        system = dataclasses.replace(system, mask=_mask(file))
        split = None if truth is None else open_well_file(truth, system)
        frames = EnsembleFrames(file, system, config, split)
        renderer = FrameRenderer(frames, config)
        paths = film_paths(ensemble)
        with contextlib.ExitStack() as stack:
            writers = [stack.enter_context(_writer(path, config.rate)) for path in paths]
            number, total = 0, len(frames.steps)
            drawn = lambda: f"drew {describe_progress(number, total, 'frames', reminder.elapsed)}"  # noqa: E731
            reminder: Reminder = progress_reminder(drawn, log)
            for number in range(total):
                reminder.poll()
                frame = renderer.draw(number)
                for writer in writers:
                    writer.append_data(frame)
    return paths


class GifWriter:
    """Frames of a GIF, which is written when the block ends.

    A palette chosen from the pixels of a frame spends its colours on what covers most of it, so that the
    colour bar and the pictures would lose colours of their map. This palette consists of the colour maps.
    """

    def __init__(self, path: Path, rate: int) -> None:
        self.path, self.rate = path, rate
        self.frames: list[Image.Image] = []
        colours = [colormaps[name](np.linspace(0, 1, count))[:, :3] for name, count in PALETTE.items()]
        self.palette = (255 * np.concatenate(colours)).round().astype(np.uint8)
        self.nearest = cKDTree(self.palette)

    def __enter__(self) -> "GifWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self.frames:
            first, *others = self.frames
            options: Any = {"duration": 1000 / self.rate, "loop": 0}
            first.save(self.path, "GIF", save_all=True, append_images=others, **options)

    def append_data(self, frame: np.ndarray) -> None:
        """Add a frame with shape `(height, width, 3)` of bytes."""
        # Pillow's own search for the nearest colour is a rough one
        packed = frame.astype(np.int32) @ (1 << 16, 1 << 8, 1)
        colours, places = np.unique(packed, return_inverse=True)
        numbers = self.nearest.query(np.stack([colours >> 16, colours >> 8 & 255, colours & 255], 1))[1]
        picture = Image.fromarray(numbers.astype(np.uint8)[places.reshape(packed.shape)], "P")
        picture.putpalette(self.palette.tobytes())
        self.frames.append(picture)


@contextlib.contextmanager
def _writer(path: AnyPath, rate: int) -> Iterator[Any]:
    """A writer of a film, which is renamed to `path` when complete."""
    with atomic_path(path) as tmp_path:
        named = tmp_path.with_name(tmp_path.name + path.suffix)  # imageio chooses the format by the suffix
        try:
            if path.suffix == ".gif":
                with GifWriter(named, rate) as film:
                    yield film
            else:
                options: Any = {"macro_block_size": 2, "ffmpeg_log_level": "quiet"}
                with imageio.get_writer(named, fps=rate, **options) as film:
                    yield film
                _require_complete(named, path)
            named.replace(tmp_path)
        finally:
            named.unlink(missing_ok=True)


def _require_complete(written: Path, path: AnyPath) -> None:
    """Raise `StorageError` unless a film can be read: ffmpeg does not report that a disk is full."""
    try:
        imageio_ffmpeg.count_frames_and_secs(str(written))
    except RuntimeError as error:
        raise StorageError(
            f"{path} could not be written completely; free some space, or write it to another folder"
        ) from error
