import itertools
import time

from lola.core import waiting
from lola.core.waiting import (
    LONGEST_S,
    PROGRESS_INTERVAL_S,
    Reminder,
    describe_progress,
    format_duration,
    progress_reminder,
    reminding,
)


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self):
        return self.now


def lines_of(describe, seconds, restart=()):
    """When a reminder that is polled every second says what, over some seconds."""
    clock, said = Clock(), []
    reminder = Reminder(describe, lambda text: said.append((clock.now, text)), clock=clock)
    for clock.now in map(float, range(seconds)):
        if clock.now in restart:
            reminder.restart()
        reminder.poll()
    return said


def test_a_wait_is_logged_after_ten_seconds_and_then_less_and_less_often():
    said = lines_of(lambda: "waiting for a GPU", 400)
    assert said[0] == (10.0, "waiting for a GPU (10 s so far)")
    times = [at for at, _ in said]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert gaps[:4] == [10, 20, 40, 60]
    assert gaps == sorted(gaps)
    assert max(gaps) == LONGEST_S
    assert said[-1][1] == f"waiting for a GPU ({times[-1]:.0f} s so far)"


def test_a_short_wait_is_not_logged():
    assert lines_of(lambda: "waiting", 40, restart=range(0, 40, 9)) == []


def test_an_empty_description_logs_nothing():
    assert lines_of(lambda: "", 100) == []


def test_work_is_logged_at_even_intervals_with_the_time_left():
    clock, lines = Clock(), []
    reminder = progress_reminder(
        lambda: describe_progress(int(clock.now) // 5, 60, "files", reminder.elapsed), lines.append, clock
    )
    for clock.now in map(float, range(61)):
        reminder.poll()
    assert PROGRESS_INTERVAL_S == 15
    assert lines == [
        "3 of 60 files, about 4 min 45 s left",
        "6 of 60 files, about 4 min 30 s left",
        "9 of 60 files, about 4 min 15 s left",
        "12 of 60 files, about 4 min 0 s left",
    ]
    assert describe_progress(0, 60, "files", 15.0) == "0 of 60 files"


def test_durations_are_written_in_two_units():
    written = {5: "5 s", 59.7: "1 min 0 s", 3700: "1 h 1 min", 90000: "1 d 1 h"}
    assert {seconds: format_duration(seconds) for seconds in written} == written


def test_a_block_that_cannot_poll_is_watched(monkeypatch):
    monkeypatch.setattr(waiting, "POLL_INTERVAL_S", 0.005)
    said = []
    with reminding(lambda: "waiting for a lock", said.append, first=0.01):
        deadline = time.monotonic() + 2
        while not said and time.monotonic() < deadline:
            time.sleep(0.005)
    assert said[0].startswith("waiting for a lock (")
    count = len(said)
    time.sleep(0.05)
    assert len(said) == count


def test_a_line_that_cannot_be_logged_does_not_end_the_work(monkeypatch):
    monkeypatch.setattr(waiting, "POLL_INTERVAL_S", 0.005)

    def describe():
        raise OSError("no server")

    with reminding(describe, print, first=0.005):
        time.sleep(0.05)


def test_loading_is_logged_until_it_ends(monkeypatch, capsys):
    monkeypatch.setattr(waiting, "PROGRESS_INTERVAL_S", 0.01)
    monkeypatch.setattr("sys.argv", ["/folder/emulate.py"])
    with waiting.loading():
        time.sleep(0.1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "emulate.py: starting"
    assert lines[1].startswith("emulate.py: loading libraries (")
    time.sleep(0.05)
    assert not capsys.readouterr().out
