"""Trajectories of 21 and of 9 states in one dataset: windows, statistics, caches, evaluations, plans."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from caches import encode_cache
from inline import run_inline
from solo_training import train_in_this_process
from stages import finish_autoencoder, small_sweep
from waves import write_mixed_dataset

from lola.core.errors import ConfigError, DataError
from lola.data.description import EULER
from lola.data.faults import merged
from lola.data.latent_shards import verify
from lola.data.latents import LatentSplit, LatentWindows
from lola.data.transforms import Standardisation
from lola.data.well.scan import ScannedFile
from lola.data.well.simulation_files import simulation_files
from lola.data.well.splits import open_split
from lola.data.well.windows import WellWindows
from lola.emulation.cache_config import CacheConfig
from lola.emulation.emulator import load_autoencoder
from lola.evaluation.evaluation_config import EvaluationConfig
from lola.evaluation.trajectory import choose_parts
from lola.storage.event_log import read_events
from lola.training.order import OrderConfig
from lola.training.stream import BatchStream
from lola.workflows.plan import SweepPlan
from lola.workflows.sweep_report import _short

LENGTHS = (9, 9, 21, 21)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    return write_mixed_dataset(tmp_path_factory.mktemp("mixed"))


def test_each_trajectory_has_its_own_states(mixed):
    split = open_split(mixed, EULER, "train")
    assert (split.lengths, split.steps) == (LENGTHS, 21)
    assert split.read(0, 0, 9).shape[1] == 9
    assert split.read(2, 0, 21).shape[1] == 21
    with pytest.raises(IndexError, match=r"states 8 to 10 of .*a_short\.hdf5#1, which has 9"):
        split.read(1, 8, 10)


@pytest.mark.parametrize("span", [3, 9, 10])
def test_windows_stay_within_their_trajectories(mixed, span):
    split, standardise = open_split(mixed, EULER, "train"), Standardisation(EULER)
    windows = WellWindows(split, standardise, span)
    own = [(i, start) for i, steps in enumerate(LENGTHS) for start in range(steps - span + 1)]
    assert len(windows) == len(own)
    assert windows.numbering.short == (2 if span == 10 else 0)
    stream = BatchStream(windows, seed=0, batch_size=4, order=OrderConfig(block=3, memory=1e-3))
    seen = []
    for step in range(-(-len(own) // 4)):
        batch, keys = stream.batch(step)
        for number, states in zip(stream.windows(step), batch.states, strict=True):
            i, start = own[number]
            assert torch.equal(states, standardise.forward(split.read(i, start, start + span)))
            assert torch.equal(states, windows.read(number, keys[0])[0])
            seen.append(number)
    assert sorted(seen[: len(own)]) == list(range(len(own)))
    with pytest.raises(DataError, match="at most 21 states have no window of 22"):
        WellWindows(split, standardise, 22)


def test_statistics_are_of_states_that_exist(mixed):
    split = open_split(mixed, EULER, "train")
    files = {k: ScannedFile(split, file.members) for k, file in enumerate(simulation_files(split))}
    rows = [row for k, file in files.items() for table in file.blocks(k, 16) for row in table.to_pylist()]
    assert [row["states"] for row in rows] == list(LENGTHS)
    physical, _ = merged(rows)
    x = torch.cat([split.read(i, 0, steps) for i, steps in enumerate(LENGTHS)], dim=1).double()
    assert physical.count == x[0].numel()
    np.testing.assert_allclose(physical.mean, x.flatten(1).mean(1), atol=1e-14)
    np.testing.assert_allclose(physical.std, x.flatten(1).std(1, correction=0), rtol=1e-13)


@pytest.fixture(scope="module")
def cache(tmp_path_factory, mixed):
    root = tmp_path_factory.mktemp("cache")
    autoencoder = finish_autoencoder(root, mixed)
    return encode_cache(root, mixed, autoencoder, CacheConfig(block=8, variants=2)), autoencoder


def test_a_cache_holds_every_trajectory_to_its_end(mixed, cache):
    stage, autoencoder = cache
    model, split = load_autoencoder(autoencoder.folder), open_split(mixed, EULER, "train")
    latents = LatentSplit(stage.folder, "train")
    assert latents.lengths.tolist() == [9] * 4 + [21] * 4
    assert (latents.steps, stage.manifest()["shape"][0]) == (21, 21)
    for row, i in ((0, 0), (6, 3)):
        with torch.no_grad():
            expected = model.encode(
                Standardisation(EULER).forward(split.read(i, 0, LENGTHS[i])).movedim(1, 0)
            )
        np.testing.assert_allclose(latents.latents(row), expected, atol=1e-5)
    assert list(verify(stage.folder)) == []
    windows = LatentWindows(latents, length=3, stride=4)
    own = [(row, start) for row, steps in enumerate(latents.lengths) for start in range(steps - 8)]
    assert len(windows) == len(own) == 4 + 4 * 13
    stream = BatchStream(windows, seed=0, batch_size=len(own))
    for number, states in zip(stream.windows(0), stream.batch(0)[0].states, strict=True):
        row, start = own[number]
        np.testing.assert_array_equal(states.movedim(0, 1), latents.latents(row)[start : start + 9 : 4])
    assert LatentWindows(latents, length=4, stride=4).numbering.short == 4
    with pytest.raises(DataError, match=r"span 22 steps, the train trajectories of .* have 21 at most"):
        LatentWindows(latents, length=22)


def test_a_cache_that_goes_on_has_the_same_bytes(tmp_path, mixed, cache):
    stage, _ = cache
    again = encode_cache(
        tmp_path, mixed, finish_autoencoder(tmp_path, mixed), CacheConfig(block=8, variants=2)
    )
    paths = sorted(path.relative_to(again.folder) for path in again.folder.rglob("*.parquet"))
    lost = again.folder / paths[0]
    lost.unlink()
    (again.folder / "manifest.json").unlink()
    encode_cache(tmp_path, mixed, finish_autoencoder(tmp_path, mixed), CacheConfig(block=8, variants=2))
    for path in paths:
        assert (again.folder / path).read_bytes() == (stage.folder / path).read_bytes()


def test_trainings_say_how_many_trajectories_are_too_short(mixed, tmp_path, monkeypatch):
    train_in_this_process(monkeypatch)
    config = small_sweep()
    config = config.replace(pixel_training=config.pixel_training.replace(steps=1, report_every=1, warmup=0))
    plan = SweepPlan(config, tmp_path, mixed)
    stage = plan.emulator(plan.planned("neural_solver", None))
    for trial in SweepPlan(config, tmp_path, mixed).towards(stage).trials:
        for step in trial.steps:
            step.run()
    notices = [event["text"] for _, event in read_events(stage.folder) if event["kind"] == "notice"]
    assert any("left out 2 of 4 trajectories" in line and "spans 17 steps" in line for line in notices)


def evaluation_plan(mixed, root, monkeypatch, **changes):
    run_inline(monkeypatch)
    config = small_sweep()
    plan = SweepPlan(config.replace(evaluation=config.evaluation.replace(**changes)), root, mixed)
    plan.evaluations = plan.evaluations[:1]
    return plan


def test_evaluations_go_to_the_end_of_each_trajectory(mixed, tmp_path, monkeypatch):
    plan = evaluation_plan(mixed, tmp_path, monkeypatch, starts=(0, 8), trajectories=4, stride=4)
    (step,) = plan.evaluations[0].steps
    step.run()
    stage = step.stage
    rows = pq.read_table(stage.folder / "metrics.parquet").to_pandas()
    rows = rows[(rows["metric"] == "vrmse") & (rows["field"] == "density")]
    leads = rows.groupby(["trajectory", "start"], observed=True)["lead_time"].apply(list).to_dict()
    name = "euler_multi_quadrants_openBC/test/"
    assert leads == {
        (f"{name}a_short.hdf5#0", 0): [4, 8],
        (f"{name}a_short.hdf5#1", 0): [4, 8],
        (f"{name}b_long.hdf5#0", 0): [4, 8, 12, 16, 20],
        (f"{name}b_long.hdf5#1", 0): [4, 8, 12, 16, 20],
        (f"{name}b_long.hdf5#0", 8): [4, 8, 12],
        (f"{name}b_long.hdf5#1", 8): [4, 8, 12],
    }
    assert stage.manifest()["short"] == {"starts": 2, "of": 8}
    assert len(stage.manifest()["trajectories"]) == 4
    assert np.isfinite(list(stage.manifest()["metrics"].values())).all()
    notices = [event["text"] for _, event in read_events(stage.folder) if event["kind"] == "notice"]
    assert any("left out 2 of 8 start states" in line for line in notices)
    assert _short(plan) == [
        ("States of a trajectory", "9 to 21"),
        ("Trajectories shorter than a window", "2 of the train split; 2 of the valid split"),
        ("Start states that trajectories do not reach", "persistence-pixel 2 of 8"),
    ]


def test_trajectories_that_no_start_reaches_are_replaced(mixed):
    split = open_split(mixed, EULER, "test")
    chosen = choose_parts(split, EvaluationConfig(starts=(10,), trajectories=2))
    assert sorted(chosen.trajectories) == [2, 3]
    assert choose_parts(split, EvaluationConfig(starts=(10,), trajectories=9)).short == 2
    with pytest.raises(DataError, match=r"no test trajectory of euler .* from state 20, .* has 21 states"):
        choose_parts(split, EvaluationConfig(starts=(20,)))


def test_a_plan_counts_states_and_windows(mixed, tmp_path):
    config = small_sweep()
    data = SweepPlan(config, tmp_path, mixed).data
    assert (data.states("train"), data.states(), data.steps) == (60, 180, 21)
    assert data.bytes("test") == 60 * 5 * 16 * 16 * 4
    assert (data.short("train", 17), data.short("train", 9)) == (2, 0)
    with pytest.raises(ConfigError, match="spans 25 steps; the trajectories have 21"):
        SweepPlan(config.replace(window=7), tmp_path, mixed)
