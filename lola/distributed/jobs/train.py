"""Training as a Ray Train run: the workers, their checkpoints, and the stage that comes of them.

Workers report to the run's controller, which appends to the stage's record. Ray Train uploads the checkpoints
while training goes on, and hands the last one to workers that start again: after a failure of a worker, of
its node or of the whole job, and when there are other numbers of them. Every number of workers computes the
same steps, so that a run that shrinks and grows follows the curve of one that does not.
"""

import contextlib
import dataclasses
import functools
import logging
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch
from ray.train import Checkpoint, CheckpointUploadMode
from ray.train.torch import TorchTrainer
from ray.train.v2.api.callback import UserCallback
from ray.train.v2.api.config import ScalingConfig
from torch import nn

from lola.core.config import Config
from lola.core.errors import CorruptError, LolaError, StorageError
from lola.core.seeding import seed_process
from lola.distributed.cluster.causes import failure_reason
from lola.distributed.cluster.preemption import PreemptionMonitor
from lola.distributed.cluster.resources import ResourceRequest, cpus_per_gpu
from lola.distributed.cluster.waits import WorkersCallback
from lola.distributed.jobs.checkpoints import SCORE_METRIC, CheckpointStore
from lola.storage.event_log import EventLog
from lola.storage.remote import AnyPath
from lola.storage.stages import EMA_WEIGHTS, WEIGHTS, Stage, atomic_path
from lola.training.buffers import WindowSource
from lola.training.config import TrainingConfig
from lola.training.counting import count_step
from lola.training.loop import Curve, train
from lola.training.peak import device_kind, peak_flops


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


def run_training(run: TrainingRun) -> None:
    """Train a model to its end, from its last checkpoint if there is one, and commit its stage.

    Raises:
        LolaError: The model or the data do not fit, or training failed more often than allowed.
    """
    if not run.training.cpus:  # as many as its workers' GPUs have a share in
        training = run.training.replace(cpus=max(1, int(run.training.gpus * cpus_per_gpu())))
        run = dataclasses.replace(run, training=training)
    stage, config = run.stage, run.training
    store = CheckpointStore.of(stage, config)
    for line in store.repair():
        EventLog(stage.folder).notice(line)
    started = time.perf_counter()
    logging.getLogger("ray.train").setLevel(logging.ERROR)
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"run": run},
        scaling_config=ScalingConfig(
            num_workers=config.workers,
            elastic_resize_monitor_interval_s=config.resize_every,
            use_gpu=config.gpus > 0,
            resources_per_worker={"CPU": config.cpus} | ({"GPU": config.gpus} if config.gpus else {}),
        ),
        run_config=ray.train.RunConfig(
            name=store.NAME,
            storage_path=store.parent,
            storage_filesystem=store.arrow(),
            failure_config=ray.train.FailureConfig(max_failures=config.max_failures),
            checkpoint_config=ray.train.CheckpointConfig(
                num_to_keep=config.keep,
                checkpoint_score_attribute=SCORE_METRIC,
                checkpoint_score_order="min",
            ),
            callbacks=[
                EventLogCallback(stage.folder),  # type: ignore[list-item]
                WorkersCallback(stage.folder, workers_request(config)),  # type: ignore[list-item]
            ],
        ),
    )
    try:
        result = trainer.fit()
    except ray.train.TrainingFailedError as error:
        final = getattr(error, "controller_failure", None)
        if isinstance(final, LolaError):  # of `EventLogCallback`
            raise final from error
        raise LolaError(f"training {stage.name} failed: {failure_reason(error)}") from error
    metrics = result.metrics or {}
    if result.checkpoint is None or metrics.get("step") != config.steps:
        raise LolaError(
            f"training {stage.name} ended at step {metrics.get('step', 0)} of {config.steps}; "
            "run again to resume it"
        )
    weights = {"raw": WEIGHTS} | ({"ema": EMA_WEIGHTS} if config.ema else {})
    with result.checkpoint.as_directory() as folder:
        for name in weights.values():
            with atomic_path(stage.folder / name) as tmp_path:
                shutil.copyfile(Path(folder) / name, tmp_path)
    stage.commit(
        weights=weights,
        model={"type": type(run.model).__name__, **run.model.to_json()},
        sizes=run.sizes,
        metrics={name: value for name, value in metrics.items() if "/" in name},
        skipped={"steps": int(metrics["train/skipped"]), "of": metrics["step"]},
        speed={
            "seconds_per_step": metrics["train/seconds_per_step"],
            "workers": metrics["workers"],
            "gpus": config.gpus,
            "device": metrics["device"],
        },
        seconds=time.perf_counter() - started,
        **run.details,
    )
    store.remove()


def workers_request(config: TrainingConfig) -> ResourceRequest:
    """What the workers of a training take at least."""
    return ResourceRequest("training workers", "workers", config.fewest_workers, config.cpus, config.gpus)


def _worker(loop_config: dict[str, Any]) -> None:
    run: TrainingRun = loop_config["run"]
    context = ray.train.get_context()
    rank = context.get_world_rank()
    device = ray.train.torch.get_device()
    world = context.get_world_size()
    store = CheckpointStore.of(run.stage, run.training)
    seed_process(run.training.seed, "weights")
    setup = run.setup()
    use = ModelFlopsUtilization(run, setup.training, device, world) if rank == 0 else None
    tmp_path = store.tmp_path()
    persist = functools.partial(store.persist, context.get_storage())

    short, trajectories = setup.training.numbering.short, len(setup.training.numbering.starts)
    last = ray.train.get_checkpoint()
    notices = [] if last else list(setup.notices)
    if short:
        notices.append(
            f"left out {short} of {trajectories} trajectories of {run.stage.name}: they are shorter than a "
            f"window, which spans {setup.training.numbering.span} steps"
        )

    points: Curve = []

    def report(step: int, metrics: dict[str, float], save: Callable[[Path], None]) -> None:
        checkpoint = None
        if rank == 0:
            folder = tmp_path / f".tmp-{uuid.uuid4().hex}"  # tempfile makes it private
            folder.mkdir()
            save(folder)
            checkpoint = Checkpoint.from_directory(folder)
        # A checkpoint without metrics is saved for a preemption, and uploaded before training goes on.
        mode = CheckpointUploadMode.ASYNC if metrics else CheckpointUploadMode.SYNC
        if metrics and use is not None:
            metrics = metrics | {"train/mfu": use(metrics["train/seconds_per_step"])}
        about = {"step": step, "device": device_kind(device), "workers": world}
        ray.train.report(
            about | {"notices": notices[:], "curve": points[:]} | metrics,
            checkpoint=checkpoint,
            checkpoint_dir_name=f"step-{step:08d}",
            checkpoint_upload_mode=mode,
            delete_local_checkpoint_after_upload=True,
            checkpoint_upload_fn=persist,
        )
        notices.clear()
        points.clear()

    with last.as_directory() if last else contextlib.nullcontext() as folder:
        train(
            setup.model.to(device),
            run.training,
            setup.training,
            setup.validation,
            report=report,
            log=notices.append,
            curve=points.extend,
            checkpoint_requested=PreemptionMonitor(device),
            wrap=ray.train.torch.prepare_model if world > 1 else None,
            resume=Path(folder) if folder else None,
            device=device,
            rank=rank,
            world=world,
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


class EventLogCallback(UserCallback):
    """Appends what the workers report to the stage's record; runs in the controller of the run.

    It ends the run where starting workers again would not help.
    """

    def __init__(self, folder: AnyPath) -> None:
        self.folder = folder

    def after_report(
        self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None
    ) -> None:
        """Record the first worker's metrics and notices, which are those of all workers."""
        for line in metrics[0].get("notices", ()):
            EventLog(self.folder).notice(line)
        if points := metrics[0].get("curve"):
            EventLog(self.folder).curve("train/loss", points)
        values = {name: value for name, value in metrics[0].items() if "/" in name}
        if values:
            EventLog(self.folder).metrics(metrics[0]["step"], values)

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Raise a worker's error that is of the data, the options or a training that diverged.

        Ray Train then ends the run with it, whatever `max_failures` is. Storage that is out of reach may
        come back, and is tried again; a file that is corrupt stays so.
        """
        for _, error in sorted(worker_exceptions.items()):
            again = isinstance(error, StorageError) and not isinstance(error, CorruptError)
            if isinstance(error, LolaError) and not again:
                raise error
