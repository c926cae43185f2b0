"""Logging what a program waits for, at growing intervals, and how far its work has come.

Code that waits for a cluster, a lock or a server uses a `Reminder`, so that no command is silent for more
than a minute; long work uses one with constant intervals (`progress_reminder`). A loop that iterates often
calls `Reminder.poll`; elsewhere `reminding` does, from a thread.
"""

import contextlib
import functools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator

FIRST_S = 10.0  # before the first line about a wait
LONGEST_S = 60.0  # between two lines about a wait, at most
PROGRESS_INTERVAL_S = 15.0  # between two lines about work
POLL_INTERVAL_S = 0.5

Log = Callable[[str], None]


class Reminder:
    """Logs what is waited for once that has lasted for some seconds, then at intervals that double.

    Arguments:
        describe: Returns what is waited for; an empty text, if nothing is, restarts the intervals.
        log: Takes the line.
        first: Seconds before the first line.
        longest: Seconds between two lines, at most.
        clock: Returns seconds.
        show_elapsed: Whether lines end with the seconds since the wait began.
    """

    def __init__(
        self,
        describe: Callable[[], str],
        log: Log,
        first: float = FIRST_S,
        longest: float = LONGEST_S,
        clock: Callable[[], float] = time.monotonic,
        *,
        show_elapsed: bool = True,
    ) -> None:
        self.describe, self.log, self.clock = describe, log, clock
        self.first, self.longest, self.show_elapsed = first, longest, show_elapsed
        self.restart()

    def restart(self) -> None:
        """Restart the intervals: the wait is over."""
        self.since = self.logged_at = self.clock()
        self.interval = self.first

    @property
    def elapsed(self) -> float:
        """Seconds since the wait or the work began."""
        return self.clock() - self.since

    def poll(self) -> None:
        """Log a line if it is time to."""
        now = self.clock()
        if now - self.logged_at < self.interval:
            return
        text = self.describe()
        if text:
            self.log(f"{text} ({now - self.since:.0f} s so far)" if self.show_elapsed else text)
            self.interval = (
                min(2 * self.interval, self.longest) if self.logged_at > self.since else self.first
            )
            self.logged_at = now
        else:
            self.restart()


def progress_reminder(
    describe: Callable[[], str], log: Log, clock: Callable[[], float] = time.monotonic
) -> Reminder:
    """A reminder that logs the progress of work, at constant intervals."""
    return Reminder(describe, log, PROGRESS_INTERVAL_S, PROGRESS_INTERVAL_S, clock, show_elapsed=False)


def describe_progress(done: int, total: int, unit: str, elapsed: float) -> str:
    """How much is done after some seconds, and the time left: `12 of 60 files, about 40 s left`."""
    left = f", about {format_duration(elapsed * (total - done) / done)} left" if 0 < done < total else ""
    return f"{done} of {total} {unit}{left}"


def format_duration(seconds: float) -> str:
    """Days and hours, hours and minutes, minutes and seconds, or seconds."""
    seconds = round(seconds)
    for size, name, small, part in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= size:
            return f"{seconds // size} {name} {seconds % size // small} {part}"
    return f"{seconds} s"


@contextlib.contextmanager
def reminding(
    describe: Callable[[], str], log: Log, first: float = FIRST_S, longest: float = LONGEST_S
) -> Iterator[Reminder]:
    """Poll a `Reminder` from a thread while the block runs."""
    reminder = Reminder(describe, log, first, longest)
    with call_at_intervals(reminder.poll, min(POLL_INTERVAL_S, first)):
        yield reminder


@contextlib.contextmanager
def call_at_intervals(function: Callable[[], None], interval_s: float) -> Iterator[None]:
    """Call a function from a thread at intervals while the block runs; what it raises is ignored."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(interval_s):
            with contextlib.suppress(Exception):  # a line that cannot be logged must not end the work
                function()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """Print that the program starts, and every few seconds that it still loads libraries.

    Around the imports of `main`, which take seconds: options are parsed before.
    """
    program = os.path.basename(sys.argv[0])
    log = functools.partial(print, flush=True)
    log(f"{program}: starting")
    with reminding(lambda: f"{program}: loading libraries", log, PROGRESS_INTERVAL_S, PROGRESS_INTERVAL_S):
        yield
