"""What a training process does, however it was started: by Ray Train, or as a task that trains alone."""

import contextlib
import dataclasses
import functools
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ray.train import Checkpoint
from torch import nn

from lola.core.config import Config
from lola.core.errors import CorruptError, LolaError, StorageError
from lola.core.seeding import seed_process
from lola.distributed.cluster.resources import ResourceRequest
from lola.distributed.jobs.checkpoints import CheckpointStore
from lola.storage.event_log import EventLog
from lola.storage.remote import AnyPath
from lola.storage.stages import Stage
from lola.training.buffers import WindowSource
from lola.training.config import TrainingConfig
from lola.training.counting import count_step
from lola.training.loop import Curve, Wrap, train
from lola.training.peak import device_kind, peak_flops, threads


@dataclasses.dataclass(frozen=True)
class Setup:
    """What a worker trains, and on what.

    Arguments:
        model: The module, on the CPU.
        training, validation: Where windows are read from.
        notices: What the record says of the model as it is built.
    """

    model: nn.Module
    training: WindowSource
    validation: WindowSource
    notices: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class TrainingRun:
    """A model to train as a stage.

    Arguments:
        stage: Where the results go.
        setup: Builds model and sources; called in every worker.
        model: The model's configuration and `sizes` the arguments of its `build`, to load it by.
        details: What else the manifest says.
    """

    stage: Stage
    training: TrainingConfig
    setup: Callable[[], Setup]
    model: Config
    sizes: dict[str, int]
    details: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Session:
    """Which worker of a run this process is, and where its reports go.

    Arguments:
        last: The checkpoint to go on from.
        checkpoint_requested: Whether to save at once; called by all workers after the same steps.
        report: Takes what a worker reports, the folder and the name of a checkpoint, which the first worker
            alone has, and whether training waits until that is stored; removes the folder.
        wrap: Makes a module one of several that exchange gradients.
        progress: Takes the number of every step.
    """

    rank: int
    world: int
    device: torch.device
    last: Checkpoint | None
    checkpoint_requested: Callable[[], bool]
    report: Callable[[dict[str, Any], Path | None, str, bool], None]
    wrap: Wrap | None = None
    progress: Callable[[int], None] = lambda step: None


def work(run: TrainingRun, session: Session) -> None:
    """Train to the end, and report."""
    seed_process(run.training.seed, "weights")
    setup = run.setup()
    first = session.rank == 0
    use = ModelFlopsUtilization(run, setup.training, session.device, session.world) if first else None
    tmp_path = CheckpointStore.of(run.stage, run.training).tmp_path()

    short, trajectories = setup.training.numbering.short, len(setup.training.numbering.starts)
    last = session.last
    notices = [] if last else list(setup.notices)
    if short:
        notices.append(
            f"left out {short} of {trajectories} trajectories of {run.stage.name}: they are shorter than a "
            f"window, which spans {setup.training.numbering.span} steps"
        )

    points: Curve = []

    def report(step: int, metrics: dict[str, float], save: Callable[[Path], None]) -> None:
        folder = None
        if first:
            folder = tmp_path / f".tmp-{uuid.uuid4().hex}"  # tempfile makes it private
            folder.mkdir()
            save(folder)
        if metrics and use is not None:
            metrics = metrics | {"train/mfu": use(metrics["train/seconds_per_step"])}
        about = {"step": step, "device": device_kind(session.device), "workers": session.world}
        about |= {"notices": notices[:], "curve": points[:]}
        # A checkpoint without metrics is saved for a preemption, and stored before training goes on.
        session.report(about | metrics, folder, f"step-{step:08d}", not metrics)
        notices.clear()
        points.clear()

    with last.as_directory() if last else contextlib.nullcontext() as resumed:
        train(
            setup.model.to(session.device),
            run.training,
            setup.training,
            setup.validation,
            report=report,
            log=notices.append,
            curve=points.extend,
            checkpoint_requested=session.checkpoint_requested,
            progress=session.progress,
            wrap=session.wrap,
            resume=Path(resumed) if resumed else None,
            device=session.device,
            rank=session.rank,
            world=session.world,
        )


class ModelFlopsUtilization:
    """The share of the workers' peak that the operations of training steps are, from the steps' seconds.

    Arguments:
        device: One of the workers' devices, which are alike.
    """

    def __init__(self, run: TrainingRun, source: WindowSource, device: torch.device, workers: int) -> None:
        states, parameters, *_ = source.read(0, (run.training.seed, "shape"))
        build = functools.partial(run.model.build, **run.sizes)  # type: ignore[attr-defined]
        flops = count_step(build, tuple(states.shape), len(parameters), run.training.precision).flops
        self.operations = workers * flops.fixed + run.training.batch_size * flops.per_sample
        self.peak_flops = workers * peak_flops(device, run.training.precision)

    def __call__(self, seconds: float) -> float:
        """The utilisation of steps that take so long."""
        return self.operations / (seconds * self.peak_flops)


def record(folder: AnyPath, reported: dict[str, Any]) -> None:
    """Append what the first worker reported, which is what all workers did, to the stage's record."""
    event_log = EventLog(folder)
    for line in reported.get("notices", ()):
        event_log.notice(line)
    if points := reported.get("curve"):
        event_log.curve("train/loss", points)
    values = {name: value for name, value in reported.items() if "/" in name}
    if values:
        event_log.metrics(reported["step"], values)
    else:
        event_log.progress(reported["step"])


def is_final(error: BaseException) -> bool:
    """Whether starting workers again would not help: an error of the data, the options or the training.

    Storage that is out of reach may come back, and is tried again; a file that is corrupt stays so.
    """
    again = isinstance(error, StorageError) and not isinstance(error, CorruptError)
    return isinstance(error, LolaError) and not again


def task_threads(cpus: int) -> contextlib.AbstractContextManager[None]:
    """A context in which a task of so many CPUs computes on as many threads, or as many as the user says.

    A process of Ray's has those of the first task that it ran, unless the user has set `OMP_NUM_THREADS`.
    """
    return threads(int(os.environ.get("OMP_NUM_THREADS") or cpus))


def workers_request(config: TrainingConfig) -> ResourceRequest:
    """What the workers of a training take at least."""
    return ResourceRequest("training workers", "workers", config.fewest_workers, config.cpus, config.gpus)
