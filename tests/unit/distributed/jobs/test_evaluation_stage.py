"""The parts of an evaluation, with tasks that run where they are called."""

import dataclasses
import itertools
import math
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from PIL import Image
from rich.console import Console
from stages import small_sweep

from lola.core.errors import DataError, LolaError, MissingDataError
from lola.data.well.datasets import Datasets
from lola.distributed.cluster.resources import ClusterResources, Node
from lola.distributed.jobs import evaluate
from lola.evaluation.scores.rows import PARQUET
from lola.evaluation.tables import stored
from lola.evaluation.tables.stored import read_table
from lola.storage import stages as storage
from lola.storage.event_log import read_events
from lola.storage.progress import Progress
from lola.workflows.plan import SweepPlan


@pytest.fixture
def step(tmp_path, well):
    config = small_sweep()
    evaluation = config.evaluation.replace(starts=(0, 3), trajectories=2)
    return SweepPlan(config.replace(evaluation=evaluation), tmp_path, well).evaluations[0].steps[0]


def rows(step):
    return pq.read_table(step.stage.folder / "metrics.parquet")


@pytest.mark.parametrize(
    ("available", "gpus", "size"),
    [
        (ClusterResources((Node(2),)), 0, 8),
        (ClusterResources((Node(192, 4),)), 1, 16),
        (ClusterResources((Node(192, 4),)), 0.5, 8),
        (ClusterResources((Node(1000),)), 0, 1),
        (ClusterResources(), 1, 64),
        (ClusterResources((Node(2),), grows=True), 0, 1),  # nodes that come later find tasks to do
        (ClusterResources(grows=True), 1, 1),
    ],
)
def test_tasks_are_as_many_as_a_cluster_can_share(available, gpus, size):
    assert evaluate.parts_per_task(64, gpus, available) == size


@pytest.mark.parametrize(
    ("available", "device", "gpus"),
    [
        (ClusterResources((Node(2),)), "h100", 0),
        (ClusterResources((Node(2, 4),)), "cpu", 1),
        (ClusterResources(grows=True), "h100", 1),  # they have gone, and come again when they are asked for
        (ClusterResources(grows=True), "cpu", 0),
    ],
)
def test_gpus_that_trained_a_model_are_waited_for(tmp_path, well, available, device, gpus):
    plan = SweepPlan(small_sweep(), tmp_path, well)
    stage = plan.autoencoder(16)
    stage.folder.mkdir(parents=True)
    stage.commit(speed={"device": device})
    config = plan.config.evaluation
    run = evaluate.EvaluationRun(stage, config, None, plan.system, plan.datasets, stage.folder)
    assert evaluate.gpus_per_task(run, available) == gpus


def test_parts_are_shared_among_workers_and_joined(tasks, step):
    step.run()
    assert [len(parts) for parts in tasks.calls] == [2, 2]
    assert tasks.chosen["num_gpus"] == 0
    assert set(rows(step)["start"].to_pylist()) == {0, 3}
    assert len(set(rows(step)["trajectory"].to_pylist())) == 2
    assert step.stage.manifest()["rows"]["metrics"] == len(rows(step))
    examples = list((step.stage.folder / "parts").glob("*/example.npy"))
    assert len(examples) == 1
    assert (step.stage.folder / "example.npy").read_bytes() == examples[0].read_bytes()


def test_rollouts_that_diverge_are_counted_and_null_in_the_manifest(tasks, step, monkeypatch):
    """Their rows keep what is not finite, which every mean over them shows."""
    real = evaluate.evaluate_trajectory

    def diverging(config, subject, split, index, start, **models):
        result = real(config, subject, split, index, start, **models)
        if start == 0:
            return result
        rows = result.metrics
        lost = pc.and_(pc.greater(rows["lead_time"], 8), pc.equal(rows["metric"], "vrmse"))
        values = pc.if_else(lost, math.nan, rows["value"])
        return dataclasses.replace(result, metrics=rows.set_column(rows.num_columns - 1, "value", values))

    monkeypatch.setattr(evaluate, "evaluate_trajectory", diverging)
    step.run()
    manifest = step.stage.manifest()
    assert manifest["diverged"] == {"rollouts": 2, "of": 4}
    assert manifest["metrics"]["test/vrmse/1-20"] is None
    assert any(value is not None for value in manifest["metrics"].values())
    assert math.isnan(max(rows(step)["value"].to_pylist(), key=math.isnan))
    console = Console(record=True, width=200)
    progress = Progress(console, itertools.count(0, 20).__next__)
    progress.follow(step.stage.folder, "evaluation persistence", 2)
    progress.consume(step.stage.folder, 0, list(read_events(step.stage.folder)))
    progress.end_poll()
    assert "2 rollouts did not stay finite" in console.export_text()
    for name in ("manifest.json", "events.jsonl"):
        text = (step.stage.folder / name).read_text()
        assert "NaN" not in text
        assert "Infinity" not in text


def test_an_evaluation_describes_itself_with_its_table_curves_and_pictures(tasks, step):
    step.run()
    events = [event for _, event in read_events(step.stage.folder)]
    (note,) = [event["text"] for event in events if event["kind"] == "note"]
    assert note.startswith(
        f"Scores of {step.stage.what} on 2 trajectories of the test split, 4 rollouts of 1 member,"
    )
    value = step.stage.manifest()["metrics"]["test/vrmse/1-20"]
    assert f"| vrmse | {value:.4g} |" in note.splitlines()
    assert [event["path"] for event in events if event["kind"] == "artifact"] == [
        *("metrics.parquet", "scores.csv", "states.png", "film.gif")
    ]
    scores = pd.read_csv(step.stage.folder / "scores.csv", index_col="metric")
    assert scores.loc["vrmse", "1-20"] == pytest.approx(value, rel=1e-3)
    curves = {event["name"]: event["points"] for event in events if event["kind"] == "curve"}
    times, values = zip(*curves["test_by_lead_time/vrmse"], strict=True)
    table = rows(step).to_pandas()
    table = table[(table["metric"] == "vrmse") & (table["target"] == "truth")]
    assert values == pytest.approx(table.groupby("lead_time")["value"].mean().loc[list(times)].tolist())
    assert curves.keys() == {"test_by_lead_time/vrmse", "test_by_lead_time/crps_relative"}
    relative = dict(curves["test_by_lead_time/crps_relative"])
    within = [relative[time] for time in times if time <= 20]
    assert np.mean(within) == pytest.approx(step.stage.manifest()["metrics"]["test/crps_relative/1-20"])
    with Image.open(step.stage.folder / "film.gif") as film:
        assert film.n_frames == len(times)


def test_only_what_is_missing_is_computed(tasks, step):
    step.run()
    expected = rows(step)
    (step.stage.folder / "manifest.json").unlink()
    lost = sorted((step.stage.folder / "parts").iterdir())[1]
    lost.rename(step.stage.folder / "elsewhere")
    tasks.calls.clear()
    step.run()
    assert [[part.folder for part in parts] for parts in tasks.calls] == [[lost]]
    assert rows(step).equals(expected)


def test_a_fault_is_named_and_the_rest_is_kept(tasks, step, monkeypatch):
    genuine = evaluate.evaluate_trajectory

    def faulty(config, subject, split, index, start, **models):
        if start == 3:
            raise DataError("density holds -7")
        return genuine(config, subject, split, index, start, **models)

    monkeypatch.setattr(evaluate, "evaluate_trajectory", faulty)
    with pytest.raises(LolaError, match=r"2 of the tasks .*hdf5#. from state 3: density holds -7"):
        step.run()
    assert len(list((step.stage.folder / "parts").iterdir())) == 2
    assert not step.stage.finished


def test_temporary_folders_do_not_count(tasks, step):
    step.run()
    folder = step.stage.folder
    partial = folder / "parts" / ".00000-0000.0123abcd"
    partial.mkdir()
    (partial / evaluate.COMPLETION_FILE).write_text("0.1")
    assert evaluate._committed(folder) == {path.parent.name for path in folder.glob("parts/0*/seconds")}


@pytest.mark.parametrize("trajectories", [4, 8])
def test_listings_do_not_grow_with_the_tasks(tasks, step, monkeypatch, trajectories):
    """Looking for what is committed after every task would list all parts as often as there are tasks."""
    stage = step.stage
    parts = [evaluate._Part(stage.folder, index, 0) for index in range(trajectories)]

    def commit(arguments_ref, mine):
        for part in mine:
            part.folder.mkdir(parents=True)
            (part.folder / evaluate.COMPLETION_FILE).write_text("0.1")

    scanned = []
    genuine = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: scanned.append(str(path)) or genuine(path))
    monkeypatch.setattr(tasks, "function", commit)
    monkeypatch.setattr(evaluate, "parts_per_task", lambda *_: 1)
    config = stage.config.replace(starts=(0,), trajectories=trajectories)
    run = evaluate.EvaluationRun(stage, config, None, None, None)
    (stage.folder / "parts").mkdir(parents=True)
    monkeypatch.setattr(evaluate, "find_climate", lambda *_: (None, ""))
    evaluate._score(run, SimpleNamespace(), parts)
    assert len(tasks.calls) == trajectories
    assert len([path for path in scanned if "/parts" in path]) <= 1
    assert [event["step"] for _, event in read_events(stage.folder)] == list(range(1, trajectories + 1))


def test_a_trajectory_is_done_from_all_of_its_start_states(tasks, step, monkeypatch):
    stage = step.stage
    parts = [evaluate._Part(stage.folder, index, start) for start in (0, 3) for index in range(2)]
    monkeypatch.setattr(tasks, "function", lambda arguments_ref, mine: None)
    monkeypatch.setattr(evaluate, "parts_per_task", lambda *_: 1)
    monkeypatch.setattr(evaluate, "find_climate", lambda *_: (None, ""))
    (stage.folder / "parts").mkdir(parents=True)
    evaluate._score(evaluate.EvaluationRun(stage, stage.config, None, None, None), SimpleNamespace(), parts)
    assert [event["step"] for _, event in read_events(stage.folder)] == [0, 0, 1, 2]


def test_without_training_data_anomalies_are_absent_and_the_reason_is_logged(tasks, step, monkeypatch):
    opened = Datasets.open

    def missing(datasets, system, split, faults=None):
        if split == "train":
            raise MissingDataError("no files of euler for train")
        return opened(datasets, system, split, faults)

    monkeypatch.setattr(Datasets, "open", missing)
    step.run()
    assert not {"anomaly_correlation", "valid"} & set(rows(step)["metric"].to_pylist())
    (notice,) = notices(step)
    assert notice == "no anomaly correlation and valid time are scored: no files of euler for train"
    shutil.rmtree(step.stage.folder)
    monkeypatch.setattr(Datasets, "open", opened)
    step.run()
    assert {"anomaly_correlation", "valid"} <= set(rows(step)["metric"].to_pylist())
    assert not notices(step)


NAMES = ("metrics.parquet", "spectra.parquet", "example.npy", "seconds")


def notices(step):
    return [event["text"] for _, event in read_events(step.stage.folder) if event["kind"] == "notice"]


@pytest.mark.parametrize("kept", [0, 0.5, None])
def test_a_part_with_a_file_that_is_cut_is_scored_again(tasks, step, kept):
    step.run()
    expected, example = rows(step), (step.stage.folder / "example.npy").read_bytes()
    (first,) = [path.parent for path in step.stage.folder.glob("parts/*/example.npy")]
    for count, name in enumerate(NAMES, 1):
        path = first / name
        whole = path.read_bytes()
        path.unlink() if kept is None else path.write_bytes(whole[: int(kept * len(whole))])
        if name == "seconds" and kept == 0.5:
            path.write_text("0.1x")
        (step.stage.folder / "manifest.json").unlink()
        tasks.calls.clear()
        step.run()
        assert len(notices(step)) == count
        assert f"{path} is corrupt" in notices(step)[-1]
        assert "scored again" in notices(step)[-1]
        assert [[part.folder for part in parts] for parts in tasks.calls] == [[first]]
        assert step.stage.finished
        assert rows(step).equals(expected)
        assert (step.stage.folder / "example.npy").read_bytes() == example


@pytest.mark.parametrize("name", ["metrics.parquet", "spectra.parquet", "example.npy", "manifest.json"])
def test_a_finished_evaluation_with_a_file_that_is_cut_is_joined_again(tasks, step, name, caplog):
    step.run()
    expected = rows(step)
    for kept in (0, 20):
        storage._warned.clear()
        storage._verified.clear()
        path = step.stage.folder / name
        path.write_bytes(path.read_bytes()[:kept])
        assert not step.stage.finished
        assert f"{path} is " in caplog.text
        if name != "manifest.json":
            read = stored.read_array if name.endswith("npy") else stored.read_table
            with pytest.raises(DataError, match=rf"{path} is missing or corrupt .*; remove manifest.json"):
                read(path)
        tasks.calls.clear()
        step.run()
        assert not tasks.calls
        assert step.stage.finished
        assert rows(step).equals(expected)


def test_a_table_with_other_values_is_corrupt(tmp_path):
    """A damaged disk or copy changes values, not sizes: no number may come of it."""
    path = tmp_path / "metrics.parquet"
    table = pa.table({"value": np.random.default_rng(0).normal(size=1000)})
    pq.write_table(table, path, **(PARQUET | {"use_dictionary": False}))
    content = path.read_bytes()
    for place in range(100, len(content) - 600, 500):
        path.write_bytes(content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :])
        with pytest.raises(DataError, match=str(path)):
            read_table(path)
