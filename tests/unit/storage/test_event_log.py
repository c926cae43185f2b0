import math

import pytest

import lola.storage.event_log
from lola.core.strict_json import loads
from lola.storage.event_log import (
    EventLog,
    end_offset,
    event_log_path,
    event_log_size,
    last_status,
    log_digest,
    read_events,
)
from lola.storage.remote import read_bytes


def test_events_come_back_in_order_with_offsets(tmp_path):
    event_log = EventLog(tmp_path)
    event_log.status("RUNNING")
    event_log.metrics(10, {"train/loss": 0.5})
    events = list(read_events(tmp_path))
    assert [event["kind"] for _, event in events] == ["status", "metrics"]
    assert [event["kind"] for _, event in read_events(tmp_path, events[0][0])] == ["metrics"]
    assert events[-1][0] == event_log_path(tmp_path).stat().st_size


def test_metrics_that_are_not_finite_are_null_in_the_record(tmp_path):
    EventLog(tmp_path).metrics(1, {"train/loss": math.nan, "valid/loss": math.inf, "train/skipped": 3.0})
    line = event_log_path(tmp_path).read_text()
    assert loads(line)["values"] == {"train/loss": None, "valid/loss": None, "train/skipped": 3.0}
    ((_, event),) = read_events(tmp_path)
    assert math.isnan(event["values"]["train/loss"])
    assert math.isnan(event["values"]["valid/loss"])
    assert event["values"]["train/skipped"] == 3


def test_a_line_that_was_cut_off_is_dropped_and_the_log_continues(tmp_path):
    EventLog(tmp_path).metrics(1, {"a": 1.0})
    with event_log_path(tmp_path).open("a") as file:
        file.write('{"kind": "metr')
    assert len(list(read_events(tmp_path))) == 1
    EventLog(tmp_path).metrics(2, {"a": 2.0})
    assert [event["step"] for _, event in read_events(tmp_path)] == [1, 2]


def test_no_record_is_no_events(tmp_path):
    assert list(read_events(tmp_path)) == []


def move(monkeypatch, tmp_path, name):
    """Go on with another machine, which has no copies of the first's."""
    monkeypatch.setenv("LOLA_CACHE", str(tmp_path / name))
    monkeypatch.setattr(lola.storage.event_log, "_last_fetch_s", {})


def steps(folder):
    return [event["step"] for _, event in read_events(folder) if event["kind"] == "metrics"]


def uploads(folder):
    return read_bytes(folder / "events.jsonl").count(b"\n")


def test_a_remote_record_is_uploaded_now_and_then_and_at_its_end(memory_root, monkeypatch):
    folder = memory_root / "stage"
    event_log = EventLog(folder)
    event_log.status("RUNNING")
    for step in (1, 2, 3):
        EventLog(folder).metrics(step, {"a": 1.0})  # by whatever process
    assert uploads(folder) == 1
    assert steps(folder) == [1, 2, 3]
    monkeypatch.setattr(lola.storage.event_log, "UPLOAD_INTERVAL_S", 0.0)
    event_log.metrics(4, {"a": 1.0})
    assert uploads(folder) == 5
    monkeypatch.setattr(lola.storage.event_log, "UPLOAD_INTERVAL_S", 100.0)
    event_log.artifact(folder / "deep" / "picture.png")
    event_log.status("FINISHED")
    assert uploads(folder) == 7
    assert "deep/picture.png" in [event.get("path") for _, event in read_events(folder)]
    assert event_log_size(folder) == len(read_bytes(folder / "events.jsonl"))


def test_another_machine_reads_a_remote_record_and_goes_on_with_it(memory_root, monkeypatch, tmp_path):
    folder = memory_root / "stage"
    event_log = EventLog(folder)
    event_log.metrics(1, {"a": 1.0})
    event_log.status("RUNNING")
    event_log.metrics(2, {"a": 1.0})  # lost with the machine
    move(monkeypatch, tmp_path, "second")
    assert steps(folder) == [1]
    offset = event_log_size(folder)
    event_log = EventLog.resume(folder)
    event_log.metrics(2, {"a": 2.0})
    event_log.status("FINISHED")
    assert [event["kind"] for _, event in read_events(folder, offset)] == ["metrics", "status"]
    move(monkeypatch, tmp_path, "cache")  # the first machine again, whose copy is of another past
    EventLog.resume(folder).metrics(3, {"a": 3.0})
    assert steps(folder) == [1, 2, 3]
    values = [event["values"]["a"] for _, event in read_events(folder) if event["kind"] == "metrics"]
    assert values == [1.0, 2.0, 3.0]


def test_what_was_not_uploaded_yet_is_kept_by_its_own_machine(memory_root):
    folder = memory_root / "stage"
    EventLog(folder).status("RUNNING")
    EventLog(folder).metrics(1, {"a": 1.0})
    EventLog.resume(folder).metrics(2, {"a": 2.0})
    assert steps(folder) == [1, 2]


def test_an_outage_stops_no_metrics(memory_root, monkeypatch):
    folder, event_log = memory_root / "stage", EventLog(memory_root / "stage")
    monkeypatch.setattr(lola.storage.event_log, "UPLOAD_INTERVAL_S", 0.0)

    def fail(*arguments):
        raise ConnectionError("down")

    with monkeypatch.context() as outage:
        outage.setattr(memory_root.fs, "put_file", fail)
        event_log.metrics(1, {"a": 1.0})
        with pytest.raises(OSError, match="cannot be reached"):
            event_log.status("FAILED")
    event_log.metrics(2, {"a": 1.0})
    assert uploads(folder) == 3


def test_events_after_a_line_that_was_cut_off_are_read(tmp_path):
    """A process is killed while it writes; another, which has the log open, goes on with the same line."""
    event_log = EventLog(tmp_path)
    event_log.metrics(1, {"a": 1.0})
    for rest in ('{"kind": "metrics", "time": 1, "st', "\0\0\0\0", '{"kind": "status"', "\n", "[]\n"):
        with event_log_path(tmp_path).open("a") as file:
            file.write(rest)
        assert last_status(tmp_path) is None
        assert end_offset(tmp_path) == next(iter(read_events(tmp_path)))[0]
    event_log.metrics(2, {"a": 2.0})
    with event_log_path(tmp_path).open("a") as file:
        file.write('{"kind": "sta')
    event_log.status("FAILED", "killed")
    event_log.metrics(3, {"a": 2.0})
    events = list(read_events(tmp_path))
    assert [event.get("step") for _, event in events] == [1, 2, None, 3]
    assert last_status(tmp_path) == "FAILED"
    assert end_offset(tmp_path) == events[-1][0] == event_log_size(tmp_path)
    with event_log_path(tmp_path).open("a") as file:
        file.write('{"kind": "metr')
    assert end_offset(tmp_path) == events[-1][0]


def test_the_last_event_is_found_far_from_the_end(tmp_path):
    assert end_offset(tmp_path) == 0
    assert last_status(tmp_path) is None
    EventLog(tmp_path).status("RUNNING")
    size = event_log_size(tmp_path)
    with event_log_path(tmp_path).open("a") as file:
        file.write("x" * 100_000)
    assert end_offset(tmp_path) == size
    assert last_status(tmp_path) == "RUNNING"


def test_a_log_is_distinguished_by_what_is_before_an_offset(tmp_path):
    for name, value in (("one", 1.0), ("two", 2.0)):
        for step in range(100):
            EventLog(tmp_path / name).metrics(step, {"a": value})
    size = event_log_size(tmp_path / "one")
    digest = log_digest(tmp_path / "one", size)
    EventLog(tmp_path / "one").metrics(100, {"a": 1.0})
    assert log_digest(tmp_path / "one", size) == digest != log_digest(tmp_path / "two", size)
    assert log_digest(tmp_path / "two", 2 * size) == ""
