"""What a pass over the training set finds: moments, and values with which training would be spoilt."""

import json
import re
import tracemalloc

import h5py
import numpy as np
import pytest
from layouts import GRIDS, write_layout

from lola.core.errors import DataError
from lola.data import hdf5
from lola.data.faults import describe_faults, find_faults, merged, require_sound
from lola.data.systems import Bounds, Field, System
from lola.data.well.datasets import Datasets
from lola.data.well.scan import Scan, ScannedFile, default_block, describe_times
from lola.data.well.simulation_files import simulation_files
from lola.data.well.splits import open_split, state_bytes
from lola.data.well.writer import write_well_file

STEPS, GRID, FILES, COUNT = 6, (8, 8), 3, 2
SYSTEM = System(
    name="flow",
    datasets=("flow",),
    dimensions=2,
    fields=(Field("density", transform="log"), Field("velocity", 1)),
    bounds=(Bounds("density", 0.0, 100.0),),
    described=True,
)


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "flow" / "data" / "train"
    folder.mkdir(parents=True)
    for number in range(FILES):
        random = np.random.default_rng(number)
        write_well_file(
            folder / f"{number}.hdf5",
            dataset="flow",
            count=COUNT,
            trajectories=(
                {
                    "density": np.exp(random.normal(size=(STEPS, *GRID))),
                    "velocity": random.normal(size=(STEPS, *GRID, 2)),
                }
                for _ in range(COUNT)
            ),
            times=np.arange(STEPS) / 10,
            axes={"x": np.arange(8.0), "y": np.arange(8.0)},
            scalars={},
            boundary=np.full((2, 2), 2),
        )
    return tmp_path


def change(root, number, name, value, place=()):
    hdf5._keep_open.cache_clear()
    with h5py.File(root / "flow" / "data" / "train" / f"{number}.hdf5", "r+") as file:
        file[name][place] = value


def rows_of(split, block=2):
    files = (ScannedFile(split, file.members) for file in simulation_files(split))
    return [row for file in files for table in file.blocks(0, block) for row in table.to_pylist()]


def faults_of(root, block=2, system=SYSTEM, exclude=()):
    rows = rows_of(open_split(root, system, "train", exclude=exclude), block)
    faults = find_faults(rows, merged(rows)[1], system)
    return faults, rows


def test_sound_data_have_no_faults(root):
    faults, rows = faults_of(root)
    assert faults == []
    require_sound(faults, len(rows))


@pytest.mark.parametrize("dimensions", GRIDS)
def test_every_layout_has_its_moments(tmp_path, dimensions):
    write_layout(tmp_path / "anything" / "data" / "train" / "a.hdf5", dimensions)
    datasets = Datasets(tmp_path)
    split = datasets.open(datasets.infer("anything"), "train")
    x = np.stack([split.read(i, 0, split.steps).numpy() for i in range(len(split.trajectories))]).astype(
        float
    )
    (moments, _) = merged(rows_of(split))
    axes = (0, *range(2, x.ndim))
    np.testing.assert_allclose(moments.mean, x.mean(axes), atol=1e-14)
    np.testing.assert_allclose(moments.std, x.std(axes), atol=1e-14)


def test_moments_do_not_depend_on_the_block_or_its_pieces(root, monkeypatch):
    split = open_split(root, SYSTEM, "train")
    whole = rows_of(split, 0)
    assert all(rows_of(split, block) == whole for block in (1, 4, STEPS))
    monkeypatch.setattr("lola.data.well.scan.PIECE", 24)  # a state has 64 cells
    for moments, expected in zip(merged(rows_of(split, 1)), merged(whole), strict=True):
        np.testing.assert_allclose(moments.mean, expected.mean, atol=1e-14)
        np.testing.assert_allclose(moments.std, expected.std, rtol=1e-12)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (9.96921e36, "is missing"),
        (np.nan, "is missing"),
        (np.inf, "is missing"),
        (0.0, "its transform log is undefined"),
    ],
)
def test_values_with_which_training_would_be_spoilt(root, value, text):
    change(root, 1, "t0_fields/density", value, (1, 4, 3, 3))
    faults, rows = faults_of(root)
    assert text in str(faults[0])
    assert str(faults[0]).startswith("flow/train/1.hdf5#1: density ")
    assert str(faults[0]).endswith(" in state 4")
    with pytest.raises(
        DataError, match=r"training would be spoilt: .* leave out with --exclude flow/train/1.hdf5#1$"
    ):
        require_sound(faults, len(rows))
    faults, rows = faults_of(root, exclude=("flow/train/1.hdf5#1",))
    assert (faults, len(rows)) == ([], FILES * COUNT - 1)


def test_declared_fill_values(root):
    with h5py.File(root / "flow" / "data" / "train" / "0.hdf5", "r+") as file:
        file["t1_fields/velocity"].attrs["_FillValue"] = np.float32(-999)
        file["t1_fields/velocity"][0, 2, :4, 0, 1] = -999
    faults, _ = faults_of(root)
    assert str(faults[0]).startswith("flow/train/0.hdf5#0: velocity_y is missing (nan")
    assert "-999) in 4 cells of a state, in state 2" in str(faults[0])
    assert faults[0].spoils


def test_values_far_from_all_others(root):
    """Far values are reported; they spoil training where they widen the deviation of all."""
    change(root, 2, "t1_fields/velocity", 150.0, (0, 1, 5, 5, 0))
    faults, rows = faults_of(root)
    (fault,) = faults
    assert str(fault).startswith("flow/train/2.hdf5#0: velocity_x is 150, ")
    assert str(fault).endswith("deviations from its mean, in state 1")
    require_sound(faults, len(rows))
    change(root, 2, "t1_fields/velocity", -1e10, (0, 1, 5, 5, 0))
    faults, rows = faults_of(root)
    with pytest.raises(DataError, match=r"2.hdf5#0: velocity_x is -1e\+10, .*--exclude flow/train/2.hdf5#0$"):
        require_sound(faults, len(rows))


def test_a_field_that_is_far_everywhere_needs_a_transform(root):
    for number in range(FILES):
        for index in range(COUNT):
            change(root, number, "t1_fields/velocity", 1e6, (index, 1, 5, 5, 0))
    faults, rows = faults_of(root)
    (line,) = describe_faults(faults)
    assert line.startswith(
        "all trajectories: velocity_x is up to 9.91e+05 deviations from its mean in 6 of 6"
    )
    require_sound(faults, len(rows))


def test_values_outside_their_bounds(root):
    change(root, 0, "t0_fields/density", 250.0, (1, 3, 0, 0))
    (fault,) = faults_of(root)[0]
    assert re.fullmatch(
        r"flow/train/0\.hdf5#1: density is from \S+ to 250, outside its bounds \[0.0, 100.0\], in state 3",
        str(fault),
    )
    assert not fault.spoils


def test_states_that_repeat(root):
    with h5py.File(root / "flow" / "data" / "train" / "0.hdf5", "r+") as file:
        for name in ("t0_fields/density", "t1_fields/velocity"):
            file[name][1, 3:5] = file[name][1, 2]
    change(root, 1, "t0_fields/density", 1.0, (0, slice(2, 4)))  # one field alone may stay
    for block in (1, 2, 6):
        (fault,) = faults_of(root, block)[0]
        assert str(fault) == "flow/train/0.hdf5#1: repeats the state before in states 3, 4"


def test_trajectories_that_are_the_same(root):
    with h5py.File(root / "flow" / "data" / "train" / "0.hdf5", "r+") as file:
        for name in ("t0_fields/density", "t1_fields/velocity"):
            file[name][1] = file[name][0]
    (fault,) = faults_of(root)[0]
    assert str(fault) == "flow/train/0.hdf5#1: has the states of flow/train/0.hdf5#0"


def test_cells_that_were_never_written(root):
    """In chunks, and in one piece."""
    path = root / "flow" / "data" / "train" / "0.hdf5"
    with h5py.File(path, "r+") as file:
        for name, chunks in (("t0_fields/density", (1, 2, 4, 8)), ("t1_fields/velocity", None)):
            attributes, values = dict(file[name].attrs), file[name][:]
            del file[name]
            file.create_dataset(name, values.shape, np.float32, chunks=chunks).attrs.update(attributes)
            if chunks:
                file[name][0] = values[0]
                file[name][1, :4] = values[1, :4]
                file[name][1, 4:, :4] = values[1, 4:, :4]
    faults, rows = faults_of(root, system=SYSTEM)
    lines = [str(fault) for fault in faults if fault.kind == "missing"]
    written = "was never written, and HDF5 gives its fill value in states"
    assert lines == [
        f"flow/train/0.hdf5#0: velocity {written} 0, 1, 2 and 3 more",
        f"flow/train/0.hdf5#1: density {written} 4, 5",
        f"flow/train/0.hdf5#1: velocity {written} 0, 1, 2 and 3 more",
    ]
    with pytest.raises(DataError, match="never written"):
        require_sound(faults, len(rows))


@pytest.mark.parametrize(
    ("times", "text"),
    [
        ([0, 0.1, 0.2, 0.3], ""),
        (1e4 + np.arange(50, dtype=np.float32) / 16, ""),
        ([5.0], ""),
        ([0, np.nan, 2], "is not finite at state 1"),
        ([0, 1, 1, 2], "does not increase from state 1 to 2 (1, 1)"),
        ([0, 1, 2, 4, 5], "is not evenly spaced: 2 from state 2 to 3, 1 elsewhere"),
    ],
)
def test_times(times, text):
    assert describe_times(np.asarray(times, float)).startswith(text)
    assert bool(describe_times(np.asarray(times, float))) == bool(text)


def test_times_are_reported(root):
    change(root, 1, "dimensions/time", np.inf, 5)
    faults, rows = faults_of(root)
    assert [str(fault) for fault in faults] == [
        f"flow/train/1.hdf5#{index}: time is not finite at state 5" for index in range(COUNT)
    ]
    require_sound(faults, len(rows))


def test_faults_are_limited_in_number_and_the_rest_counted(root):
    for number in range(FILES):
        for index in range(COUNT):
            for step in range(STEPS):
                change(root, number, "t0_fields/density", np.nan, (index, step, 0, 0))
        change(root, number, "dimensions/time", np.nan, 0)
    faults, rows = faults_of(root)
    assert len(faults) == 12
    lines = describe_faults(2 * faults)
    assert len(lines) == 21
    assert lines[-1] == "and more: times 4"
    assert str(faults[0]).endswith("in states 0, 1, 2 and 3 more")
    with pytest.raises(
        DataError, match=r"6 of 6 trajectories: name the fields to use, without density, under .* key mask$"
    ):
        require_sound(faults, len(rows))


def test_a_constant_channel_is_named(root):
    for number in range(FILES):
        change(root, number, "t1_fields/velocity", 3.0, (..., 1))
    (fault,) = faults_of(root)[0]
    assert str(fault) == "all trajectories: velocity_y is 3 everywhere, up to rounding, and keeps its scale"


def test_a_row_survives_json(root):
    change(root, 0, "t0_fields/density", np.nan)
    (row, *_) = rows_of(open_split(root, SYSTEM, "train"))
    assert json.loads(json.dumps(row)) == row


@pytest.mark.parametrize("chunks", [None, (1, 1, 32, 64, 64)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_memory_is_that_of_the_states_that_are_read_at_once(tmp_path, chunks, dtype):
    """A state takes 7.3 MB; a piece in double precision, 2 MB."""
    grid = (64, 64, 64)
    path = tmp_path / "flow" / "data" / "train" / "a.hdf5"
    path.parent.mkdir(parents=True)
    write_well_file(
        path,
        dataset="flow",
        count=1,
        trajectories=[
            {
                "density": np.ones((8, *grid), np.float32),
                "field": np.ones((8, *grid, 3), np.float32),
                "velocity": np.ones((8, *grid, 3), np.float32),
            }
        ],
        times=np.arange(8.0),
        axes={name: np.arange(64.0) for name in "xyz"},
        scalars={},
        boundary=np.full((3, 2), 2),
    )
    with h5py.File(path, "r+") as file:
        for name in ("t0_fields/density", "t1_fields/field", "t1_fields/velocity"):
            attributes, values = dict(file[name].attrs), file[name][:].astype(dtype)
            del file[name]
            tail = (3,) * (values.ndim - 5)
            file.create_dataset(name, data=values, chunks=chunks and chunks + tail).attrs.update(attributes)
            del values
    datasets = Datasets(tmp_path)
    split = datasets.open(datasets.infer("flow"), "train")
    assert state_bytes(split) == 7 * 4 * 64**3
    assert 1 <= default_block(split) <= 9
    Scan(split, 0, 1)
    tracemalloc.start()
    Scan(split, 0, 8)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * 8 * state_bytes(split)
