"""What one HDF5 file in The Well's layout holds, read from its header and validated.

The layout: root attributes; groups `dimensions` (`time` and the grid axes), `boundary_conditions` (a kind
and a mask each), `scalars`, and `t0_fields`, `t1_fields`, `t2_fields` by tensor order. Fields are arrays
`(N, L, *grid, D, ...)` of `N` trajectories of `L` states, without the axes along which they do not vary. Only
headers, scalars, masks and a few rows of cells are read here.
"""

import contextlib
import dataclasses
import hashlib
import re
from collections.abc import Iterator

import h5py
import numpy as np

from lola.core.config import fingerprint
from lola.core.errors import DataError, LolaError
from lola.data.casting import cast_checked
from lola.data.geometry import infer_axis
from lola.data.hdf5 import file_name, file_size, missing_filter, open_hdf5
from lola.data.systems import Boundary, System
from lola.data.well.attributes import boundary, flag, text, texts
from lola.data.well.fields import NUMBERS, fields_of, location, read_axis, read_row, stored_shape, varies
from lola.storage.integrity import DECODE_ERRORS
from lola.storage.remote import first_line
from lola.storage.stages import Location

CARTESIAN = "cartesian"
ROLES = ("state", "constant", "scalar")


@dataclasses.dataclass(frozen=True, eq=False)
class Header:
    """The header of a file."""

    path: Location
    dataset: str
    split: str
    count: int  # the number `N` of trajectories
    steps: int  # the number `L` of states of each
    grid_type: str  # cartesian, spherical, ...
    axes: tuple[str, ...]  # the names of the grid axes
    grid: tuple[int, ...]  # the number of cells along each grid axis
    coordinates: tuple[np.ndarray, ...]  # the coordinates of the cells along each grid axis
    constants: tuple[str, ...]  # the names of the constant scalars, in the file's order
    scalars: np.ndarray  # the values of the constant scalars, with shape `(N, len(constants))`
    varying: tuple[str, ...]  # the names of the scalars that vary in time, in the file's order
    boundary: np.ndarray  # the `Boundary` at both ends of each axis, with shape `(d, 2)`
    fingerprint: str  # a hash of name, size, header and a small sample of bytes of each array

    @property
    def id(self) -> str:
        """The file's id: `<dataset>/<split>/<file>`."""
        return f"{self.dataset}/{self.split}/{file_name(self.path)}"

    @property
    def trajectory_ids(self) -> list[str]:
        """The ids of its trajectories."""
        return [f"{self.id}#{index}" for index in range(self.count)]


def read_header(path: Location, dataset: str, split: str, system: System) -> Header:
    """Read and validate a file's header.

    Raises:
        DataError: The file is corrupt or not in The Well's layout, or a field is missing or misshapen.
        StorageError: The file cannot be reached.
    """
    with _layout(path, dataset) as file:
        return _parse(file, path, dataset, split, system)


def infer_system(path: Location, dataset: str) -> System:
    """A system with all fields of a file: by tensor order as stored, then those that are constant in time,
    then scalars that vary in time.

    It has no statistics, no transforms and no symmetries. The evaluation's ranges of lead times are the first
    fifth of a trajectory, the two fifths that follow, and the rest.

    Raises:
        DataError: The file is corrupt or not in The Well's layout.
        StorageError: The file cannot be reached.
    """
    with _layout(path, dataset) as file:
        fields = sorted(fields_of(file), key=lambda field: ROLES.index(field.role))
        states = [field for field in fields if field.role == "state"]
        if not states:
            raise DataError(
                f"{path} ({dataset}) has no field that varies in time; there is nothing to emulate"
            )
        steps = int(file["dimensions"]["time"].shape[-1])
        axes = texts(file["dimensions"].attrs["spatial_dims"])
        grid_type = text(file.attrs.get("grid_type", CARTESIAN))
        scalars = file["scalars"]
        ends = max(1, steps // 5), max(2, 3 * steps // 5)
        system = System(
            name=re.sub(r"[^A-Za-z0-9_.]", "_", dataset),
            datasets=(dataset,),
            dimensions=len(axes),
            fields=tuple(fields),
            ranges=((1, ends[0]), (ends[0] + 1, ends[1]), (ends[1] + 1, None)),
            described=True,
            geometry=tuple(
                (axis, infer_axis(axis, read_axis(file["dimensions"][axis], 0), grid_type)) for axis in axes
            ),
            axes=tuple(axes),
            constants=tuple(
                name for name in texts(scalars.attrs["field_names"]) if not varies(scalars[name])[1]
            ),
        )
        return dataclasses.replace(system, shown=system.channels[0])


@contextlib.contextmanager
def _layout(path: Location, dataset: str) -> Iterator[h5py.File]:
    """A file that is read as one of The Well's; whatever cannot be read makes it a `DataError`."""
    with open_hdf5(path) as file:
        try:
            yield file
        except LolaError:
            raise
        except DECODE_ERRORS as error:
            if lacking := missing_filter(file):
                raise DataError(f"{path} ({dataset}): {lacking}") from error
            reason = first_line(error).strip("'\"")
            raise DataError(
                f"{path} ({dataset}) is not in The Well's layout: {reason}; leave it out with --exclude "
                f"{file_name(path)}"
            ) from error


def _parse(file: h5py.File, path: Location, dataset: str, split: str, system: System) -> Header:
    steps = int(file["dimensions"]["time"].shape[-1])
    axes = texts(file["dimensions"].attrs["spatial_dims"])
    coordinates = tuple(read_axis(file["dimensions"][name], 0) for name in axes)
    grid = tuple(len(axis) for axis in coordinates)
    count = int(file.attrs["n_trajectories"])
    error = _scalar_error(file) or _layout_error(file, system, count, steps, grid)
    if error:
        raise DataError(f"{path} ({dataset}) {error}")
    constants, varying, scalars = _read_scalars(file, path, count)
    ends = _read_boundary(file, path, axes)
    cast_checked(scalars, np.float32, f"a constant of {path} ({dataset})")  # which parameters are
    identity = [
        dataset,
        split,
        file_name(path),
        file_size(path),
        steps,
        *grid,
        constants,
        scalars.tolist(),
        ends.tolist(),
    ]
    return Header(
        path=path,
        dataset=dataset,
        split=split,
        count=count,
        steps=steps,
        grid_type=text(file.attrs.get("grid_type", CARTESIAN)),
        axes=tuple(axes),
        grid=grid,
        coordinates=coordinates,
        constants=constants,
        scalars=scalars,
        varying=varying,
        boundary=ends,
        fingerprint=fingerprint(identity, _sample(file, system, varying, count, steps, grid)),
    )


def _layout_error(
    file: h5py.File, system: System, count: int, steps: int, grid: tuple[int, ...]
) -> str | None:
    """What is wrong with the fields that the system needs, if anything, and what to do about it."""
    other = (
        "name the folder of the dataset as the system, and describe it with experiments/describe.py, if "
        f"these data are not of {system.name}"
    )
    if len(grid) != system.dimensions:
        return f"has {len(grid)} grid axes, not the {system.dimensions} of {system.name}; {other}"
    for field in system.fields:
        if location(field) not in file:
            kind = "scalar" if field.role == "scalar" else "field"
            return f"has no {kind} {location(field)}; {other}, or leave it out with --exclude"
        array = file[location(field)]
        if array.dtype.kind not in NUMBERS:
            kind = "complex numbers" if array.dtype.kind == "c" else f"{array.dtype}, not numbers"
            return (
                f"has {field.name} of {kind}; name the fields to use under the key fields of system.yaml, "
                f"next to the folder data{', or store its parts as two' * (array.dtype.kind == 'c')}"
            )
        cells = () if field.role == "scalar" else grid
        expected = stored_shape(array, count, steps, cells, field.order)
        if array.shape != expected:
            return (
                f"has {field.name} of shape {array.shape}, not {expected}, as n_trajectories, the dimensions "
                "and its sample_varying, time_varying and dim_varying say; correct these attributes"
            )
    return None


def _scalar_error(file: h5py.File) -> str | None:
    """Which scalar does not say whether it varies, if any."""
    for name in texts(file["scalars"].attrs["field_names"]):
        said = file["scalars"][name].attrs
        for attribute, varying in (("time_varying", "in time"), ("sample_varying", "among trajectories")):
            needed = attribute == "time_varying" or not flag(said["time_varying"])
            if needed and attribute not in said:
                return (
                    f"has a scalar {name} without the attribute {attribute}; set it to true if the scalar "
                    f"varies {varying}, else to false"
                )
    return None


def _read_scalars(
    file: h5py.File, path: Location, count: int
) -> tuple[tuple[str, ...], tuple[str, ...], np.ndarray]:
    """The names of scalars that are constant in time, those of others, and the constants by trajectory."""
    group = file["scalars"]
    names = texts(group.attrs["field_names"])
    varying = tuple(name for name in names if flag(group[name].attrs["time_varying"]))
    constants = tuple(name for name in names if name not in varying)
    columns = []
    for name in constants:
        if group[name].dtype.kind not in NUMBERS:
            raise DataError(
                f"{path}: the constant {name} is {group[name].dtype}, and networks take real numbers; "
                "store a number for it, or take its name out of the attribute field_names of scalars"
            )
        values = np.asarray(group[name], dtype=np.float64)
        shape = (count,) if flag(group[name].attrs["sample_varying"]) else (1,)
        columns.append(np.broadcast_to(values.reshape(shape), count))
    return constants, varying, np.array(columns).reshape(len(constants), count).T


def _read_boundary(file: h5py.File, path: Location, axes: list[str]) -> np.ndarray:
    """The codes of both ends of each axis; an end is a wall only if all of it is, and open if unnamed."""
    codes = np.full((len(axes), 2), Boundary.OPEN)
    for condition in file["boundary_conditions"].values():
        code = boundary(condition.attrs["bc_type"], f"{path}: bc_type of {condition.name}")
        names = texts(condition.attrs["associated_dims"])
        if unknown := [name for name in names if name not in axes]:
            raise DataError(
                f"{path}: {condition.name} is on {unknown[0]}, and the axes are {', '.join(axes)}; "
                "correct its attribute associated_dims"
            )
        mask = np.asarray(condition["mask"], dtype=bool)
        for position, name in enumerate(names):
            for side in (0, -1):
                end = mask.take(side, axis=position)
                if end.all() if code is Boundary.WALL else end.any():
                    codes[axes.index(name), side] = code
    return codes


def _sample(
    file: h5py.File, system: System, varying: tuple[str, ...], count: int, steps: int, grid: tuple[int, ...]
) -> str:
    """A hash of one row of cells of the first, a middle and the last state of each field.

    Scalars that vary in time are hashed whole.
    """
    digest = hashlib.sha256()
    for field in system.fields:
        array = file[location(field)]
        digest.update(f"{field.name} {array.shape} {array.dtype}".encode())
        for i, step in ((0, 0), (count // 2, steps // 2), (count - 1, steps - 1)):
            digest.update(read_row(array, i, step, grid).tobytes())
    for name in varying:
        values = np.asarray(file["scalars"][name])
        digest.update(f"{name} {values.shape} {values.dtype}".encode() + values.tobytes())
    return digest.hexdigest()
