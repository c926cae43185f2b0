"""Following event logs: one reader, and sinks that take what it reads.

A sink is a view of the event logs: the console, MLflow, live metrics. Each is fed by a follower of its own in
a thread of its own, so that a server that does not answer delays no other view. A sink decides how far it has
taken a log: what it could not take is read again.
"""

import contextlib
import itertools
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

from lola.storage.event_log import read_events
from lola.storage.remote import AnyPath, first_line

POLL_INTERVAL_S = 2.0
BATCH = 500  # events that a sink is given at once
FINAL_WAIT_S = 60.0  # the longest wait for a busy sink at the end

NUMBER = re.compile(r"0x[0-9a-f]+|[0-9]+")

Events = Sequence[tuple[int, dict[str, Any]]]
"""Events, each with the offset of its end."""


class EventSink(Protocol):
    """A view of event logs."""

    name: str

    def start_offset(self, folder: AnyPath) -> int:
        """The offset in a stage's log from which the sink wants to read."""

    def consume(self, folder: AnyPath, offset: int, events: Events) -> int:
        """Take the events of a stage from an offset on; returns the offset to read from next.

        An offset that is the same as before says that nothing could be taken now.
        """

    def end_poll(self) -> None:
        """Called when all logs have been read."""


class LogReader:
    """Reads the event logs of stages' folders for one sink."""

    def __init__(self, sink: EventSink, folders: Iterable[AnyPath] = ()) -> None:
        self.sink = sink
        self._offsets: dict[AnyPath, int] = {}
        for folder in folders:
            self.add(folder)

    def add(self, folder: AnyPath) -> None:
        """Follow a stage from now on."""
        if folder not in self._offsets:
            self._offsets[folder] = self.sink.start_offset(folder)

    def rewind(self, folder: AnyPath) -> None:
        """Read a stage's log again from where the sink wants to start."""
        self._offsets[folder] = self.sink.start_offset(folder)

    def poll(self) -> None:
        """Give the sink what is new in all logs.

        Raises:
            Exception: The first that the sink or a log raised; the other logs are read all the same.
        """
        failure: Exception | None = None
        for folder in list(self._offsets):
            try:
                self._read(folder)
            except Exception as error:  # whatever a sink raises must not keep it from the other logs
                failure = failure or error
        self.sink.end_poll()
        if failure is not None:
            raise failure

    def _read(self, folder: AnyPath) -> None:
        while True:
            offset = self._offsets[folder]
            events = list(itertools.islice(read_events(folder, offset), BATCH))
            if not events:
                return
            self._offsets[folder] = self.sink.consume(folder, offset, events)
            if self._offsets[folder] == offset:
                return


class Poller:
    """Polls one sink; what it raises is logged once, and again when it changes or ends."""

    def __init__(self, follower: LogReader, log: Callable[[str], None]) -> None:
        self.follower, self.log = follower, log
        self._failure = ""

    def poll(self) -> None:
        """Poll once; raises nothing."""
        name = self.follower.sink.name
        try:
            self.follower.poll()
        except Exception as error:  # a failing sink must not end the polling
            failure = f"{type(error).__name__}: {first_line(error)}"
            kind = NUMBER.sub("", failure)  # addresses and times differ at every attempt
            if kind != self._failure:
                self._log(f"{name} cannot be updated now ({failure}); the event logs keep everything")
            self._failure = kind
        else:
            if self._failure:
                self._log(f"{name} is updated again")
            self._failure = ""

    def _log(self, text: str) -> None:
        with contextlib.suppress(Exception):  # the console itself may be what fails
            self.log(text)

    def run(self, stop: threading.Event) -> None:
        """Poll until an event is set, and once after it."""
        while not stop.wait(POLL_INTERVAL_S):
            self.poll()
        self.poll()


@contextlib.contextmanager
def poll_in_threads(followers: Sequence[LogReader], log: Callable[[str], None]) -> Iterator[None]:
    """Feed sinks from event logs while the block runs, each in a thread of its own; failures are logged."""
    stop = threading.Event()
    threads = [
        threading.Thread(
            target=Poller(follower, log).run, args=(stop,), name=f"watch-{follower.sink.name}", daemon=True
        )
        for follower in followers
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(FINAL_WAIT_S)
