"""Stages that tests need, and Ray tasks that run where they are called."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import ray.exceptions
from stages import finish_autoencoder, small_sweep

from lola.distributed import evaluate
from lola.distributed.sweep import SweepConfig
from lola.errors import LolaError
from lola.storage import Stage


@pytest.fixture
def sweep() -> SweepConfig:
    return small_sweep()


@pytest.fixture
def autoencoder(tmp_path: Path, well: Path) -> Stage:
    return finish_autoencoder(tmp_path, well)


class Inline:
    """Stands for the remote function: a task is the number of what it ended with."""

    def __init__(self, function):
        self.function, self.calls, self.ends = function, [], []

    def options(self, **options):
        self.chosen = options
        return self

    def remote(self, told, parts):
        self.calls.append(parts)
        try:
            self.ends.append(self.function(told, parts))
        except LolaError as error:
            self.ends.append(error)
        return len(self.ends) - 1

    def get(self, number):
        if self.ends[number] is not None:
            error = ray.exceptions.RayError("traceback")
            error.cause = self.ends[number]
            raise error


@pytest.fixture
def tasks(monkeypatch):
    """Two workers whose tasks run inline."""
    task = Inline(evaluate._evaluate._function)
    fake = SimpleNamespace(
        put=lambda value: value,
        wait=lambda tasks: (tasks[:1], tasks[1:]),
        get=task.get,
        get_gpu_ids=list,
        exceptions=ray.exceptions,
    )
    monkeypatch.setattr(evaluate, "ray", fake)
    monkeypatch.setattr(evaluate, "_evaluate", task)
    monkeypatch.setattr(evaluate, "logical_cpus", lambda: 2)
    monkeypatch.setattr(evaluate, "cluster_gpus", lambda: 0)
    monkeypatch.setattr(evaluate, "TASKS_PER_WORKER", 1)
    return task
