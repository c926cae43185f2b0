"""Training as a stage: by one worker or several, their checkpoints, and what is kept of them.

Every number of workers computes the same steps, so that a run that shrinks and grows follows the curve of one
that does not.
"""

import dataclasses
import shutil
import time
from pathlib import Path

from lola.core.errors import LolaError
from lola.data.statistics import recorded_statistics
from lola.distributed.cluster.resources import cpus_per_gpu
from lola.distributed.jobs.checkpoints import CheckpointStore
from lola.distributed.jobs.train_alone import train_by_one
from lola.distributed.jobs.train_workers import train_by_workers
from lola.distributed.jobs.worker import TrainingRun
from lola.storage.event_log import EventLog
from lola.storage.stages import EMA_WEIGHTS, WEIGHTS, atomic_path


def run_training(run: TrainingRun) -> None:
    """Train a model to its end, from its last checkpoint if there is one, and commit its stage.

    Raises:
        LolaError: The model or the data do not fit, or training failed more often than allowed.
    """
    if not run.training.cpus:  # as many as its workers' GPUs have a share in
        training = run.training.replace(cpus=max(1, int(run.training.gpus * cpus_per_gpu())))
        run = dataclasses.replace(run, training=training)
    stage, config = run.stage, run.training
    statistics = recorded_statistics(stage.root, stage.system, stage.inputs)
    store = CheckpointStore.of(stage, config)
    for line in store.repair():
        EventLog(stage.folder).notice(line)
    started = time.perf_counter()
    (train_by_one if config.most_workers == 1 else train_by_workers)(run)
    last = store.manager(config.keep).latest_checkpoint_result
    metrics = last.metrics if last else {}
    if last is None or last.checkpoint is None or metrics.get("step") != config.steps:
        raise LolaError(
            f"training {stage.name} ended at step {metrics.get('step', 0)} of {config.steps}; "
            "run again to resume it"
        )
    weights = {"raw": WEIGHTS} | ({"ema": EMA_WEIGHTS} if config.ema else {})
    with last.checkpoint.as_directory() as folder:
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
        **statistics,
    )
    store.remove()
