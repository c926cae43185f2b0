"""Whatever the layout allows is read as The Well's own reader reads it."""

import h5py
import layouts
import numpy as np
import pytest
from layouts import COUNT, GRIDS, STEPS, write_layout
from well_reader import compare

from lola.core.errors import DataError
from lola.data.well.datasets import Datasets

dummy = pytest.importorskip("the_well.utils.dummy_data")


def test_dummy_data(tmp_path):
    np.random.seed(0)
    (tmp_path / "dummy" / "data" / "train").mkdir(parents=True)
    for name in ("a", "b"):
        dummy.write_dummy_data(str(tmp_path / "dummy" / "data" / "train" / f"{name}.hdf5"))
    split = compare(tmp_path, "dummy")
    assert split.system.channels == ("field_x", "field_y", "constant_field", "time_varying_scalar")
    assert len(split.trajectories) == 4


@pytest.mark.parametrize("dimensions", GRIDS)
def test_every_layout(tmp_path, dimensions):
    write_layout(tmp_path / "anything" / "data" / "train" / "a.hdf5", dimensions, seed=1)
    write_layout(tmp_path / "anything" / "data" / "train" / "b.h5", dimensions, seed=2)
    split = compare(tmp_path, "anything")
    assert (split.grid, len(split.trajectories)) == (GRIDS[dimensions], 2 * COUNT)
    assert len(split.system.channels) == 5 + 2 * dimensions + 2 * dimensions**2
    assert split.trajectories[0].boundary[:, 0].tolist() == [2, 0, 1][:dimensions]
    if dimensions > 1:
        np.testing.assert_array_equal(split.coordinates[1], layouts.chebyshev(GRIDS[dimensions][1]))


@pytest.mark.parametrize(
    ("group", "name"), [("t0_fields", "mask"), ("t1_fields", "background"), ("scalars", "drive")]
)
def test_fingerprints_depend_on_every_kind_of_array(tmp_path, group, name):
    path = tmp_path / "anything" / "data" / "train" / "a.hdf5"
    write_layout(path, 2)
    datasets = Datasets(tmp_path)
    before = datasets.open(datasets.infer("anything"), "train").fingerprint
    with h5py.File(path, "r+") as file:
        file[group][name][...] += 1
    assert datasets.open(datasets.infer("anything"), "train").fingerprint != before


def test_an_axis_that_its_attributes_deny(tmp_path):
    path = tmp_path / "anything" / "data" / "train" / "a.hdf5"
    write_layout(path, 2)
    with h5py.File(path, "r+") as file:
        file["t1_fields/velocity"].attrs["time_varying"] = False
    datasets = Datasets(tmp_path)
    with pytest.raises(DataError, match=rf"velocity of shape \(3, {STEPS}, 6, 5, 2\), not \(3, 6, 5, 2\)"):
        datasets.open(datasets.infer("anything"), "train")
