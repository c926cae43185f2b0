"""Records become runs in MLflow's database, each once, with data, models and files."""

import json
import shutil
from pathlib import Path

import mlflow
import pytest
from tracked import child, record, tracker

from lola.core.errors import TrackingError
from lola.storage.event_log import event_log_path
from lola.storage.tracking import Tracker, fetch_model, tracking_uri


@pytest.mark.filterwarnings("ignore")
def test_a_record_becomes_one_run_however_often_it_is_copied(storage):
    first = tracker(storage)
    event_log = record(storage)
    first.copy_events()
    event_log.metrics(20, {"train/loss": 0.25})
    first.copy_events()
    first._sweep_log.release()
    second = tracker(storage)  # the sweep was started again, and a resumed stage repeats a step
    event_log.metrics(20, {"train/loss": 0.25})
    event_log.metrics(30, {"train/loss": 0.125})
    picture = storage / "stage" / "picture.png"
    picture.write_bytes(b"png")
    event_log.artifact(picture)
    event_log.status("FINISHED")
    second.finish_sweep(None, "FINISHED")
    run = child(second)
    assert run.info.status == "FINISHED"
    assert run.data.tags["mlflow.parentRunId"] == second.parent == first.parent
    assert run.data.params["compression"] == "20"
    history = second.client.get_metric_history(run.info.run_id, "train/loss")
    assert [(metric.step, metric.value) for metric in history] == [(10, 0.5), (20, 0.25), (30, 0.125)]
    assert [file.path for file in second.client.list_artifacts(run.info.run_id)] == ["picture.png"]


@pytest.mark.filterwarnings("ignore")
def test_an_outage_loses_nothing(storage, monkeypatch):
    each = tracker(storage)
    record(storage)
    with monkeypatch.context() as outage:
        outage.setattr(each.client, "log_batch", lambda *_, **__: 1 / 0)
        each.copy_events()
    each._outage.clear()
    each.copy_events()
    run = child(each)
    assert run.data.metrics["train/loss"] == 0.5
    assert int(run.data.tags["lola.event_log_offset"]) == event_log_path(storage / "stage").stat().st_size


@pytest.mark.filterwarnings("ignore")
def test_what_a_run_reads_is_shown_once_however_often_it_is_recorded(storage):
    each = tracker(storage)
    event_log = record(storage)
    for _ in range(2):  # a stage that was started again
        event_log.dataset(name="euler", digest="d" * 64, context="training", source="/data/well")
        each.copy_events()
    event_log.dataset(name="euler", digest="e" * 64, context="training", source="/data/well")
    each.copy_events()
    inputs = child(each).inputs.dataset_inputs
    assert sorted(one.dataset.digest for one in inputs) == ["d" * 16, "e" * 16]
    (first,) = [one for one in inputs if one.dataset.digest == "d" * 16]
    assert first.dataset.name == "euler"
    assert {tag.key: tag.value for tag in first.tags} == {"mlflow.data.context": "training"}
    assert json.loads(first.dataset.source) == {"uri": "/data/well"}
    assert json.loads(first.dataset.profile) == {"fingerprint": "d" * 64}


@pytest.mark.filterwarnings("ignore")
def test_a_registered_model_is_fetched_by_run_and_by_name(storage, tmp_path_factory):
    each = tracker(storage)
    event_log = record(storage)
    for name in ("model.safetensors", "manifest.json"):
        (storage / "stage" / name).write_text(name)
    event_log.model(storage / "stage" / "model.safetensors", "euler-autoencoder-f8c16")
    each.copy_events()
    references = (f"runs:/{child(each).info.run_id}", "euler-autoencoder-f8c16")
    for reference in (*references, "models:/euler-autoencoder-f8c16/1"):
        found = fetch_model(storage, reference, tmp_path_factory.mktemp("fetched"))
        assert sorted(path.name for path in found.iterdir()) == ["manifest.json", "model.safetensors"]
    with pytest.raises(TrackingError, match="has no model models:/unknown@latest-trained"):
        fetch_model(storage, "unknown", tmp_path_factory.mktemp("fetched"))


@pytest.mark.filterwarnings("ignore")
def test_registered_models_are_those_of_the_storage_root_and_nothing_is_made_elsewhere(
    tmp_path, monkeypatch, mlflow_database
):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    roots = [tmp_path / "first root", tmp_path / "second%20root"]
    for root in roots:
        (root / "mlflow").mkdir(parents=True)
        shutil.copyfile(mlflow_database, root / "mlflow" / "mlflow.db")
        each, event_log = tracker(root), record(root)
        for name in ("model.safetensors", "manifest.json"):
            (root / "stage" / name).write_text(root.name)
        event_log.model(root / "stage" / "model.safetensors", "euler-autoencoder")
        each.finish_sweep(None, "FINISHED")
    for root in roots:  # the other root was the last that this process used
        for reference in (
            *("euler-autoencoder", "models:/euler-autoencoder/1", "models:/euler-autoencoder@latest-trained"),
            "models:/euler-autoencoder/latest",
        ):
            folder = tmp_path / "fetched" / root.name / reference.replace("/", "-")
            folder.mkdir(parents=True)
            found = fetch_model(root, reference, folder)
            assert (found / "manifest.json").read_text() == root.name
    assert (mlflow.get_tracking_uri(), mlflow.get_registry_uri()) == before
    assert not list(Path.cwd().iterdir())


def test_a_storage_root_without_runs_holds_no_models(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    storage = tmp_path
    with pytest.raises(TrackingError, match="has no runs"):
        fetch_model(storage, "euler-autoencoder", storage)
    assert not list(storage.iterdir())


@pytest.mark.filterwarnings("ignore")
def test_what_is_on_an_object_store_is_logged(storage, memory_root, monkeypatch):
    Tracker(storage, "euler")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri(storage))
    each, event_log = tracker(memory_root), record(memory_root)
    for name in ("model.safetensors", "manifest.json"):
        (memory_root / "stage" / name).write_text(name)
    event_log.model(memory_root / "stage" / "model.safetensors", "euler-autoencoder-f8c16")
    (memory_root / "report" / "report.html").write_text("page")
    each.finish_sweep(memory_root / "report", "FINISHED")
    run = child(each)
    logged = [file.path for file in each.client.list_artifacts(run.info.run_id, "model")]
    assert logged == ["model/manifest.json", "model/model.safetensors"]
    assert run.data.metrics["train/loss"] == 0.5
    assert [file.path for file in each.client.list_artifacts(each.parent, "report")] == ["report/report.html"]


@pytest.mark.filterwarnings("ignore")
def test_a_database_that_is_named_keeps_artifacts_next_to_it(storage, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{storage}/elsewhere.db")
    each = tracker(storage / "results")
    assert each.client.get_experiment(each.experiment).artifact_location == f"file://{storage}/artifacts"
    assert not (storage / "results" / "mlflow").exists()


@pytest.mark.filterwarnings("ignore")
def test_a_database_whose_creation_was_interrupted_is_created_again(storage):
    (storage / "mlflow" / "mlflow.db").unlink()
    (storage / "mlflow" / "mlflow.part").write_bytes(b"half a database")
    first = tracker(storage)
    assert not (storage / "mlflow" / "mlflow.part").exists()
    first._sweep_log.release()
    assert first.client.get_experiment(first.experiment).name == "lola/euler"
    assert tracker(storage).experiment == first.experiment
