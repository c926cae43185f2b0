r"""Writing simulations as The Well lays them out, so that its tools and ours read them alike.

A dataset is a folder with `data/{train,valid,test}/*.hdf5` and `stats.yaml`. A file holds `N` trajectories
of `L` states on one grid, each field in one contiguous array `(N, L, *grid, D, ...)` with as many axes `D`
as its tensor order, so that consecutive states of a trajectory are consecutive bytes.

Statistics of a field $x$ are its mean, standard deviation and root mean square, and those of its increments
$x_{t+1} - x_t$, accumulated over blocks.
"""

import contextlib
import itertools
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import yaml

from lola.core.errors import DataError, StorageError
from lola.core.filesystem import describe_os_error
from lola.data.casting import cast_checked
from lola.data.hdf5 import open_hdf5, open_local_hdf5
from lola.data.statistics import Moments
from lola.data.systems import Boundary
from lola.data.well.attributes import texts
from lola.data.well.fields import varies
from lola.data.well.header import CARTESIAN
from lola.storage.remote import AnyPath, find_files, translate_fs_errors
from lola.storage.stages import atomic_path

OWN = "# Statistics of a simulation by LOLA."
"""The first line of a `stats.yaml` that is written here."""
BLOCK_STATES = 16  # states read at once for the statistics,
BLOCK_BYTES = 2**25  # or as many as this of a field, if they are large


def write_well_file(
    path: Path,
    *,
    dataset: str,
    count: int,
    trajectories: Iterable[Mapping[str, np.ndarray]],
    times: np.ndarray,
    axes: Mapping[str, np.ndarray],
    scalars: Mapping[str, float],
    boundary: np.ndarray,
) -> None:
    """Write one HDF5 file, trajectory by trajectory, in place: for an atomic write, pass a temporary path.

    Arguments:
        path: The file, in an existing folder.
        dataset: The name of the dataset.
        count: The number `N` of trajectories.
        trajectories: The fields of each trajectory by name, in order, with shapes `(L, *grid)` for scalars,
            `(L, *grid, d)` for vectors and `(L, *grid, d, d)` for tensors.
        times: The times of the states, with shape `(L,)`.
        axes: The coordinates along each grid axis, by name, in order.
        scalars: The constants of the simulations, by name, in order.
        boundary: The `Boundary` at both ends of each axis, with shape `(d, 2)`.

    Raises:
        ValueError: There are more or fewer trajectories than `count`, or their shapes do not fit.
        DataError: A value is not finite, or float32 cannot hold it.
        StorageError: The storage is full or read-only.
    """
    with writing(path, "w") as file:
        write_layout(file, dataset, count, times, axes, scalars, boundary)
        written = 0
        for index, fields in enumerate(trajectories):
            if index == 0:
                orders = {name: values.ndim - 1 - len(axes) for name, values in fields.items()}
                create_fields(file, count, orders, (len(times), *map(len, axes.values())))
            if index == count:
                raise ValueError(f"{count} trajectories were announced and more are given")
            for name, values in fields.items():
                values = cast_checked(values, np.float32, f"{name} of trajectory {index} for {path}")
                file[f"t{values.ndim - 1 - len(axes)}_fields"][name][index] = values
            written = index + 1
        if written != count:
            raise ValueError(f"{count} trajectories were announced and {written} given")


def write_layout(
    file: h5py.File,
    dataset: str,
    count: int,
    times: np.ndarray,
    axes: Mapping[str, np.ndarray],
    scalars: Mapping[str, float | np.ndarray],
    boundary: np.ndarray,
    grid_type: str = CARTESIAN,
) -> None:
    """Write all but the fields; scalars are as for `write_well_file`, or one per trajectory, `(N,)`."""
    constants = {name: value for name, value in scalars.items() if np.ndim(value) == 0}
    file.attrs.update(
        dataset_name=dataset,
        grid_type=grid_type,
        n_spatial_dims=len(axes),
        n_trajectories=count,
        simulation_parameters=_names(scalars),
        **constants,
    )
    _write_dimensions(file.create_group("dimensions"), times, axes)
    _write_boundary(file.create_group("boundary_conditions"), axes, boundary)
    group = file.create_group("scalars")
    group.attrs["field_names"] = _names(scalars)
    for name, value in scalars.items():
        group[name] = np.asarray(value, dtype=np.float64)
        group[name].attrs.update(sample_varying=name not in constants, time_varying=False)


@contextlib.contextmanager
def writing(path: Path, mode: Literal["w", "r+"]) -> Iterator[h5py.File]:
    """An HDF5 file open for writing; storage that is full or read-only is a `StorageError`."""
    try:
        with open_local_hdf5(path, mode) as file:
            yield file
    except (OSError, RuntimeError) as error:
        # HDF5 has the system's error only in its message, and h5py raises either class.
        number = re.search(r"errno = (\d+)", str(error))
        if number is None:
            raise
        refused = OSError(int(number[1]), os.strerror(int(number[1])))
        raise StorageError(
            describe_os_error(refused, path.parent, "write in")
            or f"cannot write in {path.parent} ({refused.strerror}); give another --storage"
        ) from error


def _names(names: Iterable[str]) -> np.ndarray:
    return np.array(list(names), dtype=h5py.string_dtype())


def _write_dimensions(group: h5py.Group, times: np.ndarray, axes: Mapping[str, np.ndarray]) -> None:
    group.attrs["spatial_dims"] = _names(axes)
    for name, values in {"time": times, **axes}.items():
        group[name] = np.asarray(values, dtype=np.float32)
        group[name].attrs["sample_varying"] = False
        if name != "time":
            group[name].attrs["time_varying"] = False


def _write_boundary(group: h5py.Group, axes: Mapping[str, np.ndarray], boundary: np.ndarray) -> None:
    """One group per axis and kind of boundary, with a mask that is true at the ends of that kind."""
    for (name, values), codes in zip(axes.items(), boundary, strict=True):
        for code in sorted(set(map(int, codes))):
            kind = Boundary(code).name
            mask = np.zeros(len(values), dtype=bool)
            mask[[0, -1]] = np.asarray(codes) == code
            condition = group.create_group(f"{name}_{kind.lower()}")
            condition["mask"] = mask
            condition.attrs.update(
                associated_dims=_names([name]),
                associated_fields=_names([]),
                bc_type=kind,
                sample_varying=False,
                time_varying=False,
            )


def create_fields(file: h5py.File, count: int, orders: Mapping[str, int], shape: tuple[int, ...]) -> None:
    """Create datasets for `count` trajectories of shape `(L, *grid)` of fields, by their tensor order."""
    for order in range(3):
        group = file.create_group(f"t{order}_fields")
        names = [name for name, each in orders.items() if each == order]
        group.attrs["field_names"] = _names(names)
        for name in names:
            tensor = (len(shape) - 1,) * order
            field = group.create_dataset(name, (count, *shape, *tensor), dtype=np.float32)
            field.attrs.update(dim_varying=[True] * (len(shape) - 1), sample_varying=True, time_varying=True)


def write_statistics(folder: AnyPath) -> None:
    """Write a dataset's `stats.yaml` from its training files, which are read in blocks of a few states.

    Raises:
        DataError: The dataset has no training files.
    """
    files = [path for path in find_files(folder / "data" / "train") if path.suffix == ".hdf5"]
    if not files:
        raise DataError(
            f"{folder}/data/train has no HDF5 files, from which statistics are computed; simulate them first"
        )
    values: dict[str, Moments] = {}
    increments: dict[str, Moments] = {}
    for path in files:
        with open_hdf5(path) as file:
            for name, order, block, fresh in _blocks(file):
                values.setdefault(name, Moments()).add(block[:fresh], order)
                increments.setdefault(name, Moments()).add(np.diff(block, axis=0), order)
    statistics: dict[str, dict[str, Any]] = {}
    for suffix, moments in (("", values), ("_delta", increments)):
        for name, moment in moments.items():
            for statistic, value in moment.summary().items():
                statistics.setdefault(statistic + suffix, {})[name] = value
    with atomic_path(folder / "stats.yaml") as tmp_path:
        tmp_path.write_text(f"{OWN}\n{yaml.safe_dump(statistics)}")


def is_own_statistics(path: AnyPath) -> bool:
    """Whether a file is a `stats.yaml` that `write_statistics` made."""
    with translate_fs_errors(path):
        return path.name == "stats.yaml" and path.read_bytes().startswith(OWN.encode())


def _blocks(file: h5py.File) -> Iterator[tuple[str, int, np.ndarray, int]]:
    """Each field's name and order, states of one trajectory, and how many of these no other block counts.

    A block ends with the first state of the next one, so that increments between blocks are seen too.
    """
    for order in range(3):
        group = file[f"t{order}_fields"]
        for name in texts(group.attrs["field_names"]):
            field = group[name]
            sample, time = varies(field)
            size = field.dtype.itemsize * math.prod(field.shape[int(sample) + int(time) :])
            states = min(BLOCK_STATES, max(1, BLOCK_BYTES // size))
            rows = [(i,) for i in range(field.shape[0])] if sample else [()]
            for row, start in itertools.product(rows, range(0, field.shape[sample] if time else 1, states)):
                block = field[(*row, slice(start, start + states + 1))] if time else field[row][None]
                yield name, order, block.astype(np.float64), states


def create_varying_scalars(file: h5py.File, shape: tuple[int, int], names: Iterable[str]) -> None:
    """Create scalars that vary in time, with shape `(N, L)`, in a file that has its layout."""
    for name in names:
        scalar = file["scalars"].create_dataset(name, shape, dtype=np.float64)
        scalar.attrs.update(sample_varying=True, time_varying=True)
        _append_name(file["scalars"], name)


def create_constant_field(
    file: h5py.File, name: str, order: int, shape: tuple[int, ...], dimensions: int, sample: bool = True
) -> h5py.Dataset:
    """Create a field that is constant in time in a file that has its fields.

    Arguments:
        shape: `(N, *grid[, d[, d]])`, without `N` unless it is `sample` varying.
        dimensions: The number of grid axes.
    """
    group = file[f"t{order}_fields"]
    array = group.create_dataset(name, shape, dtype=np.float32)
    array.attrs.update(dim_varying=[True] * dimensions, sample_varying=sample, time_varying=False)
    _append_name(group, name)
    return array


def _append_name(group: h5py.Group, name: str) -> None:
    group.attrs["field_names"] = _names([*texts(group.attrs["field_names"]), name])
