import io
import itertools
import os
import re
import threading
import time
from types import SimpleNamespace

from rich.console import Console
from rich.table import Table

import lola.core.waiting
import lola.storage.progress
from lola.storage.event_log import EventLog, read_events
from lola.storage.follow import LogReader
from lola.storage.progress import Progress


def test_paths_with_brackets_are_shown_as_they_are(tmp_path):
    text = io.StringIO()
    progress = Progress(Console(file=text, width=40))
    event_log = EventLog(tmp_path)
    event_log.notice("/data/a [x] [/red] b/file is corrupt")
    progress.follow(tmp_path, "stage [bold]", 3)
    progress.consume(tmp_path, 0, list(read_events(tmp_path)))
    progress.log("report: /data/a [x] [/red] 50%")
    first, second = text.getvalue().splitlines()
    assert first.endswith("stage [bold]  /data/a [x] [/red] b/file is corrupt")
    assert second.endswith("report: /data/a [x] [/red] 50%")


def test_a_silent_console_shows_what_is_being_made(monkeypatch):
    """A line after every few seconds without one, from any source."""
    monkeypatch.setattr(lola.storage.progress, "CHECK_INTERVAL_S", 0.01)
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
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self):
        return self.now


def lines_at(monkeypatch, seconds, describe, others=()):
    """When the console prints what is being made, over some seconds in which others print something too."""
    clock, lines = Clock(), []

    class Stop:
        def wait(self, interval):
            clock.now += interval
            if clock.now in others:
                shown.log("another line")
            return clock.now > seconds

        def set(self):
            pass

    class Thread:
        def __init__(self, target, daemon):
            self.start, self.join = target, lambda: None

    def record(self, markup):
        self.logged_at = clock.now
        lines.append((clock.now, markup))

    monkeypatch.setattr(lola.core.waiting, "threading", SimpleNamespace(Event=Stop, Thread=Thread))
    monkeypatch.setattr(Progress, "_print", record)
    shown = Progress(Console(file=io.StringIO()), clock)
    with shown.reporting(lambda: describe(clock.now)):
        pass
    return [at for at, text in lines if text != "another line"]


def test_the_same_line_is_printed_less_and_less_often(monkeypatch):
    printed = lines_at(monkeypatch, 400, lambda now: "trials are starting")
    gaps = [later - earlier for earlier, later in itertools.pairwise([0.0, *printed])]
    assert gaps[:3] == [20, 40, 61]  # checks are a second apart
    assert set(gaps[2:]) == {61}


def test_a_line_that_changes_is_printed_at_once(monkeypatch):
    printed = lines_at(monkeypatch, 130, lambda now: "starting" if now < 60 else f"step {now // 10}")
    assert printed == [20, 60, 80, 100, 120]


def test_another_line_restarts_the_intervals(monkeypatch):
    assert lines_at(monkeypatch, 100, lambda now: "starting", others=(50,)) == [20, 70]


class Sweep:
    """Stages whose logs are polled every two seconds of a clock, and the lines of a console."""

    def __init__(self, root, monkeypatch, **totals):
        self.clock, self.output = Clock(), io.StringIO()
        monkeypatch.setattr("time.time", lambda: 1e9 + self.clock.now)
        self.progress = Progress(Console(file=self.output, width=200), self.clock)
        self.folders = {name: root / name for name in totals}
        for name, folder in self.folders.items():
            self.progress.follow(folder, name, totals[name])
        self.follower = LogReader(self.progress, self.folders.values())

    def run(self, seconds, write):
        """Let seconds pass, in which `write` may append to logs; returns the lines."""
        start = len(self.output.getvalue())
        for _ in range(seconds):
            write(self.clock.now, {name: EventLog(folder) for name, folder in self.folders.items()})
            if self.clock.now % 2 == 0:
                self.follower.poll()
            self.clock.now += 1
        return [line[7:] for line in self.output.getvalue()[start:].splitlines()]


def test_a_training_has_a_line_every_15_seconds_with_step_loss_and_time_left(tmp_path, monkeypatch):
    sweep = Sweep(tmp_path, monkeypatch, diffusion=1000)

    def train(now, logs):
        if now == 0:
            logs["diffusion"].status("RUNNING")
        elif now % 5 == 0:
            logs["diffusion"].metrics(int(2 * now), {"train/loss": 1 / now, "train/seconds_per_step": 0.5})

    assert (
        sweep.run(50, train)
        == [
            "diffusion  running",
            "diffusion  30/1000  train 0.06667  s/step 0.5  about 8 min 5 s left",
            "diffusion  60/1000  train 0.03333  s/step 0.5  about 7 min 48 s left",
            "diffusion  90/1000  train 0.02222  s/step 0.5  about 7 min 33 s left",
        ][:4]
    )


def test_a_training_that_reports_rarely_is_not_silent(tmp_path, monkeypatch):
    sweep = Sweep(tmp_path, monkeypatch, diffusion=100)

    def train(now, logs):
        if now == 0:
            logs["diffusion"].status("RUNNING")
        elif now == 40:
            logs["diffusion"].metrics(50, {"train/loss": 0.5})
        elif now == 80:
            logs["diffusion"].metrics(100, {"train/loss": 0.25})
            logs["diffusion"].status("FINISHED")

    assert sweep.run(100, train) == [
        "diffusion  running",
        "diffusion  0/100  running for 16 s",
        "diffusion  0/100  running for 32 s",
        "diffusion  50/100  train 0.5  about 32 s left",
        "diffusion  50/100  train 0.5  about 16 s left",
        "diffusion  finished in 1 min 20 s: 100/100  train 0.25",
    ]


def test_steps_between_reports_are_shown(tmp_path, monkeypatch):
    sweep = Sweep(tmp_path, monkeypatch, diffusion=100)

    def train(now, logs):
        if now == 0:
            logs["diffusion"].status("RUNNING")
        elif now % 10 == 0:
            logs["diffusion"].progress(int(now))

    assert sweep.run(40, train) == [
        "diffusion  running",
        "diffusion  10/100  about 1 min 24 s left",
        "diffusion  30/100  about 1 min 8 s left",
    ]


def test_a_resumed_stage_is_not_thought_faster_than_it_is(tmp_path, monkeypatch):
    EventLog(tmp_path / "diffusion").metrics(500, {"train/loss": 1.0})
    sweep = Sweep(tmp_path, monkeypatch, diffusion=1000)

    def train(now, logs):
        if now == 0:
            logs["diffusion"].status("RUNNING")
        elif now in (4, 14):
            logs["diffusion"].metrics(500 + 10 * int(now > 4), {"train/loss": 1.0})

    assert sweep.run(20, train)[-1] == "diffusion  510/1000  train 1  about 8 min 8 s left"


def test_sixty_files_are_few_lines(tmp_path, monkeypatch):
    sweep = Sweep(tmp_path, monkeypatch, latents=60, evaluation=60)

    def encode(now, logs):
        for log in logs.values():
            if now == 0:
                log.status("RUNNING")
            log.metrics(int(now) + 1, {"progress/shards": now + 1})
            if now == 59:
                log.status("FINISHED")

    lines = sweep.run(61, encode)
    assert len(lines) == 2 * 5  # the start, three lines and the end of each
    assert "latents  17/60  about 40 s left" in lines


def test_a_stage_that_starts_and_ends_between_polls_is_one_line(tmp_path, monkeypatch):
    sweep = Sweep(tmp_path, monkeypatch, evaluation=2)

    def score(now, logs):
        if now == 1:
            logs["evaluation"].status("RUNNING")
            logs["evaluation"].metrics(2, {})
            logs["evaluation"].status("FINISHED")

    assert sweep.run(40, score) == ["evaluation  finished in 0 s: 2/2"]


class Terminal:
    """A pseudo-terminal and what was written to it."""

    def __init__(self):
        reading, writing = os.openpty()
        self.written = b""
        self.file = os.fdopen(writing, "w")
        self._reading = reading
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self):
        try:
            while piece := os.read(self._reading, 4096):
                self.written += piece
        except OSError:  # the other end is closed
            pass

    def close(self):
        self.file.close()
        self._thread.join(5)
        os.close(self._reading)

    @property
    def text(self):
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.written.decode())


def test_a_terminal_has_one_display_of_stages_and_lines_of_what_ended(tmp_path, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    terminal, clock = Terminal(), Clock()
    shown = Progress(Console(file=terminal.file, width=100), clock)
    assert shown.live
    folders = {name: tmp_path / name for name in ("autoencoder", "diffusion")}
    logs = {name: EventLog(folder) for name, folder in folders.items()}
    follower = LogReader(shown)
    for name, folder in folders.items():
        shown.follow(folder, name, 1000)
        follower.add(folder)
    with shown.reporting(lambda: "3 trials: 1 running, about 2 min 5 s left"):
        monkeypatch.setattr("time.time", lambda: 1e9 + clock.now)
        for log in logs.values():
            log.status("RUNNING")
        clock.now = 20.0
        logs["diffusion"].metrics(250, {"train/loss": 0.125})
        logs["autoencoder"].status("FINISHED")
        follower.poll()
        deadline = time.monotonic() + 5
        while "250/1000  about 1 min 0 s left  train 0.125" not in terminal.text:
            assert time.monotonic() < deadline, terminal.text
            time.sleep(0.02)
    terminal.close()
    assert "00:20  3 trials: 1 running, about 2 min 5 s left" in terminal.text
    assert b"\x1b[?25l" in terminal.written
    assert b"\x1b[?25h" in terminal.written  # the cursor comes back
    assert b"\x1b[2K" in terminal.written  # the display is replaced
    assert terminal.text.count("autoencoder  finished in 20 s: 1000/1000") == 1
    assert "diffusion  running" not in terminal.text  # the display says so


def test_a_display_is_not_drawn_where_output_is_kept(monkeypatch):
    """Colours may be forced upon a log."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert not Progress(Console(file=io.StringIO())).live
    monkeypatch.setenv("TERM", "dumb")
    terminal = Terminal()
    assert not Progress(Console(file=terminal.file)).live
    terminal.close()


def test_tables_are_whole_where_the_console_is_no_terminal():
    output = io.StringIO()
    table = Table(*(f"column {i}" for i in range(5)), box=None)
    table.add_row(*(f"0.{i} (160x, 16 steps, and more)" for i in range(5)))
    Progress(Console(file=output, width=80)).show(table)
    assert "0.4 (160x, 16 steps, and more)" in output.getvalue()
    assert "…" not in output.getvalue()
