"""Saying what a program waits for, after some seconds and again at growing intervals, or what it works on.

Whatever waits, for a cluster, a lock or a server, says so by a `Reminder`, so that no command waits for more
than a minute without a word; whatever works for long does by one whose intervals do not grow (`working`).
Where a loop goes round often enough, it calls `Reminder.poll`; elsewhere `reminding` does, from a thread.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

FIRST_S = 10.0  # seconds before the first line
LONGEST_S = 60.0  # seconds between two lines, at most
WORKING_S = 10.0  # seconds between two lines of what works
POLL_INTERVAL_S = 0.5

Log = Callable[[str], None]


class Reminder:
    """Says what is waited for once that has lasted for some seconds, then at intervals that double.

    Arguments:
        describe: Tells what is waited for; if nothing is, an empty text, which begins to count anew.
        log: Takes the line.
        first: Seconds before the first line.
        longest: Seconds between two lines, at most.
        clock: Tells seconds.
    """

    def __init__(
        self,
        describe: Callable[[], str],
        log: Log,
        first: float = FIRST_S,
        longest: float = LONGEST_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.describe, self.log, self.clock = describe, log, clock
        self.first, self.longest = first, longest
        self.restart()

    def restart(self) -> None:
        """Begin to count anew: what was waited for has come."""
        self.since = self.said = self.clock()
        self.interval = self.first

    def poll(self) -> None:
        """Say what is waited for, if it is time to."""
        now = self.clock()
        if now - self.said < self.interval:
            return
        text = self.describe()
        if text:
            self.log(f"{text} ({now - self.since:.0f} s so far)")
            self.interval = self.first if self.said == self.since else min(2 * self.interval, self.longest)
            self.said = now
        else:
            self.restart()


def working(describe: Callable[[], str], log: Log, clock: Callable[[], float] = time.monotonic) -> Reminder:
    """What says how far work has come, every few seconds."""
    return Reminder(describe, log, WORKING_S, WORKING_S, clock)


@contextlib.contextmanager
def reminding(
    describe: Callable[[], str], log: Log, first: float = FIRST_S, longest: float = LONGEST_S
) -> Iterator[Reminder]:
    """Say from a thread what is waited for while the block runs, as a `Reminder` does."""
    stop, reminder = threading.Event(), Reminder(describe, log, first, longest)

    def watch() -> None:
        while not stop.wait(min(POLL_INTERVAL_S, first)):
            with contextlib.suppress(Exception):  # a word that cannot be said must not end the work
                reminder.poll()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield reminder
    finally:
        stop.set()
        thread.join()


_loading = contextlib.ExitStack()


def begin_loading(program: str) -> None:
    """Say that a program starts, and then that it still loads what it imports, until `end_loading`."""
    print(f"{program}: starting", flush=True)
    describe = lambda: f"{program}: loading libraries"  # noqa: E731
    _loading.enter_context(reminding(describe, lambda text: print(text, flush=True), WORKING_S, WORKING_S))


def end_loading() -> None:
    """Everything is imported."""
    _loading.close()
