r"""Long reads of The Well: consecutive states of a trajectory, straight to where they are wanted.

A field that is stored in one piece, as The Well's are, is read about a megabyte at a time: what the file
gives is still in the processor's cache when it is checked and, for a vector, split into components.
"""

from collections.abc import Sequence

import h5py
import numpy as np

from lola.data.casting import field_error
from lola.data.well.fields import varies

PIECE_BYTES = 2**20  # bytes


def is_contiguous(field: h5py.Dataset, grid: tuple[int, ...]) -> bool:
    """Whether a field is stored in one piece and varies along all axes, `(N, L, *grid, d, ...)`."""
    plain = field.chunks is None and field.dtype.kind in "iuf"  # HDF5 does not convert booleans
    return plain and all(varies(field)) and field.shape[2 : 2 + len(grid)] == grid


def read_contiguous(
    fields: Sequence[h5py.Dataset], index: int, start: int, stop: int, out: np.ndarray, checked: bool = True
) -> None:
    """Read the states from `start` to `stop` of a trajectory.

    Arguments:
        fields: Plain fields, in channel order.
        index: The number of the trajectory in its file.
        out: Where they go, float32, with shape `(C, stop - start, *grid)`; the states of a channel lie one
            after another in memory.
        checked: Whether values that are missing are an error.

    Raises:
        OSError: The file cannot be read.
        ValueError: A value is missing: not finite, or a fill value; the message says where.
    """
    grid, channel = out.ndim - 2, 0
    for field in fields:
        shape = field.shape[2:]
        size = int(np.prod(shape[grid:]))
        target = out[channel : channel + size]
        channel += size
        piece = max(1, PIECE_BYTES // (field.dtype.itemsize * int(np.prod(shape))))
        scalar = len(shape) == grid
        buffer = np.empty((0 if scalar else min(piece, stop - start), *shape), np.float32)
        space = field.id.get_space()
        for begin in range(start, stop, piece):
            end = min(begin + piece, stop)
            part = target[:, begin - start : end - start]
            values = part[0] if scalar else buffer[: end - begin]
            # What `field.read_direct` does, without the Python that takes as long as copying a megabyte
            space.select_hyperslab((index, begin, *(0,) * len(shape)), (1, end - begin, *shape))
            field.id.read(h5py.h5s.create_simple(values.shape), space, values)
            if checked and field_error(values, values):
                name = field.name.rsplit("/", 1)[-1]
                fault = field_error(field[index, begin:end], values)  # which HDF5 has cast
                raise ValueError(f"{name} {fault} in states {begin} to {end - 1}")
            if not scalar:
                part[:] = np.moveaxis(values.reshape(*values.shape[: 1 + grid], -1), -1, 0)
