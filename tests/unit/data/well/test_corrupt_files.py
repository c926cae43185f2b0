"""Well files with lost blocks or cut anywhere: an error of ours, or the numbers that were written.

Changed bytes are another matter: HDF5 keeps no checksums in The Well's layout, so that a changed value is a
value, and the HDF5 library itself may crash or hang at changed metadata.
"""

import h5py
import numpy as np
import pytest
from corruption import damaged_copies

from lola.core.errors import DataError, LolaError
from lola.data import hdf5
from lola.data.description import EULER
from lola.data.systems import Boundary
from lola.data.well.header import infer_system
from lola.data.well.splits import open_split
from lola.data.well.writer import write_well_file

DATASET = EULER.datasets[0]


@pytest.fixture
def path(tmp_path):
    rng = np.random.default_rng(0)
    shapes = {field.name: (3, 4, 4, *(2,) * field.order) for field in EULER.fields}
    path = tmp_path / DATASET / "data" / "train" / "a.hdf5"
    path.parent.mkdir(parents=True)
    write_well_file(
        path,
        dataset=DATASET,
        count=2,
        trajectories=({name: 1 + rng.random(shape) for name, shape in shapes.items()} for _ in range(2)),
        times=np.arange(3.0),
        axes={"x": np.arange(4.0), "y": np.arange(4.0)},
        scalars={"gamma": 1.4},
        boundary=np.full((2, 2), Boundary.OPEN),
    )
    return path


def read(path):
    """All that is read of a file."""
    hdf5._keep_open.cache_clear()
    infer_system(path, DATASET)
    split, found = open_split(path.parents[3], EULER, "train"), []
    for i in range(len(split.trajectories)):
        states = np.empty((5, 3, 4, 4), np.float32)
        split.read_into(states, i, 0, 3)
        found += [states, split.read(i, 0, 3).numpy(), split.parameters(i).numpy(), split.axis(i, "time")]
    return np.concatenate([each.ravel() for each in found]).tolist()


def places_of_values(path):
    """The offsets of the bytes of arrays."""
    values = set()

    def add(_, each):
        if isinstance(each, h5py.Dataset) and each.id.get_offset() is not None:
            start = each.id.get_offset()
            values.update(range(start, start + each.id.get_storage_size()))

    with h5py.File(path) as file:
        file.visititems(add)
    return values


def test_lost_blocks_of_metadata_and_cuts_are_errors_or_harmless(path):
    whole, content, values, refused = read(path), path.read_bytes(), places_of_values(path), 0
    metadata = set(range(len(content))) - values
    for what, copy in damaged_copies(content, 80, places=metadata, kinds="zero cut"):
        kept = bytearray(copy)
        for place in values.intersection(range(len(kept))):
            kept[place] = content[place]
        path.write_bytes(kept)
        try:
            found = read(path)
        except LolaError:
            refused += 1
        else:
            assert what.startswith("zero"), what
            assert found == whole, what
    assert refused > 40


def test_a_number_of_trajectories_that_no_memory_holds_is_an_error(path):
    with h5py.File(path, "r+") as file:
        file.attrs["n_trajectories"] = 2**57
    with pytest.raises(DataError, match=r"has energy of shape \(2, 3, 4, 4\), not \(144115188075855872"):
        read(path)
