"""Event logs that are cut or have a byte changed anywhere: what is intact before and after is read."""

import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lola.storage.event_log import (
    EventLog,
    end_offset,
    event_log_path,
    event_log_size,
    last_status,
    log_digest,
    read_events,
)

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
NUMBERS = st.floats() | st.integers(-(2**60), 2**60)
METRICS = st.tuples(st.just("metrics"), st.integers(0, 10**9), st.dictionaries(TEXT, NUMBERS, max_size=3))
STATUS = st.tuples(st.just("status"), st.sampled_from(("RUNNING", "FINISHED", "FAILED", "KILLED")), TEXT)
NOTICE = st.tuples(st.just("notice"), TEXT)
LOGS = st.lists(METRICS | STATUS | NOTICE, min_size=1, max_size=6)


@pytest.fixture(scope="module", autouse=True)
def without_waiting_for_the_disk():
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("lola.storage.event_log.fsync_path", lambda path: None)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("stage")


def write(folder, events) -> list[bytes]:
    """The lines of a new log."""
    event_log_path(folder).unlink(missing_ok=True)
    event_log = EventLog(folder)
    for kind, *content in events:
        getattr(event_log, kind)(*content)
    return event_log_path(folder).read_bytes().splitlines(keepends=True)


def every_kind(folder) -> list[bytes]:
    """The lines of a log with an event of each kind."""
    event_log_path(folder).unlink(missing_ok=True)
    event_log = EventLog(folder)
    event_log.describe(name="autoencoder", tags={"model": "autoencoder"}, parameters={"steps": 3})
    event_log.status("RUNNING")
    event_log.dataset(name="euler", digest="d" * 16, context="training", source="/data")
    event_log.metrics(1, {"train/loss": 0.5, "valid/loss": float("nan")})
    event_log.curve("train/loss", [(1, 0.5), (2, float("nan"))])
    event_log.note("# what it is")
    event_log.view("accuracy", {"order": "valid/loss"})
    event_log.notice("a shard is corrupt")
    event_log.artifact(folder / "picture.png")
    event_log.model(folder / "model.safetensors", "euler-autoencoder")
    event_log.stage("emulators/euler", "f" * 16)
    event_log.report("reports/euler")
    event_log.status("FAILED", "killed")
    return event_log_path(folder).read_bytes().splitlines(keepends=True)


def texts(events) -> list[str]:
    return [repr(event) for _, event in events]  # in which NaN equals itself


def require_readable(folder, content: bytes, lines: list[bytes], whole: list[str], intact: int) -> list[str]:
    """Read a damaged log by all means; returns its events, of which the first `intact` are as written."""
    path = event_log_path(folder)
    path.write_bytes(content)
    events = list(read_events(folder))
    ends = [0, *itertools.accumulate(map(len, lines))]
    assert texts(events)[:intact] == whole[:intact]
    assert [offset for offset, _ in events][:intact] == ends[1 : intact + 1]
    assert end_offset(folder) == (events[-1][0] if events else 0)
    statuses = [event["status"] for _, event in events if event["kind"] == "status"]
    assert last_status(folder) == (statuses[-1] if statuses else None)
    assert log_digest(folder, event_log_size(folder))
    for _, event in events:
        assert isinstance(event["time"], int)
        assert all(isinstance(value, float | int) for value in event.get("values", {}).values())
    if len(content) % 5:  # writing takes longer than reading
        return texts(events)
    EventLog(folder).notice("resumed")
    resumed = list(read_events(folder))
    assert texts(resumed)[:-1] == texts(events)
    assert resumed[-1][1]["text"] == "resumed"
    return texts(events)


def test_a_log_that_is_cut_anywhere_has_the_events_before_the_cut(folder):
    lines = every_kind(folder)
    whole, content = texts(read_events(folder)), b"".join(lines)
    ends = list(itertools.accumulate(map(len, lines)))
    assert len(whole) == len(lines)
    for cut in range(len(content)):
        intact = sum(end <= cut for end in ends)
        assert len(require_readable(folder, content[:cut], lines, whole, intact)) == intact


@pytest.mark.parametrize("change", [0x01, 0x80])
def test_a_log_with_any_byte_changed_has_the_events_of_the_other_lines(folder, change):
    lines = every_kind(folder)
    whole, content = texts(read_events(folder)), b"".join(lines)
    for number, start in enumerate(itertools.accumulate(map(len, lines[:-1]), initial=0)):
        for at in range(start, start + len(lines[number])):
            damaged = bytearray(content)
            damaged[at] ^= change
            found = require_readable(folder, bytes(damaged), lines, whole, number)
            after = len(lines) - number - 1 - (content[at] == ord("\n"))  # without it, two lines are one
            assert after <= 0 or found[-after:] == whole[-after:]


@settings(max_examples=40, deadline=None)
@given(events=LOGS, data=st.data())
def test_any_log_survives_several_changed_bytes_and_a_cut(folder, events, data):
    lines = write(folder, events)
    whole, content = texts(read_events(folder)), bytearray(b"".join(lines))
    assert len(whole) == len(events)
    places = data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4))
    for at in places:
        content[at] = data.draw(st.integers(0, 255))
    first = data.draw(st.integers(min(places), len(content)))
    intact = sum(end <= min(places) for end in itertools.accumulate(map(len, lines)))
    require_readable(folder, bytes(content[:first]), lines, whole, intact)


def test_a_status_that_is_joined_to_another_event_is_no_status(tmp_path):
    event_log = EventLog(tmp_path)
    event_log.status("RUNNING")
    event_log.status("FAILED", "killed")
    event_log.metrics(3, {"loss": 1.0})
    path = event_log_path(tmp_path)
    first, second, third = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + second[:-1] + third)
    assert [event["kind"] for _, event in read_events(tmp_path)] == ["status", "metrics"]
    assert last_status(tmp_path) == "RUNNING"
