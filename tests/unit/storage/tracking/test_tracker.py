import json
import os
import runpy
import shutil
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest
from fakemlflow import FakeMlflow, Unreliable
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from lola.core.errors import TrackingError
from lola.storage.event_log import EventLog, end_offset, event_log_path
from lola.storage.follow import Poller
from lola.storage.leases import lease
from lola.storage.tracking import Tracker, fetch_model, sync, tracking_uri
from lola.storage.tracking.run_copy import _dataset


@pytest.fixture
def storage(tmp_path, monkeypatch, mlflow_database):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "mlflow").mkdir()
    shutil.copyfile(mlflow_database, tmp_path / "mlflow" / "mlflow.db")
    return tmp_path


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A server in memory."""
    fake = FakeMlflow()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://fake")
    monkeypatch.setattr("lola.storage.tracking.tracker.open_client", lambda uri: Unreliable(fake))
    for name in ("SHORTEST_PAUSE_S", "LONGEST_PAUSE_S", "ENDING_S"):
        monkeypatch.setattr(f"lola.storage.tracking.tracker.{name}", 0.0)
    return fake


def tracker(storage):
    each = Tracker(storage, "euler")
    each.start_sweep("sweep", "f" * 64, {"system": "euler"})
    each.follow(storage / "stage", "a" * 64)
    return each


def record(storage):
    event_log = EventLog(storage / "stage")
    event_log.describe(name="autoencoder", tags={"model": "autoencoder"}, parameters={"compression": 20})
    event_log.status("RUNNING")
    event_log.metrics(10, {"train/loss": 0.5})
    return event_log


def child(each):
    query = f"tags.`lola.fingerprint` = '{'a' * 64}'"
    (run,) = each.client.search_runs([each.experiment], query)
    return run


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
    assert int(run.data.tags["lola.spool_offset"]) == event_log_path(storage / "stage").stat().st_size


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
    with pytest.raises(TrackingError, match="holds no runs"):
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
def test_a_database_that_is_named_keeps_artifacts_beside_it(storage, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{storage}/elsewhere.db")
    each = tracker(storage / "results")
    assert each.client.get_experiment(each.experiment).artifact_location == f"file://{storage}/artifacts"
    assert not (storage / "results" / "mlflow").exists()


@pytest.mark.filterwarnings("ignore")
def test_a_database_whose_making_was_cut_off_is_made_anew(storage):
    (storage / "mlflow" / "mlflow.db").unlink()
    (storage / "mlflow" / "mlflow.part").write_bytes(b"half a database")
    first = tracker(storage)
    assert not (storage / "mlflow" / "mlflow.part").exists()
    first._sweep_log.release()
    assert first.client.get_experiment(first.experiment).name == "lola/euler"
    assert tracker(storage).experiment == first.experiment


def run_of(fake, fingerprint="a" * 64):
    (run,) = [
        run
        for run in fake.runs.values()
        if run.lifecycle == "active" and run.tags["lola.fingerprint"] == fingerprint
    ]
    return run


def steps(run, key="train/loss"):
    return [metric.step for metric in run.metrics.get(key, [])]


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


def test_an_outage_at_the_end_is_told_with_the_command_that_sends_the_rest(tmp_path, fake, capsys):
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


def test_interrupted_runs_are_killed_and_go_on(tmp_path, fake):
    each, event_log = tracker(tmp_path), record(tmp_path)
    each.copy_events()
    each.finish_sweep(None, "KILLED")
    assert {run.status for run in fake.runs.values()} == {"KILLED"}
    again = tracker(tmp_path)
    event_log.status("RUNNING")
    again.copy_events()
    assert {run.status for run in fake.runs.values()} == {"RUNNING"}
    event_log.status("FINISHED")
    again.finish_sweep(None, "FINISHED")
    assert {run.status for run in fake.runs.values()} == {"FINISHED"}


@pytest.mark.parametrize("how", ["next start", "command"])
def test_runs_of_a_killed_driver_are_corrected(tmp_path, fake, how):
    each = tracker(tmp_path)
    record(tmp_path)
    each.copy_events()
    each._sweep_log.release()  # what the system does when a process dies
    if how == "command":
        sync(tmp_path, lambda text: None)
        assert run_of(fake, "f" * 64).status == "KILLED"
    else:
        tracker(tmp_path).copy_events()
    assert run_of(fake).status == "KILLED"


def test_a_stage_that_another_sweep_makes_stays_running(tmp_path, fake):
    each = tracker(tmp_path)
    record(tmp_path)
    with lease(tmp_path / "stage"):
        each.finish_sweep(None, "FAILED")
    assert run_of(fake).status == "RUNNING"


def test_a_stage_that_was_finished_before_its_process_died_is_finished(tmp_path, fake):
    each = tracker(tmp_path)
    record(tmp_path)
    (tmp_path / "stage" / "manifest.json").write_text("{}")
    each.finish_sweep(None, "KILLED")
    assert run_of(fake).status == "FINISHED"


def test_of_two_drivers_of_one_sweep_one_sends(tmp_path, fake):
    lines = []
    first = tracker(tmp_path)
    second = Tracker(tmp_path, "euler", lines.append)
    second.start_sweep("sweep", "f" * 64, {})
    second.follow(tmp_path / "stage", "a" * 64)
    assert lines == ["another process runs this sweep, and sends its records to MLflow"]
    event_log = record(tmp_path)
    second.copy_events()
    assert len(fake.runs) == 1
    first.copy_events()
    assert len(fake.runs) == 2
    sync(tmp_path, lines.append)
    assert lines[1:] == ["euler-ffffffff: runs now, and its driver sends its records"]
    first._sweep_log.release()  # killed
    event_log.status("FINISHED")
    second.finish_sweep(None, "FINISHED")
    assert not second.missing
    assert [run.status for run in fake.runs.values()] == ["FINISHED", "FINISHED"]


def test_a_file_that_is_gone_is_told_and_stops_nothing(tmp_path, fake):
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


def test_children_of_a_parent_that_was_deleted_get_the_new_one(tmp_path, fake):
    each = tracker(tmp_path)
    record(tmp_path).status("FINISHED")
    each.copy_events()
    fake.delete_run(each.parent)
    each.finish_sweep(None, "FINISHED")
    assert run_of(fake).tags["mlflow.parentRunId"] == run_of(fake, "f" * 64).key


def test_events_that_were_lost_with_a_machine_hide_no_others(tmp_path, fake):
    """The log is shorter than what MLflow has had of it, and goes on with other events."""
    each, event_log = tracker(tmp_path), record(tmp_path)
    size = end_offset(tmp_path / "stage")
    for step in (20, 30, 40):
        event_log.metrics(step, {"train/loss": 0.1})
    each.copy_events()
    each._sweep_log.release()
    os.truncate(event_log_path(tmp_path / "stage"), size)
    for step in (20, 25):
        event_log.metrics(step, {"train/loss": 0.1})
    event_log.status("FINISHED")
    again = tracker(tmp_path)
    again.finish_sweep(None, "FINISHED")
    assert not again.missing
    assert steps(run_of(fake)) == [10, 20, 30, 40, 25]
    assert run_of(fake).status == "FINISHED"


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


def script(client, folder):
    """The calls that are used, with what they answer and refuse."""
    said = []

    def refused(call, *arguments, **options):
        try:
            call(*arguments, **options)
        except MlflowException as error:
            said.append(error.error_code)
        else:
            said.append("taken")

    def search():
        found = client.search_runs([experiment], "tags.`lola.sweep` = 's'", max_results=10)
        return [run.info.run_id == key for run in found]

    assert client.get_experiment_by_name("lola/x") is None
    experiment = client.create_experiment("lola/x", artifact_location=f"file://{folder}/artifacts")
    refused(client.create_experiment, "lola/x")
    tags = {"lola.sweep": "s", "lola.fingerprint": "f"}
    key = client.create_run(experiment, run_name="one", tags=tags, start_time=1).info.run_id
    two = client.create_run(experiment, run_name="two", tags={"lola.sweep": "t"}, start_time=2).info.run_id
    client.log_batch(key, metrics=[Metric("a", 1.0, 5, 0), Metric("a", 2.0, 6, 1)], tags=[RunTag("t", "1")])
    client.log_batch(key, params=[Param("p", "1")])
    client.log_batch(key, params=[Param("p", "1")], tags=[RunTag("t", "2")])
    refused(client.log_batch, key, params=[Param("p", "2")])
    for _ in range(2):
        client.log_inputs(key, [_dataset({"name": "d", "digest": "0", "source": "x", "context": "training"})])
    (folder / "file").write_text("1")
    client.log_artifact(key, str(folder / "file"), "model")
    client.set_terminated(key, "FINISHED", end_time=9)
    client.update_run(key, status="RUNNING")
    refused(client.create_registered_model, "m")
    refused(client.create_registered_model, "m")
    version = client.create_model_version("m", f"file://{folder}", run_id=key, tags={"lola.trained": "3"})
    client.set_registered_model_alias("m", "latest-trained", version.version)
    said.append([(v.version, v.run_id == key, v.tags) for v in client.search_model_versions("name='m'")])
    said.append(list(client.search_model_versions("name='unknown'")))
    run = client.get_run(key)
    said += [run.info.status, run.info.start_time, run.info.end_time, run.data.params, run.data.tags["t"]]
    said.append([(each.dataset.name, each.dataset.digest) for each in run.inputs.dataset_inputs])
    said.append(
        [(metric.step, metric.value, metric.timestamp) for metric in client.get_metric_history(key, "a")]
    )
    said.append(client.get_metric_history(key, "unknown"))
    said.append(search())
    client.delete_run(key)
    said.append(search())
    for call in (client.log_batch, client.log_batch):
        refused(call, key, tags=[RunTag("t", "3")])
    refused(client.log_batch, key, metrics=[Metric("a", 1.0, 5, 7)])
    refused(client.update_run, key, status="RUNNING")
    refused(client.set_terminated, key, "FINISHED", end_time=9)
    refused(client.get_run, "0" * 32)
    client.delete_experiment(experiment)
    said.append(client.get_experiment_by_name("lola/x").lifecycle_stage)
    refused(client.create_run, experiment, tags={})
    refused(client.log_batch, two, tags=[RunTag("t", "3")])
    client.restore_experiment(experiment)
    said += [search(), client.get_run(two).info.lifecycle_stage]
    return said


@pytest.mark.filterwarnings("ignore")
def test_the_server_in_memory_answers_as_the_database_does(storage):
    uri = tracking_uri(storage)
    (storage / "memory").mkdir()
    assert script(FakeMlflow(), storage / "memory") == script(MlflowClient(uri, registry_uri=uri), storage)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_command_sends_everything_without_ray(storage):
    each, event_log = tracker(storage), record(storage)
    event_log.status("FINISHED")
    each._sweep_log.release()  # killed before it could send
    program = (
        "import runpy, sys\n"
        "runpy.run_path('experiments/sync_mlflow.py', run_name='__main__')\n"
        "assert 'ray' not in sys.modules and 'torch' not in sys.modules"
    )
    command = [sys.executable, "-c", program, "--storage", str(storage)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[4], timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "euler-ffffffff: MLflow has everything"
    run = child(each)
    assert (run.info.status, run.data.metrics["train/loss"]) == ("FINISHED", 0.5)


def test_the_command_tells_of_a_root_without_sweeps(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sync_mlflow.py", "--storage", str(tmp_path)])
    with pytest.raises(SystemExit, match="holds no sweeps; name the storage root of one"):
        runpy.run_path(str(Path(__file__).parents[4] / "experiments" / "sync_mlflow.py"), run_name="__main__")


@pytest.mark.filterwarnings("ignore")
def test_a_database_that_fails_is_told_in_one_line_and_mlflow_prints_nothing(storage, caplog, capfd):
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


def test_a_batch_that_was_lost_is_sent_again_by_the_same_driver(tmp_path, fake, monkeypatch):
    each, event_log = tracker(tmp_path), record(tmp_path)
    each.copy_events()
    event_log.metrics(20, {"train/loss": 0.1})
    with monkeypatch.context() as outage:
        outage.setattr(fake, "log_batch", lambda *_, **__: 1 / 0)
        each.copy_events()
    event_log.metrics(30, {"train/loss": 0.1})
    each.copy_events()
    assert steps(run_of(fake)) == [10, 20, 30]


def test_a_run_that_is_deleted_after_everything_was_sent_is_made_again(tmp_path, fake):
    each, event_log = tracker(tmp_path), record(tmp_path)
    event_log.status("FINISHED")
    each.copy_events()
    fake.delete_run(run_of(fake).key)
    each.finish_sweep(None, "FINISHED")
    assert not each.missing
    assert (run_of(fake).status, steps(run_of(fake))) == ("FINISHED", [10])


def test_runs_that_a_restored_experiment_brings_back_are_not_doubled(tmp_path, fake):
    each, event_log = tracker(tmp_path), record(tmp_path)
    each.copy_events()
    fake.delete_run(run_of(fake).key)
    event_log.status("FINISHED")
    each.finish_sweep(None, "FINISHED")
    fake.delete_experiment(each.experiment)
    again = tracker(tmp_path)
    again.finish_sweep(None, "FINISHED")
    assert not again.missing
    assert len(fake.runs) == 3
    assert (run_of(fake).status, steps(run_of(fake))) == ("FINISHED", [10])
