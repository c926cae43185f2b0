"""Runs of drivers that were killed, run twice or were deleted; the command that sends missing records."""

import contextlib
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from tracked import child, record, run_of, steps, tracker

from lola.storage.event_log import end_offset, event_log_path
from lola.storage.leases import lease
from lola.storage.tracking import Tracker, sync


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


def test_a_command_that_sends_for_long_says_so(tmp_path, fake, monkeypatch):
    each, lines, waits = tracker(tmp_path), [], []
    record(tmp_path)
    each._sweep_log.release()

    @contextlib.contextmanager
    def waiting(describe, log):
        waits.append(describe())
        assert log == lines.append
        yield

    monkeypatch.setattr(sys.modules["lola.storage.tracking.sync"], "reminding", waiting)
    sync(tmp_path, lines.append)
    assert waits == ["euler-ffffffff: sending its records to MLflow at http://fake"]
    assert lines == ["euler-ffffffff: MLflow has everything"]


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


def test_syncing_a_root_without_sweeps_is_an_error(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sync_mlflow.py", "--storage", str(tmp_path)])
    with pytest.raises(SystemExit, match="has no sweeps; name the storage root of one"):
        runpy.run_path(str(Path(__file__).parents[4] / "experiments" / "sync_mlflow.py"), run_name="__main__")


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
