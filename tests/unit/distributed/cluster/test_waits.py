"""Waits for workers, tasks and streams are logged until they end."""

import io
import itertools
import time
from collections import Counter

import pytest
from rich.console import Console

from lola.core import waiting
from lola.core.waiting import Reminder
from lola.distributed.cluster import resources, waits
from lola.distributed.cluster.resources import ClusterResources, Node, ResourceRequest
from lola.distributed.cluster.waits import WorkersCallback, log_while_waiting, wait_for_any
from lola.storage.event_log import EventLog, read_events
from lola.storage.progress import Progress

WORKERS = ResourceRequest("training workers", "workers", 4, 1.0)
BUSY = ClusterResources((Node(8, 0, 2, 0),), False, Counter({(1.0, 0.0): 4}))
FREE = ClusterResources((Node(8, 0, 8, 0),))


@pytest.fixture
def shown_cluster(monkeypatch):
    """The cluster that is seen; no time passes before a line is logged."""
    seen = [BUSY]
    monkeypatch.setattr(waits, "cluster_resources", lambda: seen[0])
    monkeypatch.setattr(waits, "POLL_INTERVAL_S", 0.005)
    monkeypatch.setattr(waiting, "POLL_INTERVAL_S", 0.005)
    monkeypatch.setattr(
        waits, "Reminder", lambda describe, log: Reminder(describe, log, first=0.01, longest=0.01)
    )
    return seen


def waits_of(folder):
    return [event["text"] for _, event in read_events(folder) if event["kind"] == "waiting"]


def until(condition):
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.005)


def test_a_training_logs_what_it_waits_for_until_its_workers_start(shown_cluster, tmp_path):
    callback = WorkersCallback(tmp_path, WORKERS)
    callback.after_controller_start(object())
    callback.before_worker_group_start(object())
    until(lambda: waits_of(tmp_path))
    (first, *_) = waits_of(tmp_path)
    assert first.startswith("waits for 4 training workers with 1 CPU each: the cluster has 8 CP")
    assert "of which 2 CPUs and 0 GPUs are free; they start when others give it back" in first
    shown_cluster[0] = FREE
    until(lambda: "its workers are starting" in waits_of(tmp_path)[-1])
    callback.after_worker_group_start(object())
    time.sleep(0.05)
    assert waits_of(tmp_path)[-1] == ""
    count = len(waits_of(tmp_path))
    time.sleep(0.05)
    assert len(waits_of(tmp_path)) == count
    shown_cluster[0] = BUSY
    callback.after_worker_group_shutdown(object())
    until(lambda: len(waits_of(tmp_path)) > count)
    callback.after_controller_finish(object())
    assert callback.ended is None


def test_the_console_shows_it_in_the_line_of_the_stage_until_workers_start(shown_cluster, tmp_path):
    output, seconds = io.StringIO(), [0.0]
    progress = Progress(Console(file=output, width=400), lambda: seconds[0])
    progress.follow(tmp_path, "diffusion-f16c32", 100)
    EventLog(tmp_path).status("RUNNING")
    callback = WorkersCallback(tmp_path, WORKERS)
    callback.begin()
    until(lambda: waits_of(tmp_path))
    events = list(read_events(tmp_path))
    callback.end()
    until(lambda: waits_of(tmp_path)[-1] == "")
    for seconds[0], read in ((0, events), (16, []), (32, list(read_events(tmp_path, events[-1][0])))):
        if read:
            progress.consume(tmp_path, 0, read)
        progress.end_poll()
    progress.end_poll()
    first, second, third = output.getvalue().splitlines()
    assert first.endswith("diffusion-f16c32  running")
    assert "diffusion-f16c32  waits for 4 training workers with 1 CPU each" in second
    assert "diffusion-f16c32  0/100" in third


def test_tasks_that_do_not_start_are_logged():
    answers = iter([([], [1, 2])] * 3 + [([2], [1])])
    clock, logged = itertools.count(0, 4), []
    reminder = Reminder(lambda: "waits", logged.append, clock=lambda: next(clock))
    assert wait_for_any(lambda tasks, num_returns, timeout: next(answers), {1: "a", 2: "b"}, reminder) == 2
    assert logged == ["waits (12 s so far)"]


def test_a_stream_that_is_pending_is_logged(shown_cluster, monkeypatch):
    monkeypatch.setattr(waits, "reminding", lambda describe, log: waiting.reminding(describe, log, 0.01))
    monkeypatch.setattr(waits, "describe_pending", lambda *a: resources.describe_pending(*a, lambda: BUSY))
    logged = []

    def slow():
        until(lambda: logged)
        yield 1
        yield 2

    assert list(log_while_waiting(slow(), "encoding", WORKERS, logged.append)) == [1, 2]
    assert logged[0].startswith("encoding waits for 4 training workers")


def test_a_stream_that_runs_logs_its_progress(shown_cluster, monkeypatch):
    shown_cluster[0] = FREE
    monkeypatch.setattr(waits, "reminding", lambda describe, log: waiting.reminding(describe, log, 0.01))
    monkeypatch.setattr(waits, "describe_pending", lambda *a: resources.describe_pending(*a, lambda: FREE))
    logged = []

    def slow():
        yield 1
        until(lambda: logged)

    assert list(log_while_waiting(slow(), "the reading", WORKERS, logged.append)) == [1]
    assert logged[0].startswith("the reading is at work, blocks so far: 1")
