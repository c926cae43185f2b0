import threading

import pytest

from lola.storage import follow
from lola.storage.event_log import EventLog, event_log_path
from lola.storage.follow import LogReader, Poller, poll_in_threads


class Seen:
    """A sink that keeps what it takes, until it is set to fail."""

    name = "the view"

    def __init__(self):
        self.steps, self.failure, self.polls = [], None, 0

    def start_offset(self, folder):
        return 0

    def consume(self, folder, offset, events):
        if self.failure:
            raise self.failure
        self.steps += [event["step"] for _, event in events]
        return events[-1][0]

    def end_poll(self):
        self.polls += 1


def test_events_are_taken_once_and_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(follow, "BATCH", 2)
    event_log, sink = EventLog(tmp_path), Seen()
    follower = LogReader(sink, [tmp_path, tmp_path / "nothing"])
    for step in range(5):
        event_log.metrics(step, {})
    follower.poll()
    event_log.metrics(5, {})
    follower.poll()
    follower.poll()
    assert sink.steps == [0, 1, 2, 3, 4, 5]
    follower.rewind(tmp_path)
    follower.poll()
    assert sink.steps == [0, 1, 2, 3, 4, 5] * 2
    assert sink.polls == 4


def test_what_a_sink_does_not_take_is_read_again_and_other_logs_go_on(tmp_path):
    for name in ("broken", "whole"):
        EventLog(tmp_path / name).metrics(len(name), {})
    sink = Seen()
    consume = sink.consume
    sink.consume = lambda folder, offset, events: (
        consume(folder, offset, events) if folder.name == "whole" else 1 / 0
    )
    follower = LogReader(sink, [tmp_path / "broken", tmp_path / "whole"])
    with pytest.raises(ZeroDivisionError):
        follower.poll()
    assert sink.steps == [5]
    sink.consume = consume
    follower.poll()
    assert sink.steps == [5, 6]


def test_a_sink_decides_where_to_read_on(tmp_path):
    """A sink that does not answer is not asked again in the same poll; one may ask for an earlier offset."""
    for step in range(3):
        EventLog(tmp_path).metrics(step, {})
    answers, asked = [0, 0], []

    class Seeking(Seen):
        def consume(self, folder, offset, events):
            asked.append((offset, len(events)))
            return answers.pop() if answers else events[-1][0]

    follower = LogReader(Seeking(), [tmp_path])
    follower.poll()
    follower.poll()
    assert asked == [(0, 3), (0, 3)]
    answers.append(first := event_log_path(tmp_path).read_bytes().index(b"\n") + 1)
    follower.poll()
    assert asked[2:] == [(0, 3), (first, 2)]


def test_failures_are_logged_once_and_again_when_they_change_or_end(tmp_path):
    EventLog(tmp_path).metrics(1, {})
    sink, lines = Seen(), []
    watch = Poller(LogReader(sink, [tmp_path]), lines.append)
    for failure in (
        OSError("at 0x7f01 after 20 s"),
        OSError("at 0x7f02 after 21 s"),
        OSError("disk full"),
        None,
    ):
        sink.failure = failure
        watch.poll()
        watch.poll()
    assert [line.split(";")[0] for line in lines] == [
        "the view cannot be updated now (OSError: at 0x7f01 after 20 s)",
        "the view cannot be updated now (OSError: disk full)",
        "the view is updated again",
    ]
    assert sink.steps == [1]


def test_watching_survives_sinks_and_consoles_that_fail(tmp_path, monkeypatch):
    """A sink that fails, or blocks, delays no other."""
    monkeypatch.setattr(follow, "POLL_INTERVAL_S", 0.01)
    monkeypatch.setattr(follow, "FINAL_WAIT_S", 0.1)
    whole, broken, stuck, reached, release = Seen(), Seen(), Seen(), threading.Event(), threading.Event()
    broken.failure = MemoryError("full")
    stuck.consume = lambda *_: release.wait()
    whole.end_poll = lambda: reached.set() if len(whole.steps) == 2 else None
    EventLog(tmp_path).metrics(1, {})

    def log(text):
        raise BrokenPipeError

    with poll_in_threads([LogReader(sink, [tmp_path]) for sink in (broken, stuck, whole)], log):
        EventLog(tmp_path).metrics(2, {})
        assert reached.wait(20)
        broken.failure = None
    assert whole.steps == broken.steps == [1, 2]
    release.set()
