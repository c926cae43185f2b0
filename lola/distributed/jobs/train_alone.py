"""Training by one worker: a task of Ray's, in a process that trains and scores one stage after another.

A run of Ray Train starts a controller, a worker and helper actors, which import for seconds each; one worker
needs none of them. It keeps Ray Train's own list of checkpoints, so that what one worker began several go on
with, and the reverse. Checkpoints are stored, and reports recorded, in a thread while training goes on.
"""

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import RayError
from ray.train import Checkpoint
from ray.train.v2._internal.execution.training_report import _TrainingReport

from lola.core.errors import LolaError
from lola.core.waiting import Reminder
from lola.distributed.cluster.causes import cause_of, failure_reason
from lola.distributed.cluster.preemption import LostNodes, PreemptionMonitor, node_preemption
from lola.distributed.cluster.resources import describe_pending
from lola.distributed.cluster.waits import wait_for_any
from lola.distributed.jobs.checkpoints import CheckpointStore
from lola.distributed.jobs.worker import Session, TrainingRun, is_final, record, work, workers_request
from lola.storage.event_log import EventLog

LONGEST_PAUSE_S = 30.0  # before a worker is started again, which waits a second at first


def train_by_one(run: TrainingRun) -> None:
    """Train a model to its end, from its last checkpoint if there is one.

    Raises:
        LolaError: The model or the data do not fit, or training failed more often than allowed.
    """
    config, event_log = run.training, EventLog(run.stage.folder)
    request = workers_request(config)
    reminder = Reminder(lambda: describe_pending("", request), event_log.waiting)
    task = (_train_on_gpu if config.gpus else _train).options(
        num_cpus=config.cpus, num_gpus=config.gpus, scheduling_strategy="SPREAD"
    )
    run_ref, lost, failures = ray.put(run), LostNodes(), 0
    while True:
        reminder.restart()
        trained = task.remote(run_ref)
        wait_for_any(ray.wait, [trained], reminder, lost.look)
        try:
            return ray.get(trained)
        except RayError as error:
            own = cause_of(error, LolaError)
            if own is not None and is_final(own):
                raise own from error
            failures += not lost.after_notice()
            if 0 <= config.max_failures < failures:
                raise LolaError(f"training {run.stage.name} failed: {failure_reason(error)}") from error
            event_log.notice(f"its worker failed ({failure_reason(error)}); training starts again")
            time.sleep(min(2.0 ** max(0, failures - 1), LONGEST_PAUSE_S))


def _task(run: TrainingRun) -> None:
    """Train in this process, on its GPU if it has one."""
    device = torch.device("cuda" if ray.get_gpu_ids() else "cpu")
    EventLog(run.stage.folder).waiting("")  # the wait is over
    train_here(run, device, PreemptionMonitor(device, node_preemption))


_train = ray.remote(max_retries=0)(_task)
_train_on_gpu = ray.remote(max_retries=0, max_calls=1)(_task)  # a process keeps memory of its GPU


def train_here(
    run: TrainingRun,
    device: torch.device | str = "cpu",
    checkpoint_requested: Callable[[], bool] = lambda: False,
) -> None:
    """Train in this process, which may have trained others before."""
    with _threads(run.training.cpus), Reports(run) as reports:
        work(run, Session(0, 1, torch.device(device), reports.last, checkpoint_requested, reports))
    if run.training.compile:
        torch.compiler.reset()


class Reports:
    """What the controller of a run of Ray Train does with reports and checkpoints, in a thread.

    As a context manager it waits at the end for what is reported to be stored.
    """

    def __init__(self, run: TrainingRun) -> None:
        self.store = CheckpointStore.of(run.stage, run.training)
        self.folder = run.stage.folder
        self.manager = self.store.manager(run.training.keep)
        self.executor = ThreadPoolExecutor(1)
        self.stored: Future[None] | None = None

    @property
    def last(self) -> Checkpoint | None:
        """The last checkpoint that is listed."""
        result = self.manager.latest_checkpoint_result
        return None if result is None else result.checkpoint

    def __call__(self, reported: dict[str, Any], folder: Path | None, name: str, wait: bool) -> None:
        """Store a checkpoint and record what is reported with it, once the one before is stored."""
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
        stored = self.store.persist(self.manager._storage_context, Checkpoint.from_directory(folder), name)
        shutil.rmtree(folder)
        self.manager.register_checkpoint(
            _TrainingReport(metrics=reported, checkpoint=stored, validation=False)
        )
        record(self.folder, reported)

    def __enter__(self) -> "Reports":
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        self.executor.shutdown()
        if kind is None:
            self.wait()


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """Compute with so many threads, whatever a process of Ray's was started for."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
