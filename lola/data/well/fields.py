"""Arrays of The Well's files, with the axes that their attributes describe.

A field of tensor order `k` on `d` grid axes is stored as `(N, L, *grid, d, ..., d)`. The axis of trajectories
is absent where the field is the same in all of them (`sample_varying`), that of states where it is the same
at all times (`time_varying`), and a grid axis along which it does not vary (`dim_varying`) has one cell.
Scalars are stored as `(N, L)`, with the same two attributes. What is absent is repeated when it is read.
"""

from collections.abc import Iterator

import h5py
import numpy as np

from lola.data.systems import Field
from lola.data.well.attributes import flag, flags, texts

ORDERS = (0, 1, 2)
NUMBERS = "biuf"
"""The kinds of dtypes that are read as float32."""


def varies(array: h5py.Dataset) -> tuple[bool, bool]:
    """Whether an array has axes of trajectories and of states."""
    return flag(array.attrs.get("sample_varying", True)), flag(array.attrs.get("time_varying", True))


def stored_shape(
    array: h5py.Dataset, count: int, steps: int, grid: tuple[int, ...], order: int
) -> tuple[int, ...]:
    """The shape that a field's attributes ask for."""
    sample, time = varies(array)
    cells = flags(array.attrs.get("dim_varying", [True] * len(grid)))
    space = tuple(size if varying else 1 for size, varying in zip(grid, cells, strict=True))
    return (count,) * sample + (steps,) * time + space + (len(grid),) * order


def location(field: Field) -> str:
    """Where a file has a field."""
    return f"scalars/{field.name}" if field.role == "scalar" else f"t{field.order}_fields/{field.name}"


def read_field(
    array: h5py.Dataset, index: int, times: slice, length: int, grid: tuple[int, ...]
) -> np.ndarray:
    """Components of a field, or a scalar as a uniform field, in some states of a trajectory.

    Arguments:
        array: The field or scalar.
        index: The trajectory's number in the file.
        times: The states.
        length: Their number `T`.
        grid: The number of cells along each grid axis.

    Returns:
        Values `(d^order, T, *grid)`, components row by row, perhaps a read-only view that repeats them.
    """
    sample, time = varies(array)
    values = np.asarray(array[(index,) * sample + (times,) * time])
    values = values if time else values[None]
    if array.ndim <= sample + time:  # a scalar
        values = values.reshape(-1, *[1] * len(grid))
    values = values.reshape(*values.shape[: 1 + len(grid)], -1)
    values = np.broadcast_to(values, (length, *grid, values.shape[-1]))
    return np.moveaxis(values, -1, 0)


def read_row(array: h5py.Dataset, index: int, step: int, grid: tuple[int, ...]) -> np.ndarray:
    """The middle row of cells of one state, as stored."""
    sample, time = varies(array)
    first = int(sample) + int(time)
    if array.ndim <= first:  # a scalar, at all times
        return np.asarray(array[(index,) * sample])
    cells = array.shape[first : first + len(grid)]
    middle = tuple(size // 2 for size in cells[:-1])
    return np.ascontiguousarray(array[((index,) * sample + (step,) * time + middle)])


def read_axis(array: h5py.Dataset, index: int) -> np.ndarray:
    """A trajectory's times, or its coordinates along a grid axis."""
    return np.asarray(array[(index,) * (array.ndim > 1)], dtype=np.float64)


def fields_of(file: h5py.File) -> Iterator[Field]:
    """Every field in the file's order, then the scalars that vary in time."""
    for order in ORDERS:
        group = file[f"t{order}_fields"]
        for name in texts(group.attrs["field_names"]):
            yield Field(name, order, role="state" if varies(group[name])[1] else "constant")
    for name in texts(file["scalars"].attrs["field_names"]):
        if varies(file["scalars"][name])[1]:
            yield Field(name, role="scalar")
