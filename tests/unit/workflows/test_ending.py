"""How a sweep ends in MLflow, however it ends."""

import io
from types import SimpleNamespace

import pytest
from fakemlflow import FakeMlflow, Unreliable
from rich.console import Console

from lola.core.config import Config
from lola.core.errors import LolaError
from lola.distributed.trials import Step, Trial, complete_event_log
from lola.storage.event_log import EventLog, read_events
from lola.storage.progress import Progress
from lola.storage.stages import Stage
from lola.storage.tracking import Tracker
from lola.workflows import run as workflow


@pytest.fixture
def fake(monkeypatch):
    fake = FakeMlflow()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://fake")
    monkeypatch.setattr("lola.storage.tracking.tracker.open_client", lambda uri: Unreliable(fake))
    for name in ("SHORTEST_PAUSE_S", "LONGEST_PAUSE_S", "ENDING_S"):
        monkeypatch.setattr(f"lola.storage.tracking.tracker.{name}", 0.0)
    return fake


def stage_of(root):
    return Stage(root=root, kind="autoencoders", system="euler", what="a", config=Config(), inputs={})


def end(tmp_path, monkeypatch, make, down=False):
    """Run a plan of one trial, which `make` makes in place of Ray; returns what the console showed."""
    stage = stage_of(tmp_path)
    tags = {"stage": "autoencoder", "model": "autoencoder"}
    trials = (Trial("one", (Step(stage, stage.commit, tags, 1),)),)
    plan = SimpleNamespace(
        trials=trials,
        steps=trials[0].steps,
        fingerprint="f" * 64,
        root=tmp_path,
        config=SimpleNamespace(to_json=dict, concurrency=1, replace=lambda **_: Config()),
        system=SimpleNamespace(name="euler"),
    )
    output = io.StringIO()
    progress = Progress(Console(file=output, width=1000))
    tracker = Tracker(tmp_path, "euler")

    def run(pending, folder, limit, log):
        event_log = EventLog(stage.folder)
        event_log.describe(name="a", tags=tags, parameters={})
        event_log.status("RUNNING")
        tracker.copy_events()
        if down:
            tracker.client.fail(1.0, 0)
        return make(stage, event_log)

    monkeypatch.setattr(workflow, "run_trials", run)
    monkeypatch.setattr(
        workflow, "check_resources", lambda config, trials: None
    )  # which asks Ray what it has
    workflow._complete(plan, "title", tracker, progress, None)
    workflow._log_missing(tracker, progress)
    return output.getvalue()


def statuses(fake):
    return {run.tags["lola.stage"]: run.status for run in fake.runs.values()}


def interrupt(stage, event_log):
    raise KeyboardInterrupt


def refuse(stage, event_log):
    raise LolaError("the disk is full")


def finish(stage, event_log):
    stage.commit()
    event_log.status("FINISHED")
    return {}


def fail(stage, event_log):
    event_log.status("FAILED", "no luck")
    return {"one": "no luck"}


def test_a_sweep_that_ends_well(tmp_path, monkeypatch, fake):
    """The last line opens the sweep's own page."""
    monkeypatch.setattr(workflow, "stop_ray", lambda log: log("stopping Ray"))
    output = end(tmp_path, monkeypatch, finish)
    (parent,) = [run for run in fake.runs.values() if run.tags["lola.stage"] == "sweep"]
    page = f"runs: open http://fake/#/experiments/{parent.experiment}/runs/{parent.key}"
    assert [line[7:] for line in output.splitlines()[-2:]] == ["stopping Ray", page]
    assert "finished" in output
    assert statuses(fake) == {"sweep": "FINISHED", "autoencoder": "FINISHED"}


def test_an_interrupted_sweep_is_killed_in_mlflow(tmp_path, monkeypatch, fake):
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        end(tmp_path, monkeypatch, interrupt)
    assert statuses(fake) == {"sweep": "KILLED", "autoencoder": "KILLED"}


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (interrupt, KeyboardInterrupt),
        (fail, LolaError),
        (refuse, LolaError),
        (finish, None),
    ],
)
def test_the_last_line_says_what_an_outage_keeps_from_mlflow(tmp_path, monkeypatch, fake, make, error):
    if error:
        with pytest.raises(error) as raised:
            end(tmp_path, monkeypatch, make, down=True)
        line = str(raised.value)
    else:
        line = end(tmp_path, monkeypatch, make, down=True).splitlines()[-1]
    assert "lacks events of 2 of 2 runs" in line
    assert line.endswith(f"send the rest with: python experiments/sync_mlflow.py --storage {tmp_path}")


def test_failed_and_broken_sweeps_are_failed_in_mlflow(tmp_path, monkeypatch, fake):
    with pytest.raises(LolaError, match=r"1 of 1 trials failed: one \(no luck\)$"):
        end(tmp_path, monkeypatch, fail)
    assert statuses(fake) == {"sweep": "FAILED", "autoencoder": "FAILED"}
    with pytest.raises(ZeroDivisionError):
        end(tmp_path, monkeypatch, lambda *_: 1 / 0)
    assert statuses(fake) == {"sweep": "FAILED", "autoencoder": "KILLED"}


def test_the_end_of_a_stage_that_was_finished_before_its_process_died_is_recorded(tmp_path):
    stage = stage_of(tmp_path)
    step = Step(stage, stage.commit, {}, 1)
    event_log = EventLog(stage.folder)
    event_log.status("RUNNING")
    complete_event_log(step)
    assert len(list(read_events(stage.folder))) == 1
    (stage.folder / "model.safetensors").write_text("")
    stage.commit()
    with stage.lease():
        complete_event_log(step)
    assert len(list(read_events(stage.folder))) == 1
    complete_event_log(step)
    complete_event_log(step)
    kinds = [
        (event["kind"], event.get("status", event.get("name"))) for _, event in read_events(stage.folder)
    ]
    assert kinds == [("status", "RUNNING"), ("model", "euler-a"), ("status", "FINISHED")]
