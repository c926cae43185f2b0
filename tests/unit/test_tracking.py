import json
from pathlib import Path

import mlflow
import pytest

from lola.errors import TrackingError
from lola.spool import Spool, spool_path
from lola.tracking import Tracker, fetch_model, tracking_uri


@pytest.fixture
def storage(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def tracker(storage):
    each = Tracker(storage, "euler")
    each.start_sweep("sweep", "f" * 64, {"system": "euler"})
    each.follow(storage / "stage", "a" * 64)
    return each


def record(storage):
    spool = Spool(storage / "stage")
    spool.describe(name="autoencoder", tags={"model": "autoencoder"}, parameters={"compression": 20})
    spool.status("RUNNING")
    spool.metrics(10, {"train/loss": 0.5})
    return spool


def child(each):
    query = f"tags.`lola.fingerprint` = '{'a' * 64}'"
    (run,) = each.client.search_runs([each.experiment], query)
    return run


@pytest.mark.filterwarnings("ignore")
def test_a_record_becomes_one_run_however_often_it_is_copied(storage):
    first = tracker(storage)
    spool = record(storage)
    first.pump()
    spool.metrics(20, {"train/loss": 0.25})
    first.pump()
    second = tracker(storage)  # the sweep was started again, and a resumed stage repeats a step
    spool.metrics(20, {"train/loss": 0.25})
    spool.metrics(30, {"train/loss": 0.125})
    picture = storage / "stage" / "picture.png"
    picture.write_bytes(b"png")
    spool.artifact(picture)
    spool.status("FINISHED")
    second.finish_sweep(None, failed=False)
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
    monkeypatch.setattr(each.client, "log_batch", lambda *_, **__: (_ for _ in ()).throw(OSError("down")))
    each.pump()
    monkeypatch.undo()
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    each.pump()
    run = child(each)
    assert run.data.metrics["train/loss"] == 0.5
    assert int(run.data.tags["lola.spool_offset"]) == spool_path(storage / "stage").stat().st_size


@pytest.mark.filterwarnings("ignore")
def test_a_server_that_does_not_answer_is_named(storage, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(TrackingError, match=r"127\.0\.0\.1:9 does not answer"):
        Tracker(storage, "euler")


@pytest.mark.filterwarnings("ignore")
def test_the_command_binds_to_loopback(storage):
    assert tracker(storage).command.endswith("--host 127.0.0.1 --port 5000")


@pytest.mark.filterwarnings("ignore")
def test_what_a_run_reads_is_shown_once_however_often_it_is_recorded(storage):
    each = tracker(storage)
    spool = record(storage)
    for _ in range(2):  # a stage that was started again
        spool.dataset(name="euler", digest="d" * 64, context="training", source="/data/well")
        each.pump()
    spool.dataset(name="euler", digest="e" * 64, context="training", source="/data/well")
    each.pump()
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
    spool = record(storage)
    for name in ("model.safetensors", "manifest.json"):
        (storage / "stage" / name).write_text(name)
    spool.model(storage / "stage" / "model.safetensors", "euler-autoencoder-f8c16")
    each.pump()
    references = (f"runs:/{child(each).info.run_id}", "euler-autoencoder-f8c16")
    for reference in (*references, "models:/euler-autoencoder-f8c16/1"):
        found = fetch_model(storage, reference, tmp_path_factory.mktemp("fetched"))
        assert sorted(path.name for path in found.iterdir()) == ["manifest.json", "model.safetensors"]
    with pytest.raises(TrackingError, match="has no model models:/unknown@latest-trained"):
        fetch_model(storage, "unknown", tmp_path_factory.mktemp("fetched"))


@pytest.mark.filterwarnings("ignore")
def test_registered_models_are_those_of_the_storage_root_and_nothing_is_made_elsewhere(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    roots = [tmp_path / "first root", tmp_path / "second%20root"]
    for root in roots:
        each, spool = tracker(root), record(root)
        for name in ("model.safetensors", "manifest.json"):
            (root / "stage" / name).write_text(root.name)
        spool.model(root / "stage" / "model.safetensors", "euler-autoencoder")
        each.finish_sweep(None, failed=False)
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


def test_a_storage_root_without_runs_holds_no_models(storage):
    with pytest.raises(TrackingError, match="holds no runs"):
        fetch_model(storage, "euler-autoencoder", storage)
    assert not list(storage.iterdir())


def test_a_root_that_is_no_folder_needs_a_server(storage, memory_root):
    for use in (lambda: Tracker(memory_root, "euler"), lambda: fetch_model(memory_root, "model", storage)):
        with pytest.raises(TrackingError, match=r"storage memory://.* MLFLOW_TRACKING_URI"):
            use()


@pytest.mark.filterwarnings("ignore")
def test_what_is_on_an_object_store_is_logged(storage, memory_root, monkeypatch):
    Tracker(storage, "euler")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri(storage))
    each, spool = tracker(memory_root), record(memory_root)
    for name in ("model.safetensors", "manifest.json"):
        (memory_root / "stage" / name).write_text(name)
    spool.model(memory_root / "stage" / "model.safetensors", "euler-autoencoder-f8c16")
    (memory_root / "report" / "report.html").write_text("page")
    each.finish_sweep(memory_root / "report", failed=False)
    run = child(each)
    logged = [file.path for file in each.client.list_artifacts(run.info.run_id, "model")]
    assert logged == ["model/manifest.json", "model/model.safetensors"]
    assert run.data.metrics["train/loss"] == 0.5
    assert [file.path for file in each.client.list_artifacts(each.parent, "report")] == ["report/report.html"]


@pytest.mark.filterwarnings("ignore")
def test_a_database_that_is_named_keeps_artifacts_beside_it(storage, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{storage}/elsewhere.db")
    each = tracker(storage / "results")
    assert each.client.get_experiment(each.experiment).artifact_location == f"file://{storage}/artifacts"
    assert not (storage / "results").exists()


@pytest.mark.parametrize(
    ("uri", "remedy"),
    [
        ("https://me:planted@mlflow.example.org", "MLFLOW_TRACKING_PASSWORD"),
        ("https://planted@mlflow.example.org:8443/runs", "MLFLOW_TRACKING_PASSWORD"),
        ("https://mlflow.example.org/?token=planted", "MLFLOW_TRACKING_PASSWORD"),
        ("postgresql://me:planted@mlflow.example.org/runs", "PGPASSWORD"),
        ("postgresql://mlflow.example.org/runs?password=planted", "PGPASSWORD"),
    ],
)
def test_an_address_that_holds_credentials_is_refused_without_showing_them(storage, monkeypatch, uri, remedy):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    for use in (lambda: Tracker(storage, "euler"), lambda: fetch_model(storage, "model", storage)):
        with pytest.raises(TrackingError, match=remedy) as refusal:
            use()
        assert "planted" not in str(refusal.value)
        assert "mlflow.example.org" in str(refusal.value)


@pytest.mark.parametrize("uri", ["http://127.0.0.1:5000", "postgresql://me@host/runs?sslmode=require"])
def test_an_address_without_credentials_is_taken_as_it_is(storage, monkeypatch, uri):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert tracking_uri(storage) == uri


def test_a_database_whose_making_was_cut_off_is_made_anew(storage):
    (storage / "mlflow").mkdir()
    (storage / "mlflow" / "mlflow.part").write_bytes(b"half a database")
    first = tracker(storage)
    assert not (storage / "mlflow" / "mlflow.part").exists()
    assert first.client.get_experiment(first.experiment).name == "lola/euler"
    assert tracker(storage).experiment == first.experiment
