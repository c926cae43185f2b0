"""Training by several workers, or by as many as a cluster has at the moment: a run of Ray Train.

Workers report to the run's controller, which appends to the stage's record. Ray Train uploads the checkpoints
while training goes on, and hands the last one to workers that start again: after a failure of a worker, of
its node or of the whole job, and when there are other numbers of them.
"""

import functools
import logging
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
from ray.train import Checkpoint, CheckpointUploadMode
from ray.train.torch import TorchTrainer
from ray.train.v2.api.callback import UserCallback
from ray.train.v2.api.config import ScalingConfig

from lola.core.errors import LolaError
from lola.distributed.cluster.causes import failure_reason
from lola.distributed.cluster.preemption import PreemptionMonitor
from lola.distributed.cluster.waits import WorkersCallback
from lola.distributed.jobs.checkpoints import CheckpointStore
from lola.distributed.jobs.worker import Session, TrainingRun, is_final, record, work, workers_request
from lola.storage.remote import AnyPath


def train_by_workers(run: TrainingRun) -> None:
    """Train a model to its end, from its last checkpoint if there is one.

    Raises:
        LolaError: The model or the data do not fit, or training failed more often than allowed.
    """
    stage, config = run.stage, run.training
    store = CheckpointStore.of(stage, config)
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
            checkpoint_config=store.kept(config.keep),
            callbacks=[
                EventLogCallback(stage.folder),  # type: ignore[list-item]
                WorkersCallback(stage.folder, workers_request(config)),  # type: ignore[list-item]
            ],
        ),
    )
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as error:
        final = getattr(error, "controller_failure", None)
        if isinstance(final, LolaError):  # of `EventLogCallback`
            raise final from error
        raise LolaError(f"training {stage.name} failed: {failure_reason(error)}") from error


def _worker(loop_config: dict[str, Any]) -> None:
    run: TrainingRun = loop_config["run"]
    context, device = ray.train.get_context(), ray.train.torch.get_device()
    store = CheckpointStore.of(run.stage, run.training)
    persist = functools.partial(store.persist, context.get_storage())

    def report(reported: dict[str, Any], folder: Path | None, name: str, wait: bool) -> None:
        ray.train.report(
            reported,
            checkpoint=None if folder is None else Checkpoint.from_directory(folder),
            checkpoint_dir_name=name,
            checkpoint_upload_mode=CheckpointUploadMode.SYNC if wait else CheckpointUploadMode.ASYNC,
            delete_local_checkpoint_after_upload=True,
            checkpoint_upload_fn=persist,
        )

    session = Session(
        rank=context.get_world_rank(),
        world=context.get_world_size(),
        device=device,
        last=ray.train.get_checkpoint(),
        checkpoint_requested=PreemptionMonitor(device, ray.train.get_preemption_info),
        report=report,
        wrap=ray.train.torch.prepare_model if context.get_world_size() > 1 else None,
    )
    work(run, session)


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
        record(self.folder, metrics[0])

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Raise a worker's final error; Ray Train then ends the run with it, whatever `max_failures` is."""
        for _, error in sorted(worker_exceptions.items()):
            if is_final(error):
                raise error
