"""Trials start in their order, each once its needs are finished and its resources are free."""

import pytest
from ray.tune.search import Searcher

from lola.core.config import Config
from lola.distributed.cluster.resources import ClusterResources, Node
from lola.distributed.runner import queue as queues
from lola.distributed.runner import tune
from lola.distributed.runner.queue import TrialQueue
from lola.distributed.trials import WAIT_MESSAGE, Step, Trial
from lola.storage.stages import Stage

WIDE = ClusterResources((Node(100, 100),))


def trial(root, name, *needs, cpus=1, gpus=0):
    stage = Stage(root=root, kind="emulators", system="euler", what=name, config=Config(), inputs={})
    step = Step(stage, stage.commit, {}, 1)
    return Trial(name, (step,), tuple(each.steps[0].stage for each in needs), cpus=cpus, gpus=gpus)


def resources(cpus=0, gpus=0, grows=False):
    return ClusterResources((Node(cpus, gpus),), grows)


class Cluster:
    """A cluster whose size changes, and what a queue starts on it."""

    def __init__(self, trials, monkeypatch, **size):
        monkeypatch.setattr(queues, "READ_INTERVAL_S", -1.0)  # look every time
        self.cluster_resources = resources(**size)
        self.queue = TrialQueue(trials, lambda: self.cluster_resources)
        self.count = 0

    def start(self):
        """All trials that are started now, by name."""
        names = []
        while isinstance(answer := self.queue.suggest(str(self.count)), dict):
            names.append(answer["trial"])
            self.count += 1
        return names

    def end(self, name):
        (key,) = (key for key, trial in self.queue.running.items() if trial.name == name)
        self.queue.on_trial_complete(key)


def test_what_is_ready_starts_and_what_can_never_be_ends_the_queue(tmp_path):
    first, second = trial(tmp_path, "first"), trial(tmp_path, "second")
    after_first, after_second = trial(tmp_path, "a", first), trial(tmp_path, "b", second)
    queue = TrialQueue([first, after_first, second, after_second], lambda: WIDE)
    assert queue.suggest("1") == {"trial": "first"}
    assert queue.suggest("2") == {"trial": "second"}
    assert queue.suggest("3") is None
    second.steps[0].run()
    queue.on_trial_complete("2")
    assert queue.suggest("3") == {"trial": "b"}
    queue.on_trial_complete("3")
    assert queue.suggest("4") is None
    queue.on_trial_complete("1", error=True)
    assert queue.suggest("4") == Searcher.FINISHED
    assert list(queue.waiting.values()) == [after_first]


def test_an_empty_queue_is_finished_while_the_last_trial_runs(tmp_path):
    queue = TrialQueue([trial(tmp_path, "only")], lambda: WIDE)
    queue.suggest("1")
    assert queue.suggest("2") == Searcher.FINISHED


def test_the_number_of_trials_follows_the_cluster(tmp_path, monkeypatch):
    trials = [trial(tmp_path, str(i), cpus=16, gpus=8) for i in range(7)]
    cluster = Cluster(trials, monkeypatch, cpus=64, gpus=16)
    assert cluster.start() == ["0", "1"]
    cluster.cluster_resources = ClusterResources((Node(64, 24),))
    assert cluster.start() == ["2"]
    cluster.cluster_resources = ClusterResources((Node(64, 8),))
    cluster.end("0")
    cluster.end("1")
    assert cluster.start() == []
    cluster.end("2")
    assert cluster.start() == ["3"]


@pytest.mark.parametrize("share", [0.1, 0.2, 0.25, 1 / 3])
def test_trials_share_a_gpu(tmp_path, monkeypatch, share):
    trials = [trial(tmp_path, str(i), gpus=share) for i in range(12)]
    cluster = Cluster(trials, monkeypatch, cpus=64, gpus=1)
    assert len(cluster.start()) == round(1 / share)
    monkeypatch.setattr(tune, "cluster_resources", lambda: cluster.cluster_resources)
    assert tune.concurrency(trials) == round(1 / share)


def test_trials_whose_cpus_follow_from_their_gpus_run_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(tune, "cluster_resources", lambda: resources(cpus=8, gpus=2))
    assert tune.concurrency([trial(tmp_path, "a", cpus=0, gpus=0.6)]) == 2  # a share is of one GPU


def test_a_cluster_that_may_grow_is_asked_for_one_trial_more(tmp_path, monkeypatch):
    trials = [trial(tmp_path, str(i), cpus=16, gpus=8) for i in range(7)]
    cluster = Cluster(trials, monkeypatch, cpus=4, gpus=0, grows=True)
    assert cluster.start() == ["0"]
    cluster.cluster_resources = ClusterResources((Node(20, 8),), grows=True)
    assert cluster.start() == ["1"]
    cluster.cluster_resources = ClusterResources((Node(52, 24),), grows=True)
    assert cluster.start() == ["2", "3"]


def test_a_trial_larger_than_the_cluster_lets_others_pass(tmp_path, monkeypatch):
    trials = [trial(tmp_path, "large", gpus=16), *(trial(tmp_path, str(i), gpus=8) for i in range(2))]
    cluster = Cluster(trials, monkeypatch, cpus=64, gpus=8)
    assert cluster.start() == ["0"]
    cluster.end("0")
    assert cluster.start() == ["1"]
    cluster.end("1")
    assert cluster.start() == ["large"]


def test_a_large_trial_is_not_overtaken_for_ever(tmp_path, monkeypatch):
    trials = [
        *(trial(tmp_path, str(i), gpus=8) for i in range(2)),
        trial(tmp_path, "large", gpus=16),
        trial(tmp_path, "last", gpus=8),
    ]
    cluster = Cluster(trials, monkeypatch, cpus=64, gpus=16)
    assert cluster.start() == ["0", "1"]
    cluster.end("0")
    assert cluster.start() == []
    cluster.end("1")
    assert cluster.start() == ["large"]


def test_a_limit_is_what_a_cluster_that_may_grow_is_asked_for_at_once(tmp_path):
    trials = [trial(tmp_path, str(i), cpus=16, gpus=8) for i in range(7)]
    queue = TrialQueue(trials, lambda: ClusterResources(grows=True), limit=4)
    assert sum(isinstance(queue.suggest(str(i)), dict) for i in range(7)) == 4


@pytest.mark.parametrize("limit", [1, 3])
def test_a_limit(tmp_path, limit):
    queue = TrialQueue([trial(tmp_path, str(i)) for i in range(5)], lambda: WIDE, limit)
    assert sum(isinstance(queue.suggest(str(i)), dict) for i in range(5)) == limit


def test_what_a_trial_waits_for_is_passed_on(tmp_path):
    logged = []
    queue = TrialQueue([trial(tmp_path, "only")], lambda: WIDE, log=logged.append)
    queue.suggest("1")
    queue.on_trial_result("1", {WAIT_MESSAGE: "waiting for a lease"})
    queue.on_trial_result("1", {"finished": 1})
    assert logged == ["waiting for a lease"]


def test_ray_tune_can_keep_a_queue_that_speaks_on_a_console():
    from ray import cloudpickle
    from rich.console import Console

    from lola.storage.progress import Progress

    queue = TrialQueue([], ClusterResources, 1, Progress(Console()).log)
    assert cloudpickle.loads(cloudpickle.dumps(queue)).limit == 1
