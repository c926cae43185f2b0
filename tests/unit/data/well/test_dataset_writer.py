"""Arrays become datasets that The Well's own reader opens, whole or not at all, a trajectory at a time."""

import tracemalloc

import h5py
import numpy as np
import pytest
import torch
import yaml

import lola
from lola.core.errors import ConfigError, DataError
from lola.data.well import dataset_writer
from lola.data.well.given import assign_splits

COUNT, STEPS, GRID = 10, 5, (6, 4)
AXES = {"x": np.arange(6) / 6, "y": np.linspace(0, 1, 4)}
BOUNDARIES = {"x": "periodic", "y": ("wall", "open")}


def arrays():
    random = np.random.default_rng(0)
    shape = (COUNT, STEPS, *GRID)
    return {
        "density": random.uniform(1, 2, shape),
        "velocity": random.normal(size=(*shape, 2)),
        "stress": random.normal(size=(*shape, 2, 2)).astype(np.float32),
        "feed": np.arange(COUNT) / 8,
        "drive": random.normal(size=(COUNT, STEPS)),
    }


def one_by_one(given):
    return ({name: values[i] for name, values in given.items()} for i in range(COUNT))


def write(folder, trajectories=None, **options):
    options = {"axes": AXES, "boundaries": BOUNDARIES} | options
    return lola.write_well(folder, "mine", arrays() if trajectories is None else trajectories, **options)


@pytest.mark.parametrize("streamed", [False, True])
def test_the_well_reads_what_was_given(tmp_path, streamed, monkeypatch):
    """In several files: every field, constant, constant field and boundary, and each trajectory once."""
    reader = pytest.importorskip("the_well.data")
    monkeypatch.setattr(dataset_writer, "FILE_BYTES", 3 * 4 * STEPS * 24 * 7)  # three trajectories
    given = arrays()
    mask, depth = np.eye(6)[:, :4] > 0, np.random.default_rng(1).normal(size=(COUNT, *GRID, 2))
    path = write(
        tmp_path,
        one_by_one(given) if streamed else given,
        count=COUNT if streamed else None,
        times=np.linspace(0, 2, STEPS),
        scalars={"kill": 0.5, "number": np.arange(COUNT)},
        constants={"mask": mask, "depth": depth},
        splits=(0.7, 0.1, 0.2),
    )
    assert sorted(str(each.relative_to(path)) for each in path.rglob("*.*")) == [
        "data/test/mine-000.hdf5",
        "data/train/mine-000.hdf5",
        "data/train/mine-001.hdf5",
        "data/train/mine-002.hdf5",
        "data/valid/mine-000.hdf5",
        "stats.yaml",
    ]
    seen = []
    for split in ("train", "valid", "test"):
        theirs = reader.WellDataset(
            path=str(path),
            well_split_name=split,
            n_steps_output=STEPS - 1,
            use_normalization=False,
            return_grid=True,
        )
        assert theirs.metadata.constant_scalar_names == ["kill", "number", "feed"]
        ours = lola.open_well(tmp_path, "mine", split)
        assert ours.constants == ("kill", "number", "feed")
        for k in range(len(theirs)):
            sample = theirs[k]
            kill, number, feed = sample["constant_scalars"].tolist()
            i = int(number)
            seen.append(i)
            assert (kill, feed) == (0.5, i / 8)
            states = torch.cat([sample["input_fields"], sample["output_fields"]]).numpy()
            expected = [
                given["density"][i, ..., None],
                given["velocity"][i],
                given["stress"][i].reshape(STEPS, *GRID, 4),
            ]
            np.testing.assert_array_equal(states, np.concatenate(expected, -1).astype(np.float32))
            constant = np.concatenate([mask[..., None], depth[i]], -1).astype(np.float32)
            np.testing.assert_array_equal(sample["constant_fields"].numpy(), constant)
            assert sample["boundary_conditions"].tolist() == [[2, 2], [0, 1]]
            np.testing.assert_array_equal(
                ours.read(k, 0, STEPS)[:7].movedim(0, -1).numpy(), states
            )  # before constant fields, scalars
            np.testing.assert_allclose(ours.read(k, 0, STEPS)[-1, :, 0, 0].numpy(), given["drive"][i], 1e-6)
            np.testing.assert_allclose(ours.axis(k, "time"), np.linspace(0, 2, STEPS))
    assert sorted(seen) == list(range(COUNT))


def test_statistics_are_of_the_training_set(tmp_path):
    given = arrays()
    splits = ["train"] * 6 + ["valid"] * 2 + ["test"] * 2
    path = write(tmp_path, given, splits=splits, constants={"mask": np.eye(6)[:, :4]})
    statistics = yaml.safe_load((path / "stats.yaml").read_text())
    assert statistics["mean"]["density"] == pytest.approx(given["density"][:6].mean(), rel=1e-6)
    assert statistics["std"]["mask"] == pytest.approx(np.eye(6)[:, :4].std())
    assert statistics["std_delta"]["velocity"] == pytest.approx(
        np.diff(given["velocity"][:6], axis=1).std((0, 1, 2, 3)), rel=1e-5
    )


def test_shares_are_of_trajectories_and_a_function_of_the_seed():
    one, other = assign_splits(100, (0.8, 0.1, 0.1), 0), assign_splits(100, (0.8, 0.1, 0.1), 1)
    for each in (one, other):
        assert [each.count(name) for name in ("train", "valid", "test")] == [80, 10, 10]
    assert one == assign_splits(100, (0.8, 0.1, 0.1), 0) != other
    assert sorted(assign_splits(3, (0.9, 0.05, 0.05), 0)) == ["test", "train", "valid"]
    assert set(assign_splits(4, (0.5, 0, 0.5), 0)) == {"train", "test"}


def test_a_dataset_is_replaced_on_demand_alone_and_its_description_kept(tmp_path):
    path = write(tmp_path)
    (path / "system.yaml").write_text("stride: 2\n")
    before = {each: each.read_bytes() for each in path.rglob("*.*")}
    with pytest.raises(DataError, match=r"mine/data exists; give another name"):
        write(tmp_path)
    with pytest.raises(DataError, match="density of trajectory 9, states 0 to 4 is not finite"):
        write(tmp_path, arrays() | {"density": damaged(9)}, overwrite=True)
    assert {each: each.read_bytes() for each in path.rglob("*.*")} == before
    write(tmp_path, arrays() | {"feed": np.ones(COUNT)}, overwrite=True)
    assert lola.open_well(tmp_path, "mine").parameters(0)[0] == 1
    assert (path / "system.yaml").read_text() == "stride: 2\n"
    assert sorted(each.name for each in path.iterdir()) == ["data", "stats.yaml", "system.yaml"]
    (path / "data" / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"notes\.txt is no file of a dataset and would be deleted"):
        write(tmp_path, overwrite=True)


def damaged(i):
    values = arrays()["density"]
    values[i, 2, 3, 1] = np.nan
    return values


def without(name):
    return {key: value for key, value in arrays().items() if key != name}


FAULTS = {
    "not finite": ({"density": damaged(4)}, {}, "states 0 to 4 is not finite; of cells in land .* mask"),
    "too large": ({"feed": np.full(COUNT, 1e300)}, {"scalars": {"a": 1e300}}, "scalar a holds 1e.300"),
    "complex": ({"density": arrays()["density"] * 1j}, {}, "is complex128, not real numbers"),
    "other grid": (
        {"density": np.ones((COUNT, STEPS, 4, 6))},
        {},
        r"density has shape \(5, 4, 6\) in a trajectory of 5 states; a field on the axes x, y has shape "
        r"\(L, 6, 4\), \(L, 6, 4, 2\) or \(L, 6, 4, 2, 2\)",
    ),
    "other count": (
        {"feed": np.ones(3)},
        {},
        r"feed has shape \(3,\), and density has shape|and density has",
    ),
    "times": ({}, {"times": np.arange(7)}, "in a trajectory of 7 states"),
    "unordered times": ({}, {"times": np.ones(STEPS)}, "coordinates of time must increase"),
    "no such axis": ({}, {"boundaries": {"x": "open"}}, "boundaries must name the axes x, y, not x"),
    "no such boundary": (
        {},
        {"boundaries": "closed"},
        "boundary of x is 'closed'; choose from wall, open, per",
    ),
    "same name": ({}, {"scalars": {"density": 1}}, "density is the name of more than one thing"),
    "constant field": (
        {},
        {"constants": {"mask": np.ones((3, 3))}},
        r"constant field mask has shape \(3, 3\)",
    ),
    "shares": ({}, {"splits": (0.5, 0.1, 0.1)}, "splits must be the shares of train, valid and test"),
    "no training": ({}, {"splits": ["test"] * COUNT}, "has no trajectory for train"),
    "unknown split": ({}, {"splits": ["validation"] * COUNT}, "names validation; choose from train, valid"),
    "count": ({}, {"count": 7}, "count is 7 for 10 trajectories"),
    "coordinates": ({}, {"axes": {"x": 6, "y": 4}}, "axis x must be a list of coordinates"),
    "four axes": ({}, {"axes": {key: [0.0] for key in "abcd"}}, "axes must name 1 to 3 grid axes"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_does_not_fit_is_refused_in_one_line_and_leaves_nothing(tmp_path, fault):
    changes, options, message = FAULTS[fault]
    with pytest.raises((ConfigError, DataError), match=message) as caught:
        write(tmp_path, arrays() | changes, **options)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("trajectories", "count", "message"),
    [
        (one_by_one(arrays()), None, "give count="),
        (one_by_one(arrays()), COUNT + 1, "count is 11, and there are 10"),
        (one_by_one(arrays()), COUNT - 1, "count is 9, and there are more"),
        (
            [{"a": np.ones((STEPS, *GRID))}] * 2 + [{"b": np.ones((STEPS, *GRID))}],
            None,
            "trajectory 2 has 5 s",
        ),
        ([{"a": np.ones((4, *GRID))}] * 3 + [{"a": np.ones((5, *GRID))}], None, "5 states of the scalar f"),
        ([np.ones((STEPS, *GRID))] * 4, None, "trajectory 0 is no mapping"),
        ({}, None, "trajectories has no arrays"),
        ([{"a": 1.0}] * 4, None, "a trajectory has no field"),
    ],
)
def test_trajectories_that_do_not_fit_are_refused(tmp_path, trajectories, count, message):
    with pytest.raises(ConfigError, match=message):
        write(tmp_path, trajectories, count=count)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["", "../mine", ".mine", "a b"])
def test_names_that_are_no_folders_are_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="the name of the dataset is"):
        lola.write_well(tmp_path, name, arrays(), axes=AXES, boundaries=BOUNDARIES)
    with pytest.raises(ConfigError, match="a folder of this machine, not s3://bucket"):
        lola.write_well("s3://bucket", "mine", arrays(), axes=AXES, boundaries=BOUNDARIES)


def test_memory_is_that_of_a_block_of_states(tmp_path):
    """Twelve trajectories of 8 MB in a memory-mapped file of HDF5: 96 MB, of which 3 MB are held."""
    source = tmp_path / "source.hdf5"
    with h5py.File(source, "w") as file:
        file.create_dataset("u", (12, 128, 128, 128), dtype=np.float32, fillvalue=1.0)
        tracemalloc.start()
        try:
            x = np.arange(128.0)
            lola.write_well(tmp_path, "large", {"u": file["u"]}, axes={"x": x, "y": x}, boundaries="open")
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 16e6, f"{peak / 1e6:.1f} MB"
