"""What runs in the process of a trial: its stages one after the other, each under its lease."""

import contextlib
import dataclasses
import functools
import traceback
from collections.abc import Callable
from typing import Any, Literal

import ray
from ray import tune
from ray.exceptions import OutOfMemoryError

from lola.core.config import flatten
from lola.data.well.datasets import Datasets
from lola.distributed.cluster.causes import cause_of, failure_reason
from lola.storage.event_log import EventLog, event_log_path, last_status
from lola.storage.remote import AnyPath
from lola.storage.stages import EMA_WEIGHTS, WEIGHTS, Location, Stage

WAIT_MESSAGE = "waiting"  # what a trial reports to its driver while another process has a lease


@dataclasses.dataclass(frozen=True)
class InputDataset:
    """A dataset that a stage reads, for the tracking server.

    Arguments:
        name: Its name for people; the folder's of a latent cache.
        digest: Its fingerprint.
        context: What it is read for.
    """

    name: str
    digest: str
    context: Literal["training", "encoding", "evaluation"]
    source: Location | AnyPath

    @classmethod
    def of_well(
        cls, stage: Stage, datasets: Datasets, context: Literal["training", "encoding"]
    ) -> "InputDataset":
        """The simulations that a stage has for an input."""
        return cls(stage.system, stage.inputs["dataset"], context, datasets.root)


@dataclasses.dataclass(frozen=True)
class Step:
    """One stage of a trial, and what makes it.

    Arguments:
        stage: Where the results go.
        tags: What the run is, for the tracking server.
        total: The last step that its progress reports.
        register: Whether weights are registered as a model.
        keeps_manifest: Whether what is finished of the stage, and used, stays while the rest is made.
    """

    stage: Stage
    run: Callable[[], None]
    tags: dict[str, Any]
    total: int
    register: bool = True
    reads: tuple[InputDataset, ...] = ()
    keeps_manifest: bool = False

    @property
    def title(self) -> str:
        """A name for people, which distinguishes a model from its evaluation."""
        return f"evaluation {self.stage.what}" if self.stage.kind == "evaluations" else self.stage.what


@dataclasses.dataclass(frozen=True)
class Trial:
    """Stages made one after the other; `cpus` and `gpus` are what they take at any moment."""

    name: str
    steps: tuple[Step, ...]
    needs: tuple[Stage, ...] = ()
    cpus: float = 1
    gpus: float = 0

    @property
    def finished(self) -> bool:
        return all(step.stage.finished for step in self.steps)

    @property
    def ready(self) -> bool:
        return all(stage.finished for stage in self.needs)


def run_trial(config: dict[str, str], trials_ref: list[ray.ObjectRef]) -> None:
    """Make the stages of a trial that are not finished; a Ray Tune trainable.

    Arguments:
        config: The trial's name, as `trial`.
        trials_ref: A list of one reference to all trials, by name.
    """
    for step in _trials(trials_ref[0])[config["trial"]].steps:
        with step.stage.logged_lease(lambda text: tune.report({WAIT_MESSAGE: text})):
            if not step.stage.finished:
                make(step)
    tune.report({"finished": 1})


@functools.lru_cache(maxsize=1)
def _trials(trials_ref: ray.ObjectRef) -> dict[str, Trial]:
    """All trials, which a process reads once and not for every trial that it runs."""
    return ray.get(trials_ref)


def format_error(error: Exception) -> str:
    """Where a stage failed, the last line being the reason."""
    trace = "".join(traceback.format_exception(error))
    return f"{trace}\n{failure_reason(error)}\n" if cause_of(error, OutOfMemoryError) else trace


def make(step: Step) -> None:
    """Make a stage, under its lease, and record how it went."""
    stage = step.stage
    event_log = _record_start(step)
    # A stage that is made again is not finished: its manifest, or a file that it lists, was corrupt
    if not step.keeps_manifest:
        (stage.folder / "manifest.json").unlink(missing_ok=True)
    try:
        step.run()
    except Exception as error:  # recorded whatever it is, and raised again
        with contextlib.suppress(OSError):  # a full disk, perhaps: the first failure is the one to report
            (stage.folder / "error.txt").write_text(format_error(error), "utf-8")
            event_log.status("FAILED", failure_reason(error))
        raise
    (stage.folder / "error.txt").unlink(missing_ok=True)
    _record_end(step, event_log)


def complete_event_log(step: Step) -> None:
    """Record the end of a stage whose process died after it had finished the stage, before it could.

    Of a record that a power cut has emptied, what the stage is and made is recorded again.
    """
    stage = step.stage
    if not _is_open(stage.folder) or not stage.finished:
        return
    held = stage.lease()
    with contextlib.suppress(OSError):  # another process makes it, and records its end
        held.acquire(timeout=0)
        try:
            if last_status(stage.folder) == "RUNNING":
                _record_end(step, EventLog.resume(stage.folder))
            elif _is_open(stage.folder):
                _record_end(step, _record_start(step))
        finally:
            held.release()


def _is_open(folder: AnyPath) -> bool:
    """Whether an event log exists and records no end."""
    status = last_status(folder)
    return status == "RUNNING" or (status is None and event_log_path(folder).exists())


def _record_start(step: Step) -> EventLog:
    """Record what a stage is, and that it is made."""
    stage = step.stage
    event_log = EventLog.resume(stage.folder)
    event_log.describe(
        name=step.title,
        tags=step.tags,
        parameters=step.tags | flatten(stage.config.to_json()),
    )
    for reads in step.reads:
        event_log.dataset(
            name=reads.name, digest=reads.digest, context=reads.context, source=str(reads.source)
        )
    event_log.status("RUNNING")
    return event_log


def _record_end(step: Step, event_log: EventLog) -> None:
    stage = step.stage
    weights, averaged = stage.folder / WEIGHTS, stage.folder / EMA_WEIGHTS
    if step.register and weights.exists():
        event_log.model(weights, f"{stage.system}-{stage.what}")
    if step.register and averaged.exists():
        event_log.artifact(averaged)
    event_log.status("FINISHED")
