"""Statistics of a training set as a stage, and what follows for those that standardise."""

import dataclasses
import functools
import shutil

import h5py
import numpy as np
import pytest
import torch
import yaml

from lola.core.errors import DataError
from lola.data.description import EULER, SYSTEMS
from lola.data.faults import merged
from lola.data.statistics import with_statistics
from lola.data.systems import Bounds
from lola.data.transforms import Standardisation
from lola.data.well import find
from lola.data.well.datasets import Datasets
from lola.data.well.scan import ScannedFile
from lola.data.well.simulation_files import simulation_files
from lola.distributed.jobs import compute_statistics as statistics
from lola.distributed.jobs.compute_statistics import statistics_stage
from lola.distributed.jobs.datasource import WellDatasource
from lola.distributed.trials import Step, make
from lola.storage.stages import StorageError
from lola.workflows import presets
from lola.workflows.plan import SweepPlan


def rows(split, states):
    files = {n: ScannedFile(file.split, file.members) for n, file in enumerate(simulation_files(split))}
    tasks = WellDatasource(files, states).get_read_tasks(parallelism=1)
    return [row for task in tasks for table in task() for row in table.to_pylist()]


def test_blocks_of_any_size_give_the_same(well):
    split = Datasets(well).open(EULER, "train")
    x = torch.cat([split.read(i, 0, split.steps) for i in range(len(split.trajectories))], dim=1).double()
    y = torch.cat([torch.log1p(x[:3]), x[3:]]).numpy().reshape(5, -1)
    found = rows(split, 1)
    assert found == rows(split, 8) == rows(split, 0)
    physical, transformed = merged(found)
    assert physical.count == transformed.count == x[0].numel()
    for moments, expected in ((physical, x.numpy().reshape(5, -1)), (transformed, y)):
        np.testing.assert_allclose(moments.mean, expected.mean(1), atol=1e-14)
        np.testing.assert_allclose(moments.std, expected.std(1), rtol=1e-13)
        np.testing.assert_allclose(moments.minimum, expected.min(1), rtol=1e-15)
        np.testing.assert_allclose(moments.maximum, expected.max(1), rtol=1e-15)


@pytest.fixture
def here(monkeypatch):
    """Let the stage read in this process."""
    monkeypatch.setattr(
        statistics, "_stream", lambda splits, block, log: [r for s in splits for r in rows(s, block)][::-1]
    )


def test_the_manifest_counts_what_was_read_and_left_out(tmp_path, well, here):
    name = Datasets(well).open(EULER, "train").trajectories[1].id
    datasets, log = Datasets(well, exclude=(name,)), []
    split = datasets.open(EULER, "train")
    stage = statistics_stage(tmp_path, EULER, split.fingerprint)
    assert (
        stage.folder
        != statistics_stage(tmp_path, EULER, Datasets(well).open(EULER, "train").fingerprint).folder
    )
    statistics.compute_statistics(stage, EULER, datasets, log.append)
    manifest, count = stage.manifest(), len(split.trajectories)
    assert (manifest["trajectories"], manifest["states"]) == (count, count * split.steps)
    assert manifest["excluded"] == [name]
    written = yaml.safe_load((stage.folder / "stats.yaml").read_text())
    assert (written["excluded"], written["faults"]) == ([name], manifest["faults"])
    assert log == manifest["faults"]


def test_faults_are_listed_and_training_is_not_spoilt(tmp_path, well, here):
    datasets = shutil.copytree(well, tmp_path / "well")
    split = Datasets(datasets).open(EULER, "train")
    with h5py.File(split.trajectories[0].file, "r+") as file:
        file["t0_fields/pressure"][0, 5, 2, 2] = 9.96921e36
        file["dimensions/time"][3] += 0.01 * (file["dimensions/time"][1] - file["dimensions/time"][0]) + 1
    stage, log, name = statistics_stage(tmp_path, EULER, split.fingerprint), [], split.trajectories[0].id
    with pytest.raises(
        DataError, match=rf"{name}: pressure is missing .* in state 5; leave out with --exclude {name}$"
    ):
        statistics.compute_statistics(stage, EULER, Datasets(datasets), log.append)
    assert any("pressure is missing" in line for line in log)
    assert any("time is not evenly spaced" in line or "time does not increase" in line for line in log)
    assert not stage.finished
    assert not (stage.folder / "stats.yaml").exists()


@pytest.mark.parametrize(
    ("split", "value", "fault"),
    [
        ("test", np.nan, r"pressure is missing .* in state 5; leave out with --exclude"),
        ("valid", 9.96921e36, r"pressure is missing .* in state 5; leave out with --exclude"),
        (
            "test",
            1e20,
            r"pressure is 1e\+20, .* deviations from the training set's mean, in state 5; leave out",
        ),
    ],
)
def test_faults_of_other_splits_are_found_and_change_no_statistics(tmp_path, well, here, split, value, fault):
    sound = statistics_stage(tmp_path, EULER, Datasets(well).open(EULER, "train").fingerprint)
    statistics.compute_statistics(sound, EULER, Datasets(well), lambda _: None)
    checked = check(sound, Datasets(well))
    datasets = Datasets(shutil.copytree(well, tmp_path / "well"))
    assert find_check(sound, datasets).finished
    spoilt = datasets.open(EULER, split).trajectories[0]
    shutil.copy(spoilt.file, tmp_path / "added.hdf5")
    added = shutil.move(tmp_path / "added.hdf5", spoilt.file.with_name("added.hdf5"))
    with h5py.File(added, "r+") as file:
        file["t0_fields/pressure"][0, 5, 2, 2] = value
    name = datasets.open(EULER, split).trajectories[0].id
    assert name.endswith("/added.hdf5#0")
    again = find_check(sound, datasets)
    assert not again.finished
    with pytest.raises(DataError, match=rf"^scores would be spoilt: {name}: {fault}") as error:
        check(sound, datasets)
    assert str(error.value).endswith(f"--exclude {name}")
    assert sound.finished
    assert not again.finished
    compute = functools.partial(statistics.compute_statistics, again, EULER, datasets)
    with pytest.raises(DataError, match="scores would be spoilt"):
        make(Step(again, compute, {}, 1, keeps_manifest=True))
    assert sound.finished, "what has been trained needs the statistics"
    left = dataclasses.replace(datasets, exclude=(name,))
    assert find_check(sound, left).check.fingerprint not in (checked.fingerprint, again.check.fingerprint)
    assert name in check(sound, left).manifest()["excluded"]


def find_check(stage, datasets):
    """The same statistics, with the other splits of some datasets."""
    others = statistics.other_splits(datasets, EULER).items()
    return dataclasses.replace(stage, others={name: split.fingerprint for name, split in others})


def check(stage, datasets, log=lambda _: None):
    found = find_check(stage, datasets)
    statistics.compute_statistics(found, EULER, datasets, log)
    return found.check


def test_statistics_of_earlier_versions_are_completed(tmp_path, well, here):
    stage = statistics_stage(tmp_path, EULER, Datasets(well).open(EULER, "train").fingerprint)
    statistics.compute_statistics(stage, EULER, Datasets(well), lambda _: None)
    before = check(stage, Datasets(well))
    faults = before.manifest()["faults"]
    (before.folder / "manifest.json").unlink()
    (stage.folder / "scanned.parquet").unlink()
    stage.commit(mean=[1.0])
    assert check(stage, Datasets(well)).manifest()["faults"] == faults
    assert stage.manifest()["mean"] == [1.0], "statistics are not computed again"


def test_bounds_that_are_stated_later_are_compared_with_the_extremes(tmp_path, well, here):
    stage = statistics_stage(tmp_path, EULER, Datasets(well).open(EULER, "train").fingerprint)
    statistics.compute_statistics(stage, EULER, Datasets(well), lambda _: None)
    values = yaml.safe_load((stage.folder / "stats.yaml").read_text())
    low, high = values["min"]["momentum"][1], values["max"]["momentum"][1]
    for bounds, found in (((low, high), 0), ((None, high - 1), 1), ((low + 1, None), 1), ((None, None), 0)):
        system = dataclasses.replace(EULER, bounds=(Bounds("momentum_y", *bounds),))
        lines = statistics.left_bounds(stage, system)
        assert len(lines) == found
        assert all(line.startswith(f"momentum_y is from {low:g} to {high:g}") for line in lines)


def test_splits_that_do_not_exist_are_not_read(tmp_path, well, here):
    datasets = shutil.copytree(well, tmp_path / "well")
    for name in EULER.datasets:
        shutil.rmtree(datasets / name / "data" / "test", ignore_errors=True)
    stage = statistics_stage(tmp_path, EULER, Datasets(datasets).open(EULER, "train").fingerprint)
    statistics.compute_statistics(stage, EULER, Datasets(datasets), lambda _: None)
    assert stage.finished
    assert check(stage, Datasets(datasets)).inputs.keys() == {"statistics", "valid"}


def test_a_test_trajectory_that_was_trained_on_is_named(tmp_path, well, here):
    datasets = Datasets(shutil.copytree(well, tmp_path / "well"))
    trained, test = (datasets.open(EULER, name).trajectories[0] for name in ("train", "test"))
    shutil.copy(trained.file, test.file)
    stage, log = statistics_stage(tmp_path, EULER, datasets.open(EULER, "train").fingerprint), []
    statistics.compute_statistics(stage, EULER, datasets, log.append)
    check(stage, datasets, log.append)
    assert f"{test.id}: has the states of {trained.id}" in "\n".join(log)


def finish(stage, mean, std):
    stage.folder.mkdir(parents=True)
    stage.commit(mean=mean, std=std)


def test_datasets_with_computed_statistics(tmp_path, well):
    datasets = Datasets(well)
    stage = statistics_stage(tmp_path, EULER, datasets.open(EULER, "train").fingerprint)
    with pytest.raises(StorageError, match="no finished stage"):
        with_statistics(EULER, stage.folder)
    finish(stage, [1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 2.0, 2.0, 2.0, 0.0])
    split = Datasets(well, statistics=stage.folder).open(EULER, "test")
    assert (split.system.mean, split.system.std) == ((1.0, 2.0, 3.0, 4.0, 5.0), (2.0, 2.0, 2.0, 2.0, 1.0))
    assert split.fingerprint == datasets.open(EULER, "test").fingerprint


def test_a_system_without_statistics_is_not_standardised(well):
    system = Datasets(well).infer("euler_multi_quadrants_openBC")
    with pytest.raises(DataError, match=r"statistics of 0 of its 5 channels; .*compute_statistics"):
        Standardisation(system)


@pytest.mark.parametrize("bare", [False, True])
def test_everything_in_a_plan_waits_for_statistics(tmp_path, well, monkeypatch, bare):
    config = presets.smoke().replace(pixel=presets.smoke().pixel.replace(network=TINY))
    before = {step.stage.name for trial in SweepPlan(config, tmp_path, well).trials for step in trial.steps}
    if bare:
        bare_system = dataclasses.replace(EULER, mean=(), std=())
        monkeypatch.setattr(find, "get_system", lambda name: bare_system)
        monkeypatch.setitem(SYSTEMS, "euler", bare_system)
    else:
        config = config.replace(statistics="computed")
    plan = SweepPlan(config, tmp_path, well)
    first, *others = plan.trials
    assert first.steps[0].keeps_manifest
    assert first.steps[0].stage.others.keys() == {"valid", "test"}
    assert first.name == "statistics"
    stage = first.steps[0].stage
    for trial in others:
        assert stage in trial.needs or any(
            need.inputs.get("statistics") == stage.fingerprint for need in trial.needs
        )
    assert before.isdisjoint(step.stage.name for trial in plan.trials for step in trial.steps)
    assert [trial.name for trial in plan.towards(plan.autoencoder(16)).trials] == [
        "statistics",
        "autoencoder f8c16",
    ]
    finish(stage, [1.0] * 5, [2.0] * 5)
    setup = plan.trials[1].steps[0].run.args[0].setup()
    assert setup.training.split.system.mean == (1.0,) * 5
    assert setup.validation.standardise.system.std == (2.0,) * 5


TINY = presets.smoke().pixel.network.replace(patch_size=4)


def test_filters_reach_every_stage(tmp_path, well):
    config = presets.smoke().replace(pixel=None, exclude=("openBC",))
    plan = SweepPlan(config, tmp_path, well)
    assert len(plan.splits["train"].trajectories) == 2
    assert plan.data.fingerprint != SweepPlan(config.replace(exclude=()), tmp_path, well).data.fingerprint
    setup = plan.trials[0].steps[0].run.args[0].setup()
    assert len(setup.training.split.trajectories) == 2
    encode = plan.trials[0].steps[1].run.args[2]
    assert len(encode.open(EULER, "valid").trajectories) == 2
    evaluation = plan.evaluations[0].steps[0].run.args[0].datasets
    assert len(evaluation.open(EULER, "test").trajectories) == 2
