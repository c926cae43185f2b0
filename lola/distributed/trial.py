"""What runs in the process of a trial: its stages one after the other, each under its lease."""

import contextlib
import functools
import traceback

import ray
from ray import tune
from ray.exceptions import OutOfMemoryError

from lola.config import flat
from lola.distributed.causes import cause_of
from lola.distributed.sweep import Step, Trial
from lola.errors import LolaError
from lola.filesystem import refusal
from lola.remote import AnyPath
from lola.spool import Spool, last_status, spool_path
from lola.training.checkpoint import EMA_WEIGHTS, WEIGHTS

WAITING = "waiting"  # what a trial reports to its driver while another process has a lease


def run_trial(config: dict[str, str], told: list[ray.ObjectRef]) -> None:
    """Make the stages of a trial that are not finished; a Ray Tune trainable.

    Arguments:
        config: The trial's name, as `trial`.
        told: Where all trials are, by name.
    """
    for step in _trials(told[0])[config["trial"]].steps:
        with step.stage.told_lease(lambda text: tune.report({WAITING: text})):
            if not step.stage.finished:
                make(step)
    tune.report({"finished": 1})


@functools.lru_cache(maxsize=1)
def _trials(told: ray.ObjectRef) -> dict[str, Trial]:
    """All trials, which a process reads once and not for every trial that it runs."""
    return ray.get(told)


def reason_of(error: Exception) -> str:
    """Why a stage failed, in one line."""
    if cause_of(error, OutOfMemoryError):
        return "a node ran out of memory; take fewer at once (--concurrency), smaller batches or larger nodes"
    reason = f"{type(error).__name__}: {error}"
    reason = str(error) if isinstance(error, LolaError) else refusal(error) or reason
    return reason.strip().splitlines()[-1]


def told_error(error: Exception) -> str:
    """Where a stage failed, the last line telling why."""
    trace = "".join(traceback.format_exception(error))
    return f"{trace}\n{reason_of(error)}\n" if cause_of(error, OutOfMemoryError) else trace


def make(step: Step) -> None:
    """Make a stage, under its lease, and record how it went."""
    stage = step.stage
    spool = _record_start(step)
    # What makes the stage anew is no finished stage: its manifest was corrupt, or a file that it tells of is
    (stage.folder / "manifest.json").unlink(missing_ok=True)
    try:
        step.run()
    except Exception as error:  # recorded whatever it is, and raised again
        with contextlib.suppress(OSError):  # a full disk, perhaps: what failed first is what is told
            (stage.folder / "error.txt").write_text(told_error(error), "utf-8")
            spool.status("FAILED", reason_of(error))
        raise
    (stage.folder / "error.txt").unlink(missing_ok=True)
    _record_end(step, spool)


def complete_record(step: Step) -> None:
    """Record the end of a stage whose process died after it had finished the stage, before it could.

    Of a record that a power cut has emptied, what the stage is and made is recorded again.
    """
    stage = step.stage
    if not _is_open(stage.folder) or not stage.finished:
        return
    held = stage.lease()
    with contextlib.suppress(OSError):  # another process has it in hand, and records its end
        held.acquire(timeout=0)
        try:
            if last_status(stage.folder) == "RUNNING":
                _record_end(step, Spool.resume(stage.folder))
            elif _is_open(stage.folder):
                _record_end(step, _record_start(step))
        finally:
            held.release()


def _is_open(folder: AnyPath) -> bool:
    """Whether a record tells of no end, though there is a record."""
    status = last_status(folder)
    return status == "RUNNING" or (status is None and spool_path(folder).exists())


def _record_start(step: Step) -> Spool:
    """Record what a stage is, and that it is made."""
    stage = step.stage
    spool = Spool.resume(stage.folder)
    spool.describe(
        name=step.title,
        tags=step.tags,
        parameters=step.tags | flat(stage.config.what()),
    )
    for reads in step.reads:
        spool.dataset(name=reads.name, digest=reads.digest, context=reads.context, source=str(reads.source))
    spool.status("RUNNING")
    return spool


def _record_end(step: Step, spool: Spool) -> None:
    """Record what a finished stage made."""
    stage = step.stage
    weights, averaged = stage.folder / WEIGHTS, stage.folder / EMA_WEIGHTS
    if step.register and weights.exists():
        spool.model(weights, f"{stage.system}-{stage.what}")
    if step.register and averaged.exists():
        spool.artifact(averaged)
    spool.status("FINISHED")
