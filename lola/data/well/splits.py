"""Reading The Well: the trajectories of a split.

A trajectory is an array `(C, L, *grid)` of `L` states with the system's channels, vectors split into
components. Only the slice of the file that is asked for is read.
"""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from lola.core.config import fingerprint
from lola.core.errors import DataError, LolaError
from lola.data.augment import Augmentation, draw_symmetry
from lola.data.casting import field_error
from lola.data.domain import fill, outside
from lola.data.geometry import AxisKind, infer_axis
from lola.data.hdf5 import file_name, missing_filter, open_cached
from lola.data.hdf5_check import check_hdf5
from lola.data.systems import Symmetries, System
from lola.data.well.contiguous import is_contiguous, read_contiguous
from lola.data.well.fields import location, read_axis, read_field, varies
from lola.data.well.header import CARTESIAN, Header, read_header
from lola.data.well.selection import advising, is_excluded, names_trajectory, split_files
from lola.storage.integrity import DECODE_ERRORS
from lola.storage.remote import first_line
from lola.storage.stages import Location

ANOTHER_FILE = "name another file or trajectory"
READ_BYTES = 2**24  # of a field, as it is stored, at once


@dataclasses.dataclass(frozen=True, eq=False)
class TrajectoryRef:
    """Where a trajectory is."""

    id: str  # `<dataset>/<split>/<file>#<index>`, the same wherever the data are stored
    file: Location  # the HDF5 file, a path or a URL
    index: int  # the number of the trajectory in its file
    steps: int  # the number `L` of its states
    scalars: np.ndarray  # the constants of the simulation, as stored
    boundary: np.ndarray  # the `Boundary` at both ends of each axis, with shape `(d, 2)`

    @property
    def remedy(self) -> str:
        """What to do about values that spoil what is computed with them."""
        return f"leave the trajectory out with --exclude {self.id}"


@dataclasses.dataclass(frozen=True, eq=False)
class WellSplit:
    """The trajectories of one split of a system. It may be pickled: files are opened where they are read."""

    system: System
    grid: tuple[int, ...]  # the number of cells along each grid axis
    coordinates: tuple[np.ndarray, ...]  # the coordinates of the first file's cells along each grid axis
    constants: tuple[str, ...]  # the names of the scalar constants, in order
    # the trajectories, in the order of datasets, file names and indices
    trajectories: tuple[TrajectoryRef, ...]
    fingerprint: str  # a hash of the files' names, sizes, headers and samples of their bytes
    excluded: tuple[str, ...] = ()  # the ids of trajectories that were left out one by one
    axes: tuple[str, ...] = ("x", "y", "z")  # the names of the grid axes in the first file
    grid_type: str = CARTESIAN  # that of the first file

    @functools.cached_property
    def steps(self) -> int:
        """The most states of a trajectory; each has its own number."""
        return max(trajectory.steps for trajectory in self.trajectories)

    @property
    def lengths(self) -> tuple[int, ...]:
        """The number of states of each trajectory."""
        return tuple(trajectory.steps for trajectory in self.trajectories)

    @property
    def geometry(self) -> tuple[AxisKind, ...]:
        """The kind of each grid axis: as the description says, else by the coordinates."""
        stated = dict(self.system.geometry)
        axes = zip(self.axes, self.coordinates, strict=False)
        return tuple(stated.get(name) or infer_axis(name, x, self.grid_type) for name, x in axes)

    @property
    def parameter_count(self) -> int:
        """The length `P` of a trajectory's parameters."""
        return len(self.constants) + 2 * self.system.dimensions

    def parameters(self, i: int) -> Tensor:
        """Trajectory `i`'s constants (natural logarithms of some) and boundary codes, with shape `(P,)`."""
        scalars = [
            np.log(value) if name in self.system.log_parameters else value
            for name, value in zip(self.constants, self.trajectories[i].scalars, strict=True)
        ]
        return torch.tensor([*scalars, *self.trajectories[i].boundary.flatten()], dtype=torch.float32)

    def symmetry(self, i: int, symmetries: Symmetries, generator: np.random.Generator) -> Augmentation:
        boundary = self.trajectories[i].boundary
        return draw_symmetry(self.system, boundary, self.grid, generator, symmetries, self.coordinates)

    def read(self, i: int, start: int, stop: int, stride: int = 1, checked: bool = True) -> Tensor:
        """The states `start, start + stride, ...` before `stop` of trajectory `i`, in physical units.

        Fields that are stored once for all trajectories, times or cells of an axis are repeated. Values
        outside of the domain are replaced (`lola.data.domain`).

        Arguments:
            checked: Whether values that are missing are an error.

        Returns:
            Float32 fields, with shape `(C, len(range(start, stop, stride)), *grid)`.

        Raises:
            IndexError: The trajectory has no such states.
            DataError: The file cannot be read, or holds values that are missing: not finite, or fill values.
            StorageError: The file cannot be reached.
        """
        x = np.empty((len(self.system.channels), len(range(start, stop, stride)), *self.grid), np.float32)
        self._read(x, i, slice(start, stop, stride), checked)
        return torch.from_numpy(x)

    def _read(self, x: np.ndarray, i: int, states: slice, checked: bool) -> None:
        """Read states into an array `(C, T, *grid)`."""
        source, start, stop = self._source(i, states.start, states.stop), states.start, states.stop
        file, channel = open_cached(source.file), 0
        cells = self._outside(source, file, start)
        for field in self.system.fields:
            with _reading(source, field.name):
                array = file[location(field)]
                values = read_field(array, source.index, states, x.shape[1], self.grid)
            if cells is not None and self.system.filled[channel]:
                values = fill(values, cells, channel, self.system)
            with np.errstate(over="ignore"):
                (target := x[channel : channel + len(values)])[:] = values
            if checked and (fault := field_error(values, target)):
                place = f"{source.id} ({source.file}): {field.name} {fault} in states {start} to {stop - 1}"
                raise DataError(f"{place}; {source.remedy}")
            channel += len(values)

    def _outside(self, source: TrajectoryRef, file: h5py.File, step: int) -> np.ndarray | None:
        """Where cells of a trajectory are outside of the domain, if there is a mask.

        Raises:
            DataError: All are.
        """
        mask = self.system.mask
        if mask is None:
            return None
        with _reading(source, mask.field):
            values = read_field(
                file[f"t0_fields/{mask.field}"], source.index, slice(step, step + 1), 1, self.grid
            )
        cells = outside(values[0, 0], mask)
        if cells.all():
            raise DataError(
                f"{source.id} ({source.file}): {mask.field} is {mask.outside:g} everywhere, which the "
                f"description of {self.system.name} says of cells outside of the domain; correct mask.outside"
            )
        return cells

    def read_into(self, out: np.ndarray, i: int, start: int, stop: int, checked: bool = True) -> None:
        """Read the states from `start` to `stop` of trajectory `i`, in physical units, into an array.

        Arguments:
            out: Float32, with shape `(C, stop - start, *grid)`.
            checked: Whether values that are missing are an error.

        Raises:
            DataError: The file cannot be read, or holds values that are missing: not finite, or fill values.
        """
        source = self.trajectories[i]
        with _reading(source, f"states {start} to {stop - 1}"):
            # Of a remote file, one request gets all states of a field
            if isinstance(source.file, Path) and self.system.mask is None:
                file = open_cached(source.file)
                fields = [file[location(field)] for field in self.system.fields]
                if all(is_contiguous(field, self.grid) for field in fields):
                    read_contiguous(fields, source.index, start, stop, out, checked)
                    return
        states = self._states_at_once(source)
        for begin in range(start, stop, states):
            end = min(begin + states, stop)
            self._read(out[:, begin - start : end - start], i, slice(begin, end, 1), checked)

    def _states_at_once(self, source: TrajectoryRef) -> int:
        """How many states are read at once where a field goes through memory of its own: whole chunks."""
        states = max(1, READ_BYTES // (8 * math.prod(self.grid) * max(self.system.sizes)))
        with _reading(source, "chunks"):
            file = open_cached(source.file)
            for field in self.system.fields:
                array = file[location(field)]
                sample, time = varies(array)
                if array.chunks and time:
                    states = -(-states // array.chunks[int(sample)]) * array.chunks[int(sample)]
        return states

    def axis(self, i: int, name: str) -> np.ndarray:
        """The times (`time`) or the coordinates along a grid axis of trajectory `i`, by the axis's name."""
        source = self.trajectories[i]
        with _reading(source, name):
            return read_axis(open_cached(source.file)[f"dimensions/{name}"], source.index)

    def _source(self, i: int, start: int, stop: int) -> TrajectoryRef:
        source = self.trajectories[i]
        if not 0 <= start < stop <= source.steps:
            raise IndexError(f"states {start} to {stop} of {source.id}, which has {source.steps}")
        return source


def state_bytes(split: WellSplit) -> int:
    """Bytes of a state in memory."""
    return 4 * len(split.system.channels) * math.prod(split.grid)


@contextlib.contextmanager
def _reading(source: TrajectoryRef, name: str) -> Iterator[None]:
    """Add the trajectory, and the part that cannot be read, to errors."""
    try:
        yield
    except LolaError as error:
        raise type(error)(f"{source.id}: {name}: {error}") from error
    except DECODE_ERRORS as error:
        with contextlib.suppress(LolaError):
            if lacking := missing_filter(open_cached(source.file)):
                raise DataError(f"{source.id} ({source.file}): {lacking}") from error
        raise DataError(
            f"{source.id} ({source.file}): cannot read {name} ({first_line(error)}); {source.remedy}"
        ) from error


def open_split(
    root: Location,
    system: System,
    split: str,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    faults: dict[str, str] | None = None,
) -> WellSplit:
    """Open and validate the files `<root>/<dataset>/data/<split>/*.{hdf5,h5}` of the system's datasets.

    Arguments:
        root: The folder of the datasets, a path or a URL. Not all of the system's datasets need be there.
        system: The physical system.
        split: `train`, `valid` or `test`.
        include: Only files whose name contains one of these are opened, if there are any.
        exclude: Files whose name contains one of these are not; of `FILE#47`, trajectory 47 of a file is
            left out, which is named with or without its suffix, split and dataset.
        faults: If given, files whose header is corrupt or unrecognised are left out, and the error is
            put here by `<dataset>/<split>/<file>`.

    Raises:
        DataError: There is no such file, or one is corrupt, unrecognised or unlike the others.
        StorageError: The folder or a file cannot be reached.
    """
    headers = []
    for dataset, path in split_files(root, system.datasets, split, include, exclude):
        try:
            if faults is not None and isinstance(path, Path):  # also in a worker: nobody may have read it
                check_hdf5(path)
            headers.append(read_header(path, dataset, split, system))
        except DataError as error:
            if faults is None:
                raise
            faults[f"{dataset}/{split}/{file_name(path)}"] = str(error)
    if not headers and faults:
        raise DataError(f"no file of the {split} split can be read: {next(iter(faults.values()))}")
    return join_files(headers, system, exclude)


def join_files(headers: Sequence[Header], system: System, exclude: Sequence[str] = ()) -> WellSplit:
    """The trajectories of files but those excluded; the first says what others, of any length, must be like.

    Raises:
        DataError: A file is unlike the first, has other constants than the system, or nothing is left.
    """
    exclude = [part for part in exclude if names_trajectory(part)]
    found = {header: _trajectories(header) for header in headers}
    kept = {
        header: [each for each in own if not is_excluded(each.id, exclude)] for header, own in found.items()
    }
    headers = [header for header in headers if kept[header]]
    if not headers:
        raise DataError(f"--exclude {' '.join(exclude)} leaves out all trajectories; leave out fewer")
    first = headers[0]
    for header in headers:
        _compare(header, first)
    _check_order(first, system)
    trajectories = tuple(each for header in headers for each in kept[header])
    left = {each.id for each in trajectories}
    excluded = tuple(each.id for own in found.values() for each in own if each.id not in left)
    partly = [name for name in excluded if any(name.startswith(f"{header.id}#") for header in headers)]
    _check_logarithms(trajectories, first.constants, system)
    return WellSplit(
        system=system,
        grid=first.grid,
        coordinates=first.coordinates,
        constants=first.constants,
        trajectories=trajectories,
        fingerprint=fingerprint(
            [header.fingerprint for header in headers],
            *([system.identity] if system.described else []),
            *([partly] if partly else []),
        ),
        excluded=excluded,
        axes=first.axes,
        grid_type=first.grid_type,
    )


def _trajectories(header: Header) -> list[TrajectoryRef]:
    return [
        TrajectoryRef(name, header.path, index, header.steps, header.scalars[index], header.boundary)
        for index, name in enumerate(header.trajectory_ids)
    ]


def _compare(header: Header, first: Header) -> None:
    """Raise `DataError` unless a file can be used together with the first one."""
    for name in ("grid", "constants"):
        found, expected = getattr(header, name), getattr(first, name)
        if found != expected:
            raise DataError(
                f"{header.path} ({header.dataset}) has {name} {found}, but {file_name(first.path)} has "
                f"{expected}; leave one of the kinds out with --exclude or --include"
            )


def _check_order(header: Header, system: System) -> None:
    """Raise `DataError` unless constants are in the order in which networks of a system take them."""
    if system.constants and header.constants != system.constants:
        raise DataError(
            f"{header.path} ({header.dataset}) has the constants {', '.join(header.constants) or 'none'}, "
            f"but {system.name} has {', '.join(system.constants)}, in this order; correct the attribute "
            "field_names of its scalars, or leave the file out"
        )


def _check_logarithms(
    trajectories: Sequence[TrajectoryRef], constants: Sequence[str], system: System
) -> None:
    """Raise `DataError` unless the constants that networks see as logarithms are positive."""
    for each in trajectories:
        for name, value in zip(constants, each.scalars, strict=True):
            if name in system.log_parameters and value <= 0:
                raise DataError(
                    f"{each.id} ({each.file}) has {name} {value:g}, not positive; take it out of "
                    f"log_parameters, or {each.remedy}"
                )


def open_well_file(path: Location, system: System) -> WellSplit:
    """Open and validate one file; its dataset and split are those of its folders, `<dataset>/data/<split>/`.

    Raises:
        DataError: The file is missing, corrupt or unrecognised.
        StorageError: The file cannot be reached.
    """
    *_, dataset, _, split, _ = ["", "", "", *str(path).split("/")]
    with advising(ANOTHER_FILE):
        return join_files([read_header(path, dataset, split, system)], system)
