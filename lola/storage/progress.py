"""Progress of a sweep on the console, read from the stages' event logs.

A terminal has one live display of the stages that run, below the lines that stay: of stages that ended, and
of notices. Elsewhere every stage that runs has a line now and then, as in the log of a job.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lola.core.waiting import LONGEST_S, PROGRESS_INTERVAL_S, call_at_intervals, format_duration
from lola.storage.event_log import end_offset
from lola.storage.follow import Events
from lola.storage.remote import AnyPath

SILENCE_S = 1.3 * PROGRESS_INTERVAL_S  # without a line, after which the console says what is being made
CHECK_INTERVAL_S = 1.0
WAITING_S = 1.1 * LONGEST_S  # after which a wait that is not repeated is over
REDRAWS_PER_S = 2.0
BAR_WIDTH = 12  # columns
TABLE_WIDTH = 160  # columns, where the console is not a terminal
SHOWN = {"train/loss": "train", "valid/loss": "valid", "train/seconds_per_step": "s/step"}


@dataclasses.dataclass
class StageProgress:
    """How far a stage is, from the events of its log in order."""

    total: int  # its last step
    resumed: bool = False  # whether its log holds earlier events, so that it may not start at step 0
    status: str = ""
    waiting: str = ""  # for what, since its last step or status
    done: int = 0
    values: dict[str, float] = dataclasses.field(default_factory=dict)
    began: float = 0.0  # Unix time, as all that follow
    reported: float = 0.0
    rated: tuple[int, float] | None = None  # the step and the time that the rate is measured from

    def read(self, event: Mapping[str, Any]) -> None:
        at = event["time"] / 1000
        if event["kind"] in ("status", "metrics", "progress", "waiting"):
            self.waiting = event.get("text", "")
        if event["kind"] == "status":
            self.status = event["status"]
            if self.status == "RUNNING":
                self.began = at
                self.rated = None if self.resumed or self.done else (0, at)
            elif self.status == "FINISHED":
                self.done = self.total
        elif event["kind"] in ("metrics", "progress"):
            self.status = self.status or "RUNNING"
            self.done, self.reported = max(self.done, event["step"]), at
            self.rated = self.rated or (self.done, at)
            self.values |= event.get("values", {})

    @property
    def seconds(self) -> float | None:
        """How long the whole stage takes at the rate so far; None if that is not known yet."""
        if self.rated is None or self.done <= self.rated[0] or self.reported <= self.rated[1]:
            return None
        return (self.reported - self.rated[1]) / (self.done - self.rated[0]) * self.total

    @property
    def seconds_left(self) -> float | None:
        """How long the rest took from the last report on; None if the rate is not known yet."""
        return None if self.seconds is None else self.seconds * (1 - self.done / self.total)

    def __str__(self) -> str:
        """Step, losses, and what was lost."""
        return "  ".join([f"{self.done}/{self.total}", *self.details])

    @property
    def details(self) -> list[str]:
        """Losses, and what was lost."""
        shown = [f"{name} {self.values[key]:.4g}" for key, name in SHOWN.items() if key in self.values]
        shown += [
            f"{count:.0f} rollouts did not stay finite"
            for name, count in self.values.items()
            if name.endswith("/diverged_rollouts") and count
        ]
        if self.values.get("train/skipped"):
            shown.append(f"skipped {self.values['train/skipped']:.0f}")
        return shown


@dataclasses.dataclass
class _Line:
    """What the console shows of a stage, with its clock's seconds of the last event and the last line."""

    name: str
    progress: StageProgress
    event_at: float = 0.0
    waiting_at: float = 0.0
    logged_at: float = 0.0
    started: bool = False  # whether it started since the last poll, which nothing shows yet

    def waits_for(self, now: float) -> str:
        """What the stage waits for, if it said so lately."""
        return self.progress.waiting if now - self.waiting_at < WAITING_S else ""

    def time_left(self, now: float) -> str:
        """About how long the stage still takes, or how long it has run if that is not known."""
        since, left = now - self.event_at, self.progress.seconds_left
        if left is not None:
            return f"about {format_duration(max(0.0, left - since))} left"
        return "" if self.progress.done else f"running for {format_duration(since)}"


class Progress:
    """Shows every stage that runs, at least every `PROGRESS_INTERVAL_S`; a sink of event logs.

    Arguments:
        clock: Returns seconds.
    """

    name = "the console"

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self.console, self.clock = console, clock
        self.live = console.is_terminal and not console.is_dumb_terminal and console.file.isatty()
        self.started = self.logged_at = clock()
        self._lines: dict[AnyPath, _Line] = {}

    def log(self, text: str) -> None:
        """Print a line with the time since the start, as it is."""
        self._print(escape(text))

    def show(self, table: RenderableType) -> None:
        """Print a table as it is; rich takes a log for 80 columns wide, and prints none that is wider."""
        wide = (
            self.console if self.console.is_terminal else Console(file=self.console.file, width=TABLE_WIDTH)
        )
        wide.print(table, crop=False, no_wrap=True)

    def _print(self, markup: str) -> None:
        self.logged_at = self.clock()
        self.console.print(f"[dim]{self._time()}[/dim]  {markup}", highlight=False, soft_wrap=True)

    def _time(self) -> str:
        minutes, seconds = divmod(int(self.clock() - self.started), 60)
        return f"{minutes:02d}:{seconds:02d}"

    @contextlib.contextmanager
    def reporting(self, describe: Callable[[], str]) -> Iterator[None]:
        """Show what is being made while the block runs: always on a terminal, else after a silence.

        Elsewhere it is printed when nothing was for `SILENCE_S` seconds; the same line is printed again after
        intervals that double, up to a minute, until another is.
        """
        if self.live:
            with Live(
                get_renderable=lambda: self._display(describe()),
                console=self.console,
                refresh_per_second=REDRAWS_PER_S,
                transient=True,
            ):
                yield
            return
        repeated, at, interval = "", self.logged_at, SILENCE_S

        def check() -> None:
            nonlocal repeated, at, interval
            if self.logged_at != at:
                repeated = ""
            silence = self.clock() - self.logged_at
            if silence > SILENCE_S:
                text = describe()
                if text != repeated:
                    interval = SILENCE_S
                if silence > interval:
                    self.log(text)
                    repeated, at, interval = text, self.logged_at, min(2 * interval, LONGEST_S)

        with call_at_intervals(check, CHECK_INTERVAL_S):
            yield

    def follow(self, folder: AnyPath, name: str, total: int) -> None:
        """Name a stage whose log is shown, `total` being its last step."""
        self._lines.setdefault(folder, _Line(name, StageProgress(total)))

    def start_offset(self, folder: AnyPath) -> int:
        """What a stage reported before is not shown again."""
        offset = end_offset(folder)
        self._lines[folder].progress.resumed = offset > 0
        return offset

    def consume(self, folder: AnyPath, offset: int, events: Events) -> int:
        """Print ends of stages and notices, and keep metrics for the stage's next line."""
        line = self._lines[folder]
        for _, event in events:
            line.progress.read(event)
            if event["kind"] in ("status", "metrics", "progress"):
                line.event_at = self.clock()
            if event["kind"] == "waiting":
                line.waiting_at = self.clock()
            if event["kind"] == "status":
                line.logged_at = self.clock()
                line.started = event["status"] == "RUNNING"
                if not line.started:
                    self._show(line, _describe_status(event, line.progress))
            elif event["kind"] == "notice":
                self._show(line, event["text"])
        return events[-1][0]

    def end_poll(self) -> None:
        """Print the lines of stages that run and whose last line is old enough; the display has them."""
        now = self.clock()
        for line in list(self._lines.values()):
            if self.live or line.progress.status != "RUNNING":
                continue
            if line.started:
                self._show(line, "running")
            elif now - line.logged_at >= PROGRESS_INTERVAL_S:
                line.logged_at = now
                text = line.waits_for(now) or f"{line.progress}  {line.time_left(now)}"
                self._show(line, text.rstrip())
            line.started = False

    def _show(self, line: _Line, text: str) -> None:
        self._print(f"[bold]{escape(line.name)}[/bold]  {escape(text)}")

    def _display(self, summary: str) -> RenderableType:
        """The stages that run, a row each, and what is said of all."""
        now = self.clock()
        running = [line for line in list(self._lines.values()) if line.progress.status == "RUNNING"]
        rows = Table.grid(padding=(0, 2))
        rows.add_column(no_wrap=True, min_width=max((len(line.name) for line in running), default=0))
        rows.add_column(min_width=BAR_WIDTH)
        rows.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        for line in running:
            progress, waits = line.progress, line.waits_for(now)
            parts = [f"{progress.done}/{progress.total}", waits or line.time_left(now), *progress.details]
            bar = ProgressBar(progress.total, progress.done, BAR_WIDTH)
            rows.add_row(Text(line.name, "bold"), bar, Text("  ".join(filter(None, parts))))
        return Group(rows, Text(f"{self._time()}  {summary}", "dim", no_wrap=True, overflow="ellipsis"))


def _describe_status(event: Mapping[str, Any], progress: StageProgress) -> str:
    if event["status"] == "FINISHED" and progress.began:
        return f"finished in {format_duration(event['time'] / 1000 - progress.began)}: {progress}"
    return event["status"].lower() + (f": {event['reason']}" if event.get("reason") else "")
