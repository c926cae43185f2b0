import pytest

from lola.errors import TrackingError
from lola.spool import Spool, spool_path
from lola.tracking import Tracker


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
