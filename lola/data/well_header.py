"""What one HDF5 file in The Well's layout holds, read from its header and validated.

The layout: root attributes; groups `dimensions` (`time` and the grid axes), `boundary_conditions` (a kind
and a mask each), `scalars`, and `t0_fields`, `t1_fields`, `t2_fields` by tensor order. Fields are arrays
`(N, L, *grid, D, ...)` of `N` trajectories of `L` states. Only headers, scalars, masks and a few rows of
cells are read here.
"""

import dataclasses
import functools
import hashlib
import os
from pathlib import Path

import h5py
import numpy as np

from lola.config import fingerprint
from lola.data.systems import System
from lola.data.well_writer import BOUNDARIES
from lola.errors import DataError


@dataclasses.dataclass(frozen=True, eq=False)
class Header:
    """The header of a file.

    Arguments:
        path: The file.
        dataset, split: The dataset and the split that it belongs to.
        count: The number `N` of trajectories.
        steps: The number `L` of states of each.
        grid: The number of cells along each grid axis.
        coordinates: The coordinates of the cells along each grid axis.
        constants: The names of the constant scalars, in the file's order.
        scalars: The values of the constant scalars, with shape `(N, len(constants))`.
        boundary: The codes (wall 0, open 1, periodic 2) of both ends of each axis, with shape `(d, 2)`.
        fingerprint: A hash of name, size, header and a small sample of bytes of each array.
    """

    path: Path
    dataset: str
    split: str
    count: int
    steps: int
    grid: tuple[int, ...]
    coordinates: tuple[np.ndarray, ...]
    constants: tuple[str, ...]
    scalars: np.ndarray
    boundary: np.ndarray
    fingerprint: str


def open_file(path: Path) -> h5py.File:
    """A file that this process keeps open, with the last few others; a file that was replaced is opened anew.

    Raises:
        DataError: The file is missing, truncated or not HDF5.
    """
    try:
        status = os.stat(path)
    except OSError:
        raise DataError(f"{path} is missing; simulate or fetch it again") from None
    return _keep_open(path, os.getpid(), status.st_ino, status.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _keep_open(path: Path, process: int, inode: int, modified: int) -> h5py.File:
    return _open(path)


def _open(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path} cannot be opened as HDF5 ({reason}); simulate or fetch it again") from None


def read_header(path: Path, dataset: str, split: str, system: System) -> Header:
    """Read and validate a file's header.

    Raises:
        DataError: The file is torn or foreign, or a field is missing or of the wrong order or shape.
    """
    with _open(path) as file:
        try:
            return _parse(file, path, dataset, split, system)
        except DataError:
            raise
        except (LookupError, AttributeError, TypeError, ValueError, OSError, RuntimeError) as error:
            reason = str(error).strip("'\"")
            raise DataError(f"{path} ({dataset}) is not in The Well's layout: {reason}; remove it") from None


def _parse(file: h5py.File, path: Path, dataset: str, split: str, system: System) -> Header:
    steps = int(file["dimensions"]["time"].shape[-1])
    axes = [str(name) for name in file["dimensions"].attrs["spatial_dims"]]
    coordinates = tuple(_read_coordinates(file["dimensions"][name]) for name in axes)
    grid = tuple(len(each) for each in coordinates)
    count = int(file.attrs["n_trajectories"])
    constants, scalars = _read_scalars(file, count)
    boundary = _read_boundary(file, axes)
    fault = _fault(file, system, (count, steps, *grid))
    if fault:
        raise DataError(f"{path} ({dataset}) {fault}; remove it or fetch data of {system.name}")
    if not np.isfinite(scalars).all():
        raise DataError(f"{path} ({dataset}) holds non-finite scalars; simulate or fetch it again")
    size = path.stat().st_size
    identity = [dataset, split, path.name, size, steps, *grid, constants, scalars.tolist(), boundary.tolist()]
    return Header(
        path=path,
        dataset=dataset,
        split=split,
        count=count,
        steps=steps,
        grid=grid,
        coordinates=coordinates,
        constants=constants,
        scalars=scalars,
        boundary=boundary,
        fingerprint=fingerprint(identity, _sample(file, system)),
    )


def _fault(file: h5py.File, system: System, shape: tuple[int, ...]) -> str | None:
    """What is wrong with the fields that the system needs, if anything."""
    if len(shape) - 2 != system.dimensions:
        return f"has {len(shape) - 2} grid axes, not the {system.dimensions} of {system.name}"
    for field in system.fields:
        group = f"t{field.order}_fields"
        if group not in file or field.name not in file[group]:
            return f"has no field {field.name} in {group}"
        expected = shape + (system.dimensions,) * field.order
        if file[group][field.name].shape != expected:
            return f"has {field.name} of shape {file[group][field.name].shape}, not {expected}"
    return None


def _read_coordinates(axis: h5py.Dataset) -> np.ndarray:
    """The coordinates along an axis; trajectories with grids of their own are on the first one's."""
    return np.asarray(axis[(0,) * (axis.ndim - 1)], dtype=np.float64)


def _read_scalars(file: h5py.File, count: int) -> tuple[tuple[str, ...], np.ndarray]:
    """The names of the scalars that are constant in time, and their values in every trajectory."""
    group = file["scalars"]
    names = [str(name) for name in group.attrs["field_names"] if not group[name].attrs["time_varying"]]
    columns = []
    for name in names:
        values = np.asarray(group[name], dtype=np.float64)
        shape = (count,) if group[name].attrs["sample_varying"] else (1,)
        columns.append(np.broadcast_to(values.reshape(shape), count))
    return tuple(names), np.array(columns).reshape(len(names), count).T


def _read_boundary(file: h5py.File, axes: list[str]) -> np.ndarray:
    """The codes of both ends of each axis; an end is a wall only if all of it is, and open if unnamed."""
    codes = np.full((len(axes), 2), BOUNDARIES.index("OPEN"))
    for condition in file["boundary_conditions"].values():
        code = BOUNDARIES.index(str(condition.attrs["bc_type"]).upper())
        names = [str(name) for name in np.atleast_1d(condition.attrs["associated_dims"])]
        mask = np.asarray(condition["mask"])
        for position, name in enumerate(names):
            for side in (0, -1):
                end = mask.take(side, axis=position)
                if end.all() if code == BOUNDARIES.index("WALL") else end.any():
                    codes[axes.index(name), side] = code
    return codes


def _sample(file: h5py.File, system: System) -> str:
    """A hash of one row of cells of the first, a middle and the last state of each field."""
    digest = hashlib.sha256()
    for field in system.fields:
        array = file[f"t{field.order}_fields"][field.name]
        digest.update(f"{field.name} {array.shape} {array.dtype}".encode())
        count, steps, *grid = array.shape[: 2 + system.dimensions]
        middle = tuple(cells // 2 for cells in grid[:-1])
        for i, step in ((0, 0), (count // 2, steps // 2), (count - 1, steps - 1)):
            digest.update(np.ascontiguousarray(array[(i, step, *middle)]).tobytes())
    return digest.hexdigest()
