"""Tasks of evaluations that run where they are called, without a cluster."""

from types import SimpleNamespace

import pytest
import ray.exceptions

from lola.core.errors import LolaError
from lola.distributed.cluster.resources import ClusterResources, Node
from lola.distributed.jobs import evaluate


class Inline:
    """Stands for the remote function: a task is the number of what it ended with."""

    def __init__(self, function):
        self.function, self.calls, self.ends = function, [], []

    def options(self, **options):
        self.chosen = options
        return self

    def remote(self, arguments_ref, parts):
        self.calls.append(parts)
        try:
            self.ends.append(self.function(arguments_ref, parts))
        except LolaError as error:
            self.ends.append(error)
        return len(self.ends) - 1

    def get(self, number):
        if self.ends[number] is not None:
            error = ray.exceptions.RayError("traceback")
            error.cause = self.ends[number]
            raise error


def run_inline(monkeypatch: pytest.MonkeyPatch) -> Inline:
    """Let tasks of evaluations run inline."""
    task = Inline(evaluate._evaluate._function)
    fake = SimpleNamespace(
        put=lambda value: value,
        wait=lambda tasks, **_: (tasks[:1], tasks[1:]),
        get=task.get,
        get_gpu_ids=list,
        exceptions=ray.exceptions,
    )
    monkeypatch.setattr(evaluate, "ray", fake)
    monkeypatch.setattr(evaluate, "_evaluate", task)
    monkeypatch.setattr(evaluate, "_evaluate_on_gpu", task)
    monkeypatch.setattr(evaluate, "cluster_resources", lambda: ClusterResources((Node(2),)))
    monkeypatch.setattr(evaluate, "TASKS_PER_WORKER", 1)
    return task
