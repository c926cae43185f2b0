"""Training runs in the process that calls them, with Ray Train's own list of checkpoints and no cluster."""

import shutil
from types import SimpleNamespace
from typing import Any

import pytest
import ray.train
import ray.train.torch
import torch
from ray.train.v2._internal.execution.checkpoint.checkpoint_manager import CheckpointManager
from ray.train.v2._internal.execution.storage import StorageContext
from ray.train.v2._internal.execution.training_report import _TrainingReport

from lola.distributed.jobs import train


class SoloTrainer:
    """Stands for `TorchTrainer`: one worker, which is this process.

    Arguments:
        worker: The training function.
        train_loop_config: What it is given.
        run_config: Where checkpoints go, and which are kept.
    """

    def __init__(
        self, worker: Any, *, train_loop_config: dict, run_config: ray.train.RunConfig, **_: Any
    ) -> None:
        self.worker, self.loop_config, self.config = worker, train_loop_config, run_config
        self.storage = StorageContext(run_config.storage_path, run_config.name)
        self.kept = CheckpointManager(run_config.checkpoint_config, self.storage)
        self.kept._notify = lambda: None  # there is no event loop

    def fit(self) -> SimpleNamespace:
        """Train from the last checkpoint on that is listed; the last one and its metrics."""
        context = SimpleNamespace(
            get_world_rank=lambda: 0, get_world_size=lambda: 1, get_storage=lambda: self.storage
        )
        last = self.kept.latest_checkpoint_result
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(ray.train, "get_context", lambda: context)
            patched.setattr(ray.train, "get_checkpoint", lambda: last and last.checkpoint)
            patched.setattr(ray.train, "report", self.report)
            patched.setattr(ray.train.torch, "get_device", lambda: torch.device("cpu"))
            patched.setattr(train, "PreemptionMonitor", lambda device: lambda: False)
            self.worker(self.loop_config)
        last = self.kept.latest_checkpoint_result
        return SimpleNamespace(checkpoint=last and last.checkpoint, metrics=last and last.metrics)

    def report(self, metrics: dict, *, checkpoint: Any, checkpoint_dir_name: str, **options: Any) -> None:
        """Upload and list a checkpoint, and tell the run's callbacks."""
        kept = options["checkpoint_upload_fn"](checkpoint, checkpoint_dir_name)
        shutil.rmtree(checkpoint.path)
        self.kept.register_checkpoint(_TrainingReport(checkpoint=kept, metrics=metrics, validation=False))
        self.after_report(metrics, kept)

    def after_report(self, metrics: dict, checkpoint: Any) -> None:
        """Tell the run's record."""
        for callback in self.config.callbacks:
            if isinstance(callback, train.EventLogCallback):
                callback.after_report(None, [metrics], checkpoint)


def train_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let trainings run in this process."""
    monkeypatch.setattr(train, "TorchTrainer", SoloTrainer)
