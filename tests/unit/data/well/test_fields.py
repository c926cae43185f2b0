"""Whatever the layout allows is read as The Well's own reader reads it."""

import h5py
import layouts
import numpy as np
import pytest
import torch
from layouts import COUNT, GRIDS, STEPS, write_layout

from lola.core.errors import DataError
from lola.data.well.datasets import Datasets

the_well_data = pytest.importorskip("the_well.data")
dummy = pytest.importorskip("the_well.utils.dummy_data")


def compare(root, dataset, split="train", start=2, length=3, stride=2):
    """Compare every trajectory's window with The Well's, and return our split."""
    theirs = the_well_data.WellDataset(
        path=str(root / dataset),
        well_split_name=split,
        n_steps_input=1,
        n_steps_output=length - 1,
        min_dt_stride=stride,
        max_dt_stride=stride,
        normalize_time_grid=False,
    )
    system = Datasets(root).infer(dataset, split)
    ours = Datasets(root).open(system, split)
    stop = start + (length - 1) * stride + 1
    starts = ours.steps - (length - 1) * stride
    assert len(theirs) == starts * len(ours.trajectories)
    names = [name for order in range(3) for name in theirs.metadata.field_names[order]]
    constant = [name for order in range(3) for name in theirs.metadata.constant_field_names[order]]
    assert system.channels == (*names, *constant, *theirs.metadata.scalar_names)
    assert list(ours.constants) == theirs.metadata.constant_scalar_names
    assert ours.grid == theirs.metadata.spatial_resolution
    for i in range(len(ours.trajectories)):
        sample = theirs[i * starts + start]
        window = ours.read(i, start, stop, stride)
        fields = torch.cat([sample["input_fields"], sample["output_fields"]]).movedim(-1, 0)
        torch.testing.assert_close(window[: len(names)], fields, rtol=0, atol=0)
        if constant:
            given = window[len(names) : len(names) + len(constant)]
            expected = sample["constant_fields"].movedim(-1, 0)[:, None].expand_as(given)
            torch.testing.assert_close(given, expected, rtol=0, atol=0)
        if theirs.metadata.scalar_names:
            scalars = torch.cat([sample["input_scalars"], sample["output_scalars"]]).float().T
            uniform = window[len(names) + len(constant) :]
            torch.testing.assert_close(
                uniform, scalars.reshape(*scalars.shape, *[1] * len(ours.grid)).expand_as(uniform)
            )
        constants = sample["constant_scalars"].double().numpy()
        np.testing.assert_allclose(ours.trajectories[i].scalars, constants)
        np.testing.assert_array_equal(ours.trajectories[i].boundary, sample["boundary_conditions"].numpy())
        times = torch.cat([sample["input_time_grid"], sample["output_time_grid"]]).numpy()
        np.testing.assert_array_equal(ours.axis(i, "time")[start:stop:stride], times)
        grid = np.stack(np.meshgrid(*ours.coordinates, indexing="ij"), axis=-1)
        np.testing.assert_array_equal(grid, sample["space_grid"].numpy())
    return ours


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
