"""Stages of a sweep in miniature as a program, without a cluster: `small_run.py --well WELL --storage ROOT`.

It does what a sweep's driver and its workers do, in one process: it opens storage and MLflow, trains an
autoencoder and a neural solver for two steps, encodes, scores, follows the logs, and tells where results are.
"""

import contextlib
import dataclasses
import functools
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from inline import run_inline
from rich.console import Console
from stages import small_sweep

from lola.core.cli import launch_alone
from lola.core.config import Config, runtime_field
from lola.core.errors import LolaError
from lola.core.filesystem import describe_os_error
from lola.core.seeding import seed_process
from lola.distributed.jobs.train import run_training
from lola.distributed.jobs.worker import TrainingRun
from lola.distributed.trials import Step, make
from lola.storage.event_log import EventLog
from lola.storage.follow import LogReader, poll_in_threads
from lola.storage.progress import Progress
from lola.storage.stages import WEIGHTS, atomic_path, resolve_storage
from lola.storage.tracking import Tracker, sync
from lola.training.checkpoint import save_weights
from lola.training.loop import train
from lola.workflows.plan import SweepPlan

FREE_BYTES = (0, 1 << 14)  # bytes that are left on a disk that is full


@dataclasses.dataclass(frozen=True, kw_only=True)
class SmallRun(Config):
    """What is run.

    Arguments:
        well: The folder of Well datasets.
        storage: The storage root.
        only: Of what kind the last stage is.
        fill: Whether to fill the root's disk before each stage, and again at the end.
    """

    well: str
    storage: str | None = runtime_field(None)
    only: str = runtime_field("evaluations")
    fill: bool = runtime_field(False)


def plan_of(root: Path, well: Path) -> SweepPlan:
    """The smoke sweep for the tests' dataset, with trainings of two steps."""
    config = small_sweep()
    brief = {"steps": 2, "report_every": 1, "batch_size": 2, "valid_samples": 2, "warmup": 0}
    return SweepPlan(
        config.replace(
            autoencoder_training=config.autoencoder_training.replace(**brief),
            emulator_training=config.emulator_training.replace(**brief),
            evaluation=config.evaluation.replace(trajectories=1),
        ),
        root,
        well,
    )


def train_here(run: TrainingRun) -> None:
    """Train a stage in this process, and commit it."""
    seed_process(run.training.seed, "weights")
    setup, event_log = run.setup(), EventLog(run.stage.folder)

    for line in setup.notices:
        event_log.notice(line)

    def report(step, metrics, save):
        event_log.metrics(step, {name: value for name, value in metrics.items() if "/" in name})

    train(setup.model, run.training, setup.training, setup.validation, report=report)
    with atomic_path(run.stage.folder / WEIGHTS) as partial:
        save_weights(partial, setup.model)
    run.stage.commit(
        model={"type": type(run.model).__name__, **run.model.to_json()}, sizes=run.sizes, **run.details
    )


def steps_of(plan: SweepPlan, only: str) -> Iterator[Step]:
    """The steps towards the neural solver's first evaluation, up to those of one kind; trainings run here."""
    (first, *_) = (
        step
        for trial in plan.evaluations
        for step in trial.steps
        if step.tags["model"] == "neural_solver" and step.stage.what.startswith("neural_solver-f8")
    )
    for trial in plan.towards(first.stage).trials:
        for step in trial.steps:
            function, arguments = getattr(step.run, "func", None), getattr(step.run, "args", ())
            here = function is run_training
            yield dataclasses.replace(step, run=functools.partial(train_here, *arguments)) if here else step
            if step.stage.kind == only:
                return


@contextlib.contextmanager
def full_disk(folder: Path, free_bytes: int) -> Iterator[None]:
    """Fill the disk of a folder but for so many bytes."""
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        size = 0
        for piece in (1 << 20, 1 << 12):
            with contextlib.suppress(OSError):  # it is full
                while True:
                    size += file.write(bytes(piece))
        file.truncate(max(0, size - free_bytes))
        assert shutil.disk_usage(folder).free <= free_bytes + (1 << 12)
        yield


def refused(act: Callable[[], None], folder: Path) -> list[str]:
    """How an act ends on a disk that is ever less full, in lines."""
    lines = []
    for free_bytes in FREE_BYTES:
        with full_disk(folder, free_bytes):
            try:
                act()
            except (LolaError, OSError) as error:
                lines.append(str(error) if isinstance(error, LolaError) else describe_os_error(error))
    assert lines, "nothing was refused"
    for line in lines:
        assert re.fullmatch("[^\n]*(No space left|disk is full)[^\n]*--storage[^\n]*", line), line
    return lines


def main(config: SmallRun) -> None:
    """Run the stages."""
    progress = Progress(Console())
    root = resolve_storage(config.storage)
    run_inline(pytest.MonkeyPatch())
    if config.fill:
        for line in refused(lambda: Tracker(root, "euler", progress.log), root):
            progress.log(f"refused: {line}")
    tracker = Tracker(root, "euler", progress.log)
    plan = plan_of(root, Path(config.well))
    steps = list(steps_of(plan, config.only))
    tracker.start_sweep("small run", plan.fingerprint, {})
    for step in steps:
        tracker.follow(step.stage.folder, step.stage.fingerprint)
        progress.follow(step.stage.folder, step.title, step.total)
    folders = [step.stage.folder for step in steps]
    with poll_in_threads([LogReader(progress, folders), tracker.follower], progress.log):
        for step in steps:
            with step.stage.lease():
                if not step.stage.finished and config.fill:
                    for line in refused(functools.partial(make, step), root):
                        progress.log(f"refused: {line}")
                if not step.stage.finished:
                    make(step)
    with full_disk(root, 0) if config.fill else contextlib.nullcontext():
        tracker.finish_sweep(None, "FINISHED")
    if tracker.missing and config.fill:
        progress.log(tracker.missing)
        sync(root, progress.log)
        tracker.missing = ""
    for step in steps:
        progress.log(f"{step.stage.what}: {step.stage.folder}")
    for line in tracker.directions:
        progress.log(line)
    progress.log(tracker.missing or "nothing is missing")


if __name__ == "__main__":
    launch_alone(main, SmallRun)
