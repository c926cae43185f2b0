"""Some trajectories of a file in The Well's format as a smaller file."""

from collections.abc import Sequence
from pathlib import Path

import h5py

from lola.data.hdf5 import open_hdf5
from lola.data.well.fields import varies
from lola.data.well.writer import writing
from lola.storage.stages import Location


def write_excerpt(source: Location, target: Path, trajectories: Sequence[int], steps: int) -> None:
    """Write the first states of trajectories of a file, with all else that it holds.

    Arguments:
        trajectories: Their numbers in the file, ascending.
        steps: How many states.

    Raises:
        DataError: The file is missing or corrupt.
        StorageError: The storage is full or read-only.
    """
    rows = list(trajectories)

    def copy(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Group):
            new = file.require_group(name)
        else:
            new = file.create_dataset(name, data=_part(name, item, rows, steps))
        new.attrs.update(item.attrs)

    with open_hdf5(source) as whole, writing(target, "w") as file:
        file.attrs.update(whole.attrs)
        file.attrs["n_trajectories"] = len(rows)
        whole.visititems(copy)


def _part(name: str, array: h5py.Dataset, rows: list[int], steps: int) -> object:
    if name == "dimensions/time":
        return array[rows, :steps] if array.ndim == 2 else array[:steps]
    if name.split("/")[0] in ("dimensions", "boundary_conditions"):
        return array[()]
    sample, time = varies(array)
    values = array[rows] if sample else array[()]
    return values[(slice(None),) * sample + (slice(steps),)] if time else values
