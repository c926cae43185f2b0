"""Single trajectories that are left out, and values that no physical field has."""

import runpy
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from layouts import COUNT, write_layout

import lola
from lola.core.errors import ConfigError, DataError
from lola.data.well.datasets import Datasets
from lola.data.well.simulation_files import simulation_files
from lola.distributed.jobs.encode import open_splits
from lola.emulation.cache_config import CacheConfig
from lola.workflows import presets
from lola.workflows.plan import SweepPlan

EXPERIMENTS = Path(__file__).parents[4] / "experiments"


@pytest.fixture
def root(tmp_path):
    for seed, name in enumerate(("a", "b", "ba")):
        write_layout(tmp_path / "anything" / "data" / "train" / f"{name}.hdf5", 1, seed)
    return tmp_path


def opened(root, *exclude):
    datasets = Datasets(root, exclude=exclude)
    return datasets.open(datasets.infer("anything"), "train")


@pytest.mark.parametrize("name", ["a.hdf5#1", "a#1", "train/a.hdf5#1", "anything/train/a.hdf5#1"])
def test_a_trajectory_is_left_out_by_any_of_its_names(root, name):
    every, split = opened(root), opened(root, name)
    assert split.excluded == ("anything/train/a.hdf5#1",)
    assert [each.id for each in split.trajectories] == [
        each.id for each in every.trajectories if each.id != "anything/train/a.hdf5#1"
    ]
    assert torch.equal(split.read(1, 0, 3), every.read(2, 0, 3))
    assert [len(file.members) for file in simulation_files(split)] == [COUNT - 1, COUNT, COUNT]
    assert split.fingerprint != every.fingerprint
    Datasets(root, exclude=(name,)).check(split.system)


def test_fingerprints_are_of_what_is_left(root):
    every = opened(root).fingerprint
    found = {opened(root, *names).fingerprint for names in (["a#0"], ["a#1"], ["a#0", "a#1"], ["b#0"])}
    assert len(found | {every}) == 5
    assert opened(root, "a#1", "a#0").fingerprint == opened(root, "a#0", "a.hdf5#1").fingerprint
    assert opened(root, "train/b.hdf5#9").fingerprint == every
    whole = opened(root, *(f"a#{index}" for index in range(COUNT)))
    (root / "anything" / "data" / "train" / "a.hdf5").rename(root / "a.hdf5")
    assert whole.fingerprint == opened(root).fingerprint
    assert len(whole.excluded) == COUNT


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            {"exclude": ("a#17",)},
            "--exclude a#17 names no trajectory: anything/train/a.hdf5 has 3; they count f",
        ),
        (
            {"exclude": ("c#0",)},
            "--exclude c#0 names no trajectory: no file is called c; the nearest are .*a.hdf5",
        ),
        ({"exclude": ("hdf5#0",)}, "--exclude hdf5#0 names no trajectory"),
        ({"exclude": ("b", "d.hdf5")}, "--exclude d.hdf5 matches no file in .*; the nearest are .*a.hdf5"),
        ({"include": ("a", "bb")}, "--include bb matches no file in .*; the nearest are .*ba.hdf5"),
        ({"include": ("a#0",)}, "--include a#0 matches no file"),
    ],
)
def test_names_that_are_of_nothing(root, option, message):
    system = Datasets(root).infer("anything")
    with pytest.raises(ConfigError, match=message) as error:
        Datasets(root, **option).check(system)
    assert "\n" not in str(error.value)
    for split in ("valid", "test"):  # what one split has not, another one may have
        write_layout(root / "anything" / "data" / split / "c.hdf5", 1, 0)
        write_layout(root / "anything" / "data" / split / "dd.hdf5", 1, 0)
    Datasets(root, ("c.hdf5",), ("c#0", "dd")).check(system)


def test_every_command_refuses_names_that_are_of_nothing(root, monkeypatch):
    for split in ("valid", "test"):
        write_layout(root / "anything" / "data" / split / "a.hdf5", 1, 0)
    folder = str(root / "anything")
    for option in ({"exclude": ("c.hdf5",)}, {"exclude": ("c#0",)}, {"include": ("a", "c.hdf5")}):
        datasets = Datasets(root, **option)
        config = presets.smoke(folder, storage=str(root)).replace(**option)
        command = [f"--{name}={value}" for name, values in option.items() for value in values[-1:]]
        arguments = ["compute_statistics.py", folder, "--storage", str(root), *command]
        monkeypatch.setattr(sys, "argv", arguments)
        for run in (
            lambda config=config: SweepPlan(config, root, root),
            lambda datasets=datasets: open_splits(datasets, datasets.infer("anything"), CacheConfig()),
            lambda option=option: lola.open_well(root, "anything", **option),
        ):
            with pytest.raises(ConfigError, match=r"--(exclude|include) c(.hdf5)?.* (matches|names) no "):
                run()
        with pytest.raises(SystemExit, match=r"error: --(exclude|include) c(.hdf5)?.* (matches|names) no "):
            runpy.run_path(str(EXPERIMENTS / "compute_statistics.py"), run_name="__main__")


def test_no_trajectory_is_left(root):
    with pytest.raises(DataError, match="leaves out all trajectories"):
        opened(root, "b", *(f"a#{index}" for index in range(COUNT)))


@pytest.mark.parametrize(
    ("value", "message"), [(9.96921e36, r"holds the fill value 9.96921e\+36"), (np.nan, "is not finite")]
)
def test_values_that_are_missing_are_named_with_the_remedy(root, value, message):
    with h5py.File(root / "anything" / "data" / "train" / "b.hdf5", "r+") as file:
        file["t0_fields/density"][1, 4, 3] = value
    split = opened(root)
    buffer = np.empty((len(split.system.channels), 4, *split.grid), np.float32)
    for read in (lambda: split.read(COUNT + 1, 3, 7), lambda: split.read_into(buffer, COUNT + 1, 3, 7)):
        with pytest.raises(DataError, match=rf"density {message} in states") as error:
            read()
        assert str(error.value).endswith("leave the trajectory out with --exclude anything/train/b.hdf5#1")
    split.read_into(buffer, COUNT + 1, 3, 7, checked=False)
    left = opened(root, "b.hdf5#1")
    for i in range(len(left.trajectories)):
        left.read(i, 0, left.steps)
