"""Outages and refusals of MLflow's server lose nothing that was recorded."""

import time

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from tracked import record, run_of, steps, tracker

from lola.storage.event_log import EventLog
from lola.storage.follow import Poller
from lola.storage.tracking import sync


def test_steps_reported_during_an_outage_arrive_after_it_and_after_a_restart(tmp_path, fake):
    each, event_log = tracker(tmp_path), record(tmp_path)
    each.copy_events()
    each.client.fail(1.0, 0)
    for step in (20, 30):
        event_log.metrics(step, {"train/loss": 0.1})
        each.copy_events()
    each._sweep_log.release()  # killed
    again = tracker(tmp_path)
    event_log.metrics(40, {"train/loss": 0.1})
    again.copy_events()
    assert steps(run_of(fake)) == [10, 20, 30, 40]


def test_parameters_of_a_run_whose_first_batch_was_lost_arrive(tmp_path, fake, monkeypatch):
    each = tracker(tmp_path)
    each.copy_events()
    record(tmp_path)
    with monkeypatch.context() as outage:
        outage.setattr(fake, "log_batch", lambda *_, **__: 1 / 0)
        each.copy_events()
    assert run_of(fake).params == {}
    each.copy_events()
    assert run_of(fake).params == {"compression": "20"}


def test_a_parameter_that_changed_keeps_its_first_value_and_stops_nothing(tmp_path, fake):
    each, event_log = tracker(tmp_path), record(tmp_path)
    each.copy_events()
    event_log.describe(name="autoencoder", tags={}, parameters={"compression": 30, "new": 1})
    event_log.metrics(20, {"train/loss": 0.1})
    each.finish_sweep(None, "FINISHED")
    assert run_of(fake).params == {"compression": "20", "new": "1"}
    assert steps(run_of(fake)) == [10, 20]
    assert not each.missing


def test_no_call_is_larger_than_servers_accept(tmp_path, fake):
    """What the largest call may be is asserted by the fake."""
    each, event_log = tracker(tmp_path), EventLog(tmp_path / "stage")
    many = {f"key{i}": i for i in range(250)}
    event_log.describe(name="wide", tags=many, parameters=many)
    for step in range(499):
        event_log.metrics(step, {f"metric{i}": 0.0 for i in range(20)})
    each.finish_sweep(None, "FINISHED")
    assert not each.missing
    assert sum(metrics for metrics, _, _ in fake.calls) == 9980
    assert len(run_of(fake).params) == 250
    assert run_of(fake).tags["lola.key249"] == "249"


def test_an_outage_at_the_end_is_reported_with_the_command_that_sends_the_rest(tmp_path, fake, capsys):
    root = tmp_path / "a root"
    each, event_log = tracker(root), record(root)
    each.copy_events()
    event_log.metrics(20, {"train/loss": 0.1})
    event_log.status("FINISHED")
    (root / "reports" / "page").mkdir(parents=True)
    (root / "reports" / "page" / "report.html").write_text("page")
    each.client.fail(1.0, 0)
    each.finish_sweep(root / "reports" / "page", "FINISHED")
    assert "lacks events of 2 of 2 runs (ConnectionError: the " in each.missing
    command = f"python experiments/sync_mlflow.py --storage '{root}'"
    assert each.missing.endswith(f"send the rest with: {command}")
    sync(root, print)
    assert "MLflow has everything" in capsys.readouterr().out
    assert (run_of(fake).status, steps(run_of(fake))) == ("FINISHED", [10, 20])
    parent = run_of(fake, "f" * 64)
    assert parent.status == "FINISHED"
    assert list(parent.artifacts) == ["report/report.html"]


def test_a_deleted_file_is_reported_and_stops_nothing(tmp_path, fake):
    each, event_log = tracker(tmp_path), record(tmp_path)
    event_log.artifact(tmp_path / "stage" / "gone.png")
    event_log.model(tmp_path / "stage" / "model.safetensors", "euler-model")
    event_log.status("FINISHED")
    each.finish_sweep(None, "FINISHED")
    assert run_of(fake).status == "FINISHED"
    assert each.missing == (
        f"2 files are not in MLflow, the first {tmp_path}/stage/gone.png, which does not exist any more"
    )


def test_the_alias_is_of_the_model_that_was_trained_last_in_whatever_order_they_are_sent(tmp_path, fake):
    for name in ("old", "new"):
        event_log = EventLog(tmp_path / name)
        event_log.describe(name=name, tags={}, parameters={})
        for file in ("model.safetensors", "manifest.json"):
            (tmp_path / name / file).write_text(name)
        event_log.model(tmp_path / name / "model.safetensors", "euler-model")
        time.sleep(0.002)
    each = tracker(tmp_path)
    for name, fingerprint in (("new", "d" * 64), ("old", "c" * 64)):
        each.follow(tmp_path / name, fingerprint)
    each.finish_sweep(None, "FINISHED")
    model = fake.models["euler-model"]
    (chosen,) = [v for v in model.versions if v.version == model.aliases["latest-trained"]]
    assert chosen.run_id == run_of(fake, "d" * 64).key
    assert len(model.versions) == 2


def test_a_run_that_mlflow_refuses_keeps_no_other_from_being_sent(tmp_path, fake, monkeypatch):
    each = tracker(tmp_path)
    record(tmp_path)
    each.follow(tmp_path / "other", "b" * 64)
    other = EventLog(tmp_path / "other")
    other.describe(name="other", tags={}, parameters={})
    other.status("FINISHED")
    create = fake.create_run

    def refuse(experiment, run_name, **options):
        if run_name == "autoencoder":
            raise MlflowException("no such name", error_code=INVALID_PARAMETER_VALUE)
        return create(experiment, run_name, **options)

    monkeypatch.setattr(fake, "create_run", refuse)
    each.finish_sweep(None, "FINISHED")
    assert run_of(fake, "b" * 64).status == "FINISHED"
    assert "lacks events of 1 of 3 runs (MlflowException: no such name" in each.missing


@pytest.mark.filterwarnings("ignore")
def test_a_database_that_fails_is_reported_in_one_line_and_mlflow_prints_nothing(storage, caplog, capfd):
    each = tracker(storage)
    record(storage)
    path = storage / "mlflow" / "mlflow.db"
    path.write_bytes(b"x" * path.stat().st_size)  # in place, as seen by connections that are open
    lines = []
    watch = Poller(each.follower, lines.append)
    for _ in range(2):
        watch.poll()
        each._outage.clear()
    assert len(lines) == 1
    assert lines[0].startswith("MLflow cannot be updated now (TrackingError: ")
    assert "\n" not in lines[0]
    assert not caplog.records
    assert capfd.readouterr() == ("", "")
    each.finish_sweep(None, "FINISHED")
    assert each.missing.startswith("MLflow at sqlite:")
