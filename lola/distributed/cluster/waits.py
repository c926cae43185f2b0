"""Logging which resources a stage waits for: of training workers, tasks, actors."""

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback

from lola.core.waiting import POLL_INTERVAL_S, Log, Reminder, reminding
from lola.distributed.cluster.resources import ResourceRequest, cluster_resources, describe_pending
from lola.storage.event_log import EventLog
from lola.storage.remote import AnyPath

T = TypeVar("T")


class WorkersCallback(ControllerCallback, WorkerGroupCallback):
    """Logs what a training that has no workers waits for; runs in the controller of the run.

    Ray Train waits for the workers' resources silently, at the start and whenever it starts them again.

    Arguments:
        folder: The stage's folder, for its record, whose readers know which stage's it is.
        request: What the workers take.
    """

    def __init__(self, folder: AnyPath, request: ResourceRequest) -> None:
        self.folder, self.request = folder, request
        self.ended: threading.Event | None = None

    def describe(self) -> str:
        """What the training waits for; its workers may also be starting."""
        cluster = cluster_resources()
        if cluster.count_pending(self.request):
            return describe_pending("", self.request, lambda: cluster, at_least=0)
        if not cluster.can_run_now(self.request):  # what is taken may be its own already
            return f"its workers are starting, or waiting for {self.request.each}"
        return "its workers are starting"

    def begin(self, *_: Any, **__: Any) -> None:
        """Begin to wait, unless it has begun."""
        if self.ended is not None:
            return
        self.ended = threading.Event()
        reminder = Reminder(self.describe, EventLog(self.folder).waiting)
        threading.Thread(target=_remind, args=(self.ended, reminder), daemon=True).start()

    def end(self, *_: Any, **__: Any) -> None:
        """The workers have started, or will not."""
        if self.ended is not None:
            self.ended.set()
            self.ended = None

    after_controller_start = before_worker_group_start = after_worker_group_shutdown = begin
    after_worker_group_start = after_controller_finish = before_controller_abort = end


def _remind(ended: threading.Event, reminder: Reminder) -> None:
    while not ended.wait(POLL_INTERVAL_S):
        with contextlib.suppress(Exception):  # a line that cannot be logged must not end the training
            reminder.poll()
    with contextlib.suppress(Exception):
        reminder.log("")  # the wait is over


def log_while_waiting(items: Iterable[T], title: str, request: ResourceRequest, log: Log) -> Iterator[T]:
    """Items of a stream that Ray makes, logging what it waits for or how far it is while none comes.

    Arguments:
        request: What each process that makes it takes.
    """
    count = 0

    def describe() -> str:
        return describe_pending(title, request) or f"{title} is at work, blocks so far: {count}"

    with reminding(describe, log) as reminder:
        for count, item in enumerate(items, 1):  # noqa: B007 (read by `describe`)
            yield item
            reminder.restart()


def wait_for_any(wait: Callable[..., tuple[list[T], list[T]]], tasks: Iterable[T], reminder: Reminder) -> T:
    """The first of some tasks that is done, by `ray.wait`; the reminder logs what is waited for meanwhile."""
    tasks = list(tasks)
    while True:
        reminder.poll()
        done, _ = wait(tasks, num_returns=1, timeout=POLL_INTERVAL_S)
        if done:
            return done[0]
