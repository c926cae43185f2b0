"""Reading The Well: the trajectories of a split.

A trajectory is an array `(C, L, *grid)` of `L` states with the system's channels, vectors split into
components. Only the slice of the file that is asked for is read.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lola.core.config import fingerprint
from lola.core.errors import DataError, LolaError
from lola.data.augment import Augmentation, draw_symmetry
from lola.data.casting import cast_error
from lola.data.hdf5 import file_name, join, list_files, missing_files_error, open_cached
from lola.data.systems import Symmetries, System
from lola.data.well.contiguous import is_contiguous, read_contiguous
from lola.data.well.fields import location, read_axis, read_field
from lola.data.well.header import Header, read_header
from lola.storage.integrity import DECODE_ERRORS
from lola.storage.remote import first_line
from lola.storage.stages import Location


@dataclasses.dataclass(frozen=True, eq=False)
class TrajectoryRef:
    """Where a trajectory is."""

    id: str  # `<dataset>/<split>/<file>#<index>`, the same wherever the data are stored
    file: Location  # the HDF5 file, a path or a URL
    index: int  # the number of the trajectory in its file
    scalars: np.ndarray  # the constants of the simulation, as stored
    boundary: np.ndarray  # the `Boundary` at both ends of each axis, with shape `(d, 2)`


@dataclasses.dataclass(frozen=True, eq=False)
class WellSplit:
    """The trajectories of one split of a system. It may be pickled: files are opened where they are read."""

    system: System
    grid: tuple[int, ...]  # the number of cells along each grid axis
    coordinates: tuple[np.ndarray, ...]  # the coordinates of the first file's cells along each grid axis
    steps: int  # the number `L` of states of every trajectory
    constants: tuple[str, ...]  # the names of the scalar constants, in order
    # the trajectories, in the order of datasets, file names and indices
    trajectories: tuple[TrajectoryRef, ...]
    fingerprint: str  # a hash of the files' names, sizes, headers and samples of their bytes

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

    def read(self, i: int, start: int, stop: int, stride: int = 1) -> Tensor:
        """The states `start, start + stride, ...` before `stop` of trajectory `i`, in physical units.

        Fields that are stored once for all trajectories, times or cells of an axis are repeated.

        Returns:
            Float32 fields, with shape `(C, len(range(start, stop, stride)), *grid)`.

        Raises:
            IndexError: The trajectory has no such states.
            DataError: The file cannot be read, or holds values that are not finite.
            StorageError: The file cannot be reached.
        """
        source, length = self._states(i, start, stop, stride)
        file = open_cached(source.file)
        x = np.empty((len(self.system.channels), length, *self.grid), dtype=np.float32)
        channel = 0
        for field in self.system.fields:
            with _reading(source, field.name):
                array = file[location(field)]
                values = read_field(array, source.index, slice(start, stop, stride), length, self.grid)
            with np.errstate(over="ignore"):
                (target := x[channel : channel + len(values)])[:] = values
            if fault := cast_error(values, target):
                place = f"{source.id} ({source.file}): {field.name} {fault} in states {start} to {stop - 1}"
                raise DataError(f"{place}; simulate or fetch the file again, or exclude it")
            channel += len(values)
        return torch.from_numpy(x)

    def read_into(self, out: np.ndarray, i: int, start: int, stop: int) -> None:
        """Read the states from `start` to `stop` of trajectory `i`, in physical units, into an array.

        Arguments:
            out: Float32, with shape `(C, stop - start, *grid)`.

        Raises:
            DataError: The file cannot be read, or holds values that are not finite.
        """
        source = self.trajectories[i]
        with _reading(source, f"states {start} to {stop - 1}"):
            if isinstance(source.file, Path):  # of a remote one, one request gets all states of a field
                file = open_cached(source.file)
                fields = [file[location(field)] for field in self.system.fields]
                if all(is_contiguous(field, self.grid) for field in fields):
                    read_contiguous(fields, source.index, start, stop, out)
                    return
        out[:] = self.read(i, start, stop).numpy()

    def axis(self, i: int, name: str) -> np.ndarray:
        """The times (`time`) or the coordinates along a grid axis of trajectory `i`, by the axis's name."""
        source = self.trajectories[i]
        with _reading(source, name):
            return read_axis(open_cached(source.file)[f"dimensions/{name}"], source.index)

    def _states(self, i: int, start: int, stop: int, stride: int) -> tuple[TrajectoryRef, int]:
        if not 0 <= start < stop <= self.steps:
            raise IndexError(f"states {start} to {stop} of a trajectory of {self.steps}")
        return self.trajectories[i], len(range(start, stop, stride))


@contextlib.contextmanager
def _reading(source: TrajectoryRef, name: str) -> Iterator[None]:
    """Add the trajectory, and the part that cannot be read, to errors."""
    try:
        yield
    except LolaError as error:
        raise type(error)(f"{source.id}: {name}: {error}") from error
    except DECODE_ERRORS as error:
        raise DataError(
            f"{source.id} ({source.file}): cannot read {name} ({first_line(error)}); simulate or fetch the "
            "file again, or exclude it"
        ) from error


def split_files(
    root: Location, datasets: Sequence[str], split: str, include: Sequence[str], exclude: Sequence[str]
) -> list[tuple[str, Location]]:
    """The files of a split that pass the filters, each with its dataset; at least one.

    Raises:
        DataError: There is none.
        StorageError: The folder cannot be reached.
    """
    root = root if "://" in str(root) else Path(root)
    files = [
        (dataset, path)
        for dataset in datasets
        for path in list_files(join(root, dataset, "data", split))
        if (not include or any(part in file_name(path) for part in include))
        and not any(part in file_name(path) for part in exclude)
    ]
    if not files:
        raise missing_files_error(root, datasets, split, bool(include or exclude))
    return files


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
        exclude: Files whose name contains one of these are not.
        faults: If given, files whose header is corrupt or unrecognised are left out, and the error is
            put here by `<dataset>/<split>/<file>`.

    Raises:
        DataError: There is no such file, or one is corrupt, unrecognised or unlike the others.
        StorageError: The folder or a file cannot be reached.
    """
    headers = []
    for dataset, path in split_files(root, system.datasets, split, include, exclude):
        try:
            headers.append(read_header(path, dataset, split, system))
        except DataError as error:
            if faults is None:
                raise
            faults[f"{dataset}/{split}/{file_name(path)}"] = str(error)
    if not headers and faults:
        raise DataError(f"no file of the {split} split can be read: {next(iter(faults.values()))}")
    return join_files(headers, system)


def join_files(headers: Sequence[Header], system: System) -> WellSplit:
    """The trajectories of files; the first says what the others must be like."""
    first = headers[0]
    for header in headers:
        _compare(header, first, system)
    return WellSplit(
        system=system,
        grid=first.grid,
        coordinates=first.coordinates,
        steps=first.steps,
        constants=first.constants,
        trajectories=tuple(
            TrajectoryRef(
                id=f"{header.dataset}/{header.split}/{file_name(header.path)}#{index}",
                file=header.path,
                index=index,
                scalars=header.scalars[index],
                boundary=header.boundary,
            )
            for header in headers
            for index in range(header.count)
        ),
        fingerprint=fingerprint(
            [header.fingerprint for header in headers], *([system.identity] if system.described else [])
        ),
    )


def _compare(header: Header, first: Header, system: System) -> None:
    """Raise `DataError` unless a file can be used together with the first one."""
    for name in ("grid", "steps", "constants"):
        found, expected = getattr(header, name), getattr(first, name)
        if found != expected:
            raise DataError(
                f"{header.path} ({header.dataset}) has {name} {found}, but {file_name(first.path)} has "
                f"{expected}; keep files of one kind in the folder, or exclude the others"
            )
    for name, values in zip(header.constants, header.scalars.T, strict=True):
        if name in system.log_parameters and values.min() <= 0:
            raise DataError(
                f"{header.path} ({header.dataset}) has {name} {values.min():g}, not positive; remove it"
            )


def open_well_file(path: Location, system: System) -> WellSplit:
    """Open and validate one file; its dataset and split are those of its folders, `<dataset>/data/<split>/`.

    Raises:
        DataError: The file is missing, corrupt or unrecognised.
        StorageError: The file cannot be reached.
    """
    *_, dataset, _, split, _ = ["", "", "", *str(path).split("/")]
    return join_files([read_header(path, dataset, split, system)], system)
