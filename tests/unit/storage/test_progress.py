import io
import itertools
import time
from types import SimpleNamespace

from rich.console import Console

import lola.storage.progress
from lola.storage.event_log import EventLog, read_events
from lola.storage.progress import Progress


def test_paths_with_brackets_are_shown_as_they_are(tmp_path):
    text = io.StringIO()
    progress = Progress(Console(file=text, width=40))
    event_log = EventLog(tmp_path)
    event_log.notice("/data/a [x] [/red] b/file is corrupt")
    progress.follow(tmp_path, "stage [bold]", 3)
    progress.take(tmp_path, 0, list(read_events(tmp_path)))
    progress.log("report: /data/a [x] [/red] 50%")
    first, second = text.getvalue().splitlines()
    assert first.endswith("stage [bold]  /data/a [x] [/red] b/file is corrupt")
    assert second.endswith("report: /data/a [x] [/red] 50%")


def test_a_silent_console_says_what_is_at_work(monkeypatch):
    """A word after every few seconds without one, whoever said it."""
    monkeypatch.setattr(lola.storage.progress, "LOOK_S", 0.01)
    monkeypatch.setattr(lola.storage.progress, "SILENCE_S", 0.1)
    output = io.StringIO()
    shown = Progress(Console(file=output, width=200))
    with shown.reporting(lambda: "diffusion 25/100"):
        for _ in range(8):
            shown.log("a stage's own word")
            time.sleep(0.02)
        assert "diffusion" not in output.getvalue()
        deadline = time.monotonic() + 5
        while output.getvalue().count("diffusion 25/100") < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
    assert output.getvalue().count("diffusion 25/100") >= 2
    said = output.getvalue()
    time.sleep(0.2)
    assert output.getvalue() == said


class Clock:
    """Stands for `time`, and goes on by a second whenever it is waited for."""

    now = 0.0

    def monotonic(self):
        return self.now


def lines_at(monkeypatch, seconds, at_work, says=()):
    """When the console says what is at work, over some seconds in which others say something too."""
    clock, said = Clock(), []

    class Stop:
        def wait(self, interval):
            clock.now += interval
            if clock.now in says:
                shown.log("another word")
            return clock.now > seconds

        def set(self):
            pass

    class Thread:
        def __init__(self, target, daemon):
            self.start, self.join = target, lambda: None

    def record(self, markup):
        self.said = clock.now
        said.append((clock.now, markup))

    monkeypatch.setattr(lola.storage.progress, "time", clock)
    monkeypatch.setattr(lola.storage.progress, "threading", SimpleNamespace(Event=Stop, Thread=Thread))
    monkeypatch.setattr(Progress, "_print", record)
    shown = Progress(Console(file=io.StringIO()))
    with shown.reporting(lambda: at_work(clock.now)):
        pass
    return [at for at, text in said if text != "another word"]


def test_the_same_line_is_said_less_and_less_often(monkeypatch):
    said = lines_at(monkeypatch, 400, lambda now: "trials are starting")
    gaps = [later - earlier for earlier, later in itertools.pairwise([0.0, *said])]
    assert gaps[:3] == [12, 23, 45]  # looks are a second apart
    assert set(gaps[3:]) == {61}


def test_a_line_that_changes_is_said_as_soon_as_ever(monkeypatch):
    said = lines_at(monkeypatch, 130, lambda now: "starting" if now < 60 else f"step {now // 10}")
    assert said == [12, 35, 60, 72, 84, 96, 108, 120]


def test_another_word_begins_the_intervals_anew(monkeypatch):
    assert lines_at(monkeypatch, 100, lambda now: "starting", says=(50,)) == [12, 35, 62, 85]
