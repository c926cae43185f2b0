"""Training by one worker: a task of Ray's, in a process that trains and scores one stage after another.

A run of Ray Train starts a controller, a worker and helper actors, which import for seconds each; one worker
needs none of them. It keeps Ray Train's own list of checkpoints, so that what one worker began several go on
with, and the reverse. Checkpoints are stored in a thread while training goes on; what is reported then goes
to the process that waits for the task, which appends it to the stage's record.
"""

import contextlib
import shutil
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import RayError, RayTaskError
from ray.train import Checkpoint, PreemptionInfo
from ray.train.v2._internal.execution.training_report import _TrainingReport
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from lola.core.errors import LolaError
from lola.core.waiting import POLL_INTERVAL_S, PROGRESS_INTERVAL_S, Reminder
from lola.distributed.cluster.causes import cause_of, failure_reason
from lola.distributed.cluster.mailbox import Mailbox
from lola.distributed.cluster.preemption import (
    CHECK_INTERVAL_S,
    PreemptionMonitor,
    draining_nodes,
    preemption_of,
)
from lola.distributed.cluster.resources import describe_pending
from lola.distributed.jobs.checkpoints import CheckpointStore
from lola.distributed.jobs.worker import (
    Session,
    TrainingRun,
    is_final,
    record,
    task_threads,
    work,
    workers_request,
)
from lola.storage.event_log import EventLog

OUTSIDE = PlacementGroupSchedulingStrategy(None)  # type: ignore[arg-type]  # of the trial's placement group
LONGEST_PAUSE_S = 30.0  # before a worker is started again, longer each time

Report = Callable[[dict[str, Any]], None]


def train_by_one(run: TrainingRun) -> None:
    """Train a model to its end, from its last checkpoint if there is one.

    Raises:
        LolaError: The model or the data do not fit, or training failed more often than allowed.
    """
    config, event_log = run.training, EventLog(run.stage.folder)
    store = CheckpointStore.of(run.stage, config)
    store.mark()
    run_ref, failures = ray.put(run), 0
    while True:
        attempt = Attempt(run, run_ref)
        try:
            return attempt.follow()
        except RayError as error:
            own = cause_of(error, LolaError)
            if own is not None and is_final(own):
                raise own from error
            failures += isinstance(error, RayTaskError) or not attempt.preempted
            if 0 <= config.max_failures < failures:
                raise LolaError(f"training {run.stage.name} failed: {failure_reason(error)}") from error
            event_log.notice(f"its worker failed ({failure_reason(error)}); training starts again")
        for line in store.repair():
            event_log.notice(line)
        time.sleep(min(2.0 ** min(failures, 10), LONGEST_PAUSE_S))


class Attempt:
    """A task that trains, seen from the process that waits for it.

    Arguments:
        run_ref: The run in the object store.
    """

    def __init__(self, run: TrainingRun, run_ref: ray.ObjectRef) -> None:
        config, self.folder = run.training, run.stage.folder
        task = (_train_on_gpu if config.gpus else _train).options(
            num_cpus=config.cpus, num_gpus=config.gpus, scheduling_strategy=OUTSIDE
        )
        self.mailbox = Mailbox()
        self.task = task.remote(run_ref, self.mailbox.name)
        self.node: str | None = None  # once it has started
        self.preempted = False
        request = workers_request(config)
        waiting = EventLog(self.folder).waiting
        self.reminder = Reminder(lambda: describe_pending("", request), waiting)

    def follow(self) -> None:
        """Record what the task reports until it ends.

        Raises:
            RayError: It failed.
        """
        ended: list[ray.ObjectRef] = []
        try:
            while not ended:
                interval = POLL_INTERVAL_S if self.node is None else CHECK_INTERVAL_S
                ended, _ = ray.wait([self.task], timeout=interval)
                for message in self.mailbox.take():
                    self._receive(message)
                self._look()
        except BaseException:  # it must not go on without the lease of its stage
            ray.cancel(self.task, force=True)
            raise
        ray.get(self.task)

    def _receive(self, message: dict[str, Any]) -> None:
        if "node" in message:
            self.node = message["node"]
            EventLog(self.folder).waiting("")  # the wait is over
        else:
            record(self.folder, message)

    def _look(self) -> None:
        """Say what the task waits for, and see whether its node has had notice."""
        with contextlib.suppress(Exception):  # what cannot be read or said must not end the training
            if self.node is None:
                self.reminder.poll()
            else:
                self.preempted = self.preempted or self.node in draining_nodes()


def _train_task(run: TrainingRun, mailbox: str) -> None:
    """Train in this process, on its GPU if it has one; sends the node, and then what is reported."""
    node, sent = ray.get_runtime_context().get_node_id(), Mailbox(mailbox)
    sent.put({"node": node})
    CheckpointStore.of(run.stage, run.training).require_mark()
    device = torch.device("cuda" if ray.get_gpu_ids() else "cpu")
    train_here(run, device, PreemptionMonitor(device, lambda: _notice(node)), sent.put)


def _notice(node: str) -> PreemptionInfo | None:
    with contextlib.suppress(Exception):  # Ray's services may be out of reach for a moment
        return preemption_of(node)
    return None


_train = ray.remote(max_retries=0)(_train_task)
# A process keeps to the first GPU that it sees, and keeps memory of it
_train_on_gpu = ray.remote(max_retries=0, max_calls=1)(_train_task)


def train_here(
    run: TrainingRun,
    device: torch.device | str = "cpu",
    checkpoint_requested: Callable[[], bool] = lambda: False,
    report: Report | None = None,
) -> None:
    """Train in this thread of a process that may have trained others before.

    Arguments:
        report: Takes what is reported, once its checkpoint is stored; else it is recorded.
    """
    with contextlib.suppress(OSError):  # the most memory that the process had so far, which reports state
        Path("/proc/self/clear_refs").write_text("5")
    report = report or (lambda reported: record(run.stage.folder, reported))
    try:
        with task_threads(run.training.cpus), Reports(run, report) as reports:
            session = Session(
                rank=0,
                world=1,
                device=torch.device(device),
                last=reports.last,
                checkpoint_requested=checkpoint_requested,
                report=reports,
                progress=_at_intervals(lambda step: report({"step": step})),
            )
            work(run, session)
    finally:
        if run.training.compile:
            torch.compiler.reset()


def _at_intervals(report: Callable[[int], None]) -> Callable[[int], None]:
    """Reports a step if none was for some seconds: the first reports with metrics may come after minutes."""
    reported_at = time.monotonic()

    def progress(step: int) -> None:
        nonlocal reported_at
        if time.monotonic() - reported_at >= PROGRESS_INTERVAL_S / 2:
            reported_at = time.monotonic()
            with contextlib.suppress(Exception):  # the next one may arrive
                report(step)

    return progress


class Reports:
    """What the controller of a run of Ray Train does with reports and checkpoints, in a thread.

    As a context manager it waits at the end for what is reported to be stored.
    """

    def __init__(self, run: TrainingRun, report: Report) -> None:
        self.store = CheckpointStore.of(run.stage, run.training)
        self.report = report
        self.manager = self.store.manager(run.training.keep)
        self.executor = ThreadPoolExecutor(1)
        self.stored: Future[None] | None = None

    @property
    def last(self) -> Checkpoint | None:
        """The last checkpoint that is listed."""
        result = self.manager.latest_checkpoint_result
        return None if result is None else result.checkpoint

    def __call__(self, reported: dict[str, Any], folder: Path | None, name: str, wait: bool) -> None:
        """Store a checkpoint and pass on what is reported with it, once the one before is stored."""
        self.wait()
        assert folder is not None
        self.stored = self.executor.submit(self._store, reported, folder, name)
        if wait:
            self.wait()

    def wait(self) -> None:
        """Wait for the last report, and raise what became of it."""
        if self.stored is not None:
            self.stored.result()

    def _store(self, reported: dict[str, Any], folder: Path, name: str) -> None:
        checkpoint = Checkpoint.from_directory(folder)
        try:
            stored = self.store.persist(self.manager._storage_context, checkpoint, name)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        self.report(reported)  # first: what a checkpoint is listed with is not reported again
        listed = _TrainingReport(metrics=reported, checkpoint=stored, validation=False)
        self.manager.register_checkpoint(listed)

    def __enter__(self) -> "Reports":
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        self.executor.shutdown()
        if kind is None:
            self.wait()
