"""Files of named arrays, `.npz`, `.npy`, NetCDF and Zarr, of which slices are read.

An array of a `.npz` file is decompressed from its beginning as far as it is read, so that one whose leading
axes are trajectories and times is read in pieces, in order; all others are sliced where they lie.
"""

import contextlib
import dataclasses
import functools
import itertools
import math
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np

from lola.core.errors import DataError, LolaError
from lola.data.hdf5_check import check_hdf5
from lola.storage.integrity import DECODE_ERRORS
from lola.storage.remote import first_line

UNREADABLE = (*DECODE_ERRORS, zipfile.BadZipFile, zlib.error)
Selection: TypeAlias = Mapping[str, int | slice]
COMPONENTS = ("component", "component_2")
"""The axes of a vector or a tensor in arrays whose axes have no names."""


@dataclasses.dataclass(frozen=True)
class Variable:
    """An array with named axes.

    Arguments:
        dims: The names of its axes.
        shape: Their lengths.
        dtype: The dtype as read.
        read: Reads the part at some indices and ranges of axes, the axes that are left in their order.
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[Selection], np.ndarray]

    @property
    def sizes(self) -> dict[str, int]:
        """The length of each axis."""
        return dict(zip(self.dims, self.shape, strict=True))


@dataclasses.dataclass(frozen=True)
class Source:
    """The variables and the attributes of one file or store."""

    name: str
    variables: Mapping[str, Variable]
    attributes: Mapping[str, Any]


@contextlib.contextmanager
def open_source(paths: Sequence[Path], dimensions: Sequence[str]) -> Iterator[Source]:
    """Open a file, a Zarr folder, or several `.npy` files together; only headers are read.

    Arguments:
        paths: One path, or files `.npy`.
        dimensions: The axes of fields in `.npz` and `.npy`, which have no names there.

    Raises:
        DataError: It does not exist, or is none of these, or is corrupt.
        LolaError: xarray is not installed, which reads NetCDF and Zarr.
    """
    path = paths[0]
    if missing := [each for each in paths if not each.exists()]:
        raise DataError(f"{missing[0]} does not exist; name a file .npz, .npy or NetCDF, or a Zarr folder")
    with contextlib.ExitStack() as stack:
        attributes: dict[str, Any] = {}
        try:
            if path.suffix == ".npy":
                variables = _open_npy(paths, dimensions)
            elif path.suffix == ".npz":
                variables = _open_npz(path, dimensions, stack)
            else:
                variables, attributes = _open_xarray(path, stack)
        except LolaError:
            raise
        except UNREADABLE as error:
            kind = "Zarr" if path.is_dir() else "NumPy" if path.suffix in (".npy", ".npz") else "NetCDF"
            raise DataError(f"{path} cannot be read as {kind}: {first_line(error)}") from error
        checked = {
            name: dataclasses.replace(each, read=functools.partial(_read_checked, each.read, name, path))
            for name, each in variables.items()
        }
        yield Source(path.name, checked, attributes)


def _read_checked(
    read: Callable[[Selection], np.ndarray], name: str, path: Path, selection: Selection
) -> np.ndarray:
    """Read a part of a variable; what fails names the variable and the file."""
    try:
        return read(selection)
    except LolaError:
        raise
    except UNREADABLE as error:
        raise DataError(f"{name} in {path} cannot be read: {first_line(error)}") from error


def name_axes(
    shapes: Mapping[str, tuple[int, ...]], dimensions: Sequence[str], where: Path
) -> dict[str, tuple[str, ...]]:
    """The names of the axes of arrays without any, given those of the fields in order.

    The fields of lowest rank have the fewest axes that there can be: `dimensions`. Arrays of higher rank have
    axes of components after them, others are found by their lengths, from the last axis on.
    """
    if not dimensions:
        listed = ", ".join(f"{name} {shape}" for name, shape in list(shapes.items())[:4])
        raise DataError(
            f"the axes of arrays in {where} have no names ({listed}); give those of the fields in order, "
            "such as --dimensions trajectory time x y"
        )
    full = sorted((len(shape), shape) for shape in shapes.values() if len(shape) >= len(dimensions))
    sizes = dict(zip(dimensions, full[0][1] if full else (), strict=False))
    if not sizes:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise DataError(f"no array in {where} has the {len(dimensions)} --dimensions; it holds {listed}")
    found = {}
    for name, shape in shapes.items():
        components = COMPONENTS[: len(shape) - len(dimensions)]
        if len(shape) >= len(dimensions):
            found[name] = (*dimensions, *components)[: len(shape)]
        elif len(shape) == 1 and name in dimensions:
            found[name] = (name,)
        else:
            found[name] = _by_length(shape, sizes)
    return found


def _by_length(shape: tuple[int, ...], sizes: Mapping[str, int]) -> tuple[str, ...]:
    """The axes of these lengths, in order; of a list of values the first that fits, of others the last."""
    for components in range(min(len(shape), 3)):
        axes, tensor = shape[: len(shape) - components], COMPONENTS[:components]
        fits = [
            names
            for names in itertools.combinations(sizes, len(axes))
            if tuple(sizes[name] for name in names) == axes
        ]
        if fits:
            return (*fits[0 if len(shape) == 1 else -1], *tensor)
    return tuple(f"axis {number} of {size}" for number, size in enumerate(shape))


def _open_npy(paths: Sequence[Path], dimensions: Sequence[str]) -> dict[str, Variable]:
    first: dict[str, Path] = {}
    for path in paths:
        if (other := first.setdefault(path.stem, path)) != path:
            raise DataError(
                f"{other} and {path} are both the field {path.stem}: several .npy files are one field each; "
                "stack the trajectories of a field in one file, or save the fields of each run as .npz"
            )
    arrays = {path.stem: np.load(path, mmap_mode="r") for path in paths}
    axes = name_axes({name: array.shape for name, array in arrays.items()}, dimensions, paths[0])
    return {name: _of_array(array, axes[name]) for name, array in arrays.items()}


def _of_array(array: np.ndarray, dims: tuple[str, ...]) -> Variable:
    def read(selection: Selection) -> np.ndarray:
        return np.asarray(array[tuple(selection.get(dim, slice(None)) for dim in dims)])

    return Variable(dims, array.shape, array.dtype, read)


def _open_npz(path: Path, dimensions: Sequence[str], stack: contextlib.ExitStack) -> dict[str, Variable]:
    archive = stack.enter_context(zipfile.ZipFile(path))
    found = {}
    for member in archive.namelist():
        name, stream = member.removesuffix(".npy"), stack.enter_context(archive.open(member))
        old = np.lib.format.read_magic(stream) == (1, 0)
        shape, fortran, dtype = (
            np.lib.format.read_array_header_1_0(stream)
            if old
            else np.lib.format.read_array_header_2_0(stream)
        )
        if dtype.hasobject or (fortran and len(shape) > 1):
            order = "objects" if dtype.hasobject else "in Fortran order"
            raise DataError(f"{name} in {path} is stored {order}; save np.ascontiguousarray of numbers")
        found[name] = stream, stream.tell(), shape, dtype
    axes = name_axes({name: shape for name, (_, _, shape, _) in found.items()}, dimensions, path)
    return {
        name: Variable(axes[name], shape, dtype, _of_stream(stream, begin, name, shape, dtype, axes[name]))
        for name, (stream, begin, shape, dtype) in found.items()
    }


def _of_stream(
    stream: IO[bytes], begin: int, name: str, shape: tuple[int, ...], dtype: np.dtype, dims: tuple[str, ...]
) -> Callable[[Selection], np.ndarray]:
    """Reads consecutive items of a C-ordered array: indices of leading axes, and a range of the next one."""

    def read(selection: Selection) -> np.ndarray:
        offset, kept, left = 0, list(shape), [selection.get(dim, slice(None)) for dim in dims]
        while left and isinstance(index := left[0], int):
            offset += index * math.prod(kept[1:])
            del kept[0], left[0]
        if left and isinstance(states := left[0], slice):
            start, stop, _ = states.indices(kept[0])
            offset += start * math.prod(kept[1:])
            kept[0] = stop - start
        if any(each != slice(None) for each in left[1:]):
            raise DataError(
                f"{name} has the axes {', '.join(dims)}; in .npz, trajectories and times must come first; "
                "save it as .npy, which can be read in any order"
            )
        stream.seek(begin + offset * dtype.itemsize)
        size = math.prod(kept) * dtype.itemsize
        data = stream.read(size)
        if len(data) < size:
            raise DataError(f"{name} in {getattr(stream, 'name', 'the file')} is truncated; save it again")
        return np.frombuffer(data, dtype).reshape(kept)

    return read


def _open_xarray(path: Path, stack: contextlib.ExitStack) -> tuple[dict[str, Variable], dict[str, Any]]:
    try:
        import xarray
    except ImportError as error:
        raise LolaError(f"reading {path} needs xarray; pip install 'lola[import]'") from error
    engine = "zarr" if path.is_dir() else None
    if engine is None:
        check_hdf5(path, "write it again")  # NetCDF 4 is HDF5
    dataset = stack.enter_context(
        xarray.open_dataset(path, engine=engine, chunks=None, cache=False, decode_times=False)
    )
    variables = {
        str(name): Variable(
            tuple(map(str, array.dims)), tuple(array.shape), array.dtype, functools.partial(_select, array)
        )
        for name, array in dataset.variables.items()
    }
    return variables, dict(dataset.attrs)


def _select(array: Any, selection: Selection) -> np.ndarray:
    """The part of a variable of xarray."""
    return np.asarray(array.isel({dim: each for dim, each in selection.items() if dim in array.dims}).values)
