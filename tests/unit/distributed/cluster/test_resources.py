"""What a cluster can never give is refused at once; what it may give is waited for, with a word."""

import json
from collections import Counter
from types import SimpleNamespace

import pytest

from lola.core.config import Config
from lola.core.errors import ClusterError
from lola.distributed.cluster import resources
from lola.distributed.cluster.resources import (
    ClusterResources,
    Node,
    ResourceRequest,
    count_on_gpus,
    describe_pending,
    may_grow,
    require_feasible,
)
from lola.emulation.cache_config import CacheConfig
from lola.evaluation.evaluation_config import EvaluationConfig
from lola.training.config import TrainingConfig
from lola.workflows.resource_requests import request_of, requests_by_option
from lola.workflows.sweep import Recipe

TRAINING = TrainingConfig(steps=1)
LAPTOP = ClusterResources((Node(2, 0, 2, 0),))


def settings(**changes):
    return SimpleNamespace(
        system="euler",
        autoencoder_training=TRAINING,
        emulator_training=TRAINING.replace(**changes),
        cache=CacheConfig(),
    )


def requests_of(config):
    return requests_by_option(config, (part for part in vars(config).values() if isinstance(part, Config)))


def refusal(cluster, **changes):
    with pytest.raises(ClusterError) as error:
        require_feasible(requests_of(settings(**changes)), cluster)
    (line,) = str(error.value).splitlines()
    return line


def test_more_workers_than_cpus_are_refused_in_one_line():
    line = refusal(LAPTOP, workers=8)
    assert line == (
        "--emulator-training needs 8 training workers with 1 CPU each, but the cluster has 2 CPUs and 0 GPUs "
        "and does not grow; give less with --emulator-training.workers, or use a cluster that has them"
    )


def test_gpus_that_do_not_exist_are_refused(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    line = refusal(LAPTOP, gpus=1)
    assert "1 training worker with 1 CPU and 1 GPU, but" in line
    assert "0 GPUs, since CUDA_VISIBLE_DEVICES is empty and does not grow" in line
    assert "--emulator-training.workers or --emulator-training.gpus" in line


def test_all_that_lack_something_are_named():
    both = settings(gpus=1, workers=4)
    both.autoencoder_training = both.emulator_training
    with pytest.raises(ClusterError, match=r"--autoencoder-training needs .* \(so do --emulator-training\)"):
        require_feasible(requests_of(both), LAPTOP)


def test_a_worker_must_fit_on_one_node():
    two = ClusterResources((Node(2, 1, 2, 1), Node(2, 1, 2, 1)))
    require_feasible(requests_of(settings(gpus=1, workers=2)), two)
    assert "on 2 nodes" in refusal(two, gpus=2)
    assert "3 training workers" in refusal(two, gpus=1, workers=3)


@pytest.mark.parametrize(
    ("cluster", "changes"),
    [
        (LAPTOP, {"workers": 2}),
        (LAPTOP, {"workers": (1, 8)}),
        (ClusterResources(LAPTOP.nodes, grows=True), {"workers": 8}),
        (ClusterResources((Node(2, 0, 0, 0),)), {"workers": 2}),
    ],
)
def test_resources_that_exist_or_may_be_added_are_not_refused(cluster, changes):
    require_feasible(requests_of(settings(**changes)), cluster)


def test_what_each_kind_of_stage_takes():
    assert request_of(TRAINING.replace(workers=(2, 4), cpus=3)) == ResourceRequest(
        "training workers", "workers", 2, 3
    )
    assert request_of(TRAINING.replace(gpus=0.25)) == ResourceRequest(
        "training workers", "workers", 1, 1, 0.25
    )
    assert request_of(CacheConfig()) is None
    assert request_of(CacheConfig(gpus=0.25)) == ResourceRequest("encoders", "", 1, 0.5, 0.25)
    assert request_of(EvaluationConfig()) == ResourceRequest("evaluation tasks", "", 1, 1)
    assert request_of(EvaluationConfig(gpus=1)).gpus == 1


@pytest.mark.parametrize(
    ("gpus", "each", "fits"),
    [(1, 0.2, 5), (2, 0.6, 2), (1.5, 0.25, 6), (0.5, 1, 0), (4, 2, 2), (2, 1 / 3, 6)],
)
def test_a_share_is_of_one_gpu(gpus, each, fits):
    assert count_on_gpus(gpus, each) == fits


def test_only_what_is_still_to_be_made_is_looked_at():
    config = settings(workers=8)
    model = None
    recipe = Recipe.__new__(Recipe)
    object.__setattr__(recipe, "training", TRAINING)
    object.__setattr__(recipe, "model", model)
    assert set(requests_by_option(config, [recipe])) == {"--autoencoder-training"}
    object.__setattr__(recipe, "training", config.emulator_training)
    assert set(requests_by_option(config, [recipe])) == {"--emulator-training"}
    assert requests_by_option(config, []) == {}


DEMAND = ResourceRequest("training workers", "workers", 4, 1.0, 1.0)
WAITING = Counter({(1.0, 1.0): 4})


@pytest.mark.parametrize(
    ("cluster", "remedy"),
    [
        (ClusterResources((Node(8, 4, 4, 0),), False, WAITING), "they start when others give it back"),
        (ClusterResources((Node(8, 0, 8, 0),), True, WAITING), "they start when nodes come"),
        (ClusterResources((Node(8, 0, 8, 0),), False, WAITING), "none of its nodes can give that"),
    ],
)
def test_a_pending_request_is_described_with_the_remedy(cluster, remedy):
    text = describe_pending("diffusion-f16c32", DEMAND, lambda: cluster)
    assert text.startswith(
        "diffusion-f16c32 waits for 4 training workers with 1 CPU and 1 GPU each: the clus"
    )
    assert str(cluster) in text
    assert remedy in text


def test_who_waits_for_something_else_is_not_waiting():
    cluster = ClusterResources((Node(8, 4, 4, 0),), False, Counter({(1.0, 0.0): 3}))
    assert describe_pending("diffusion", DEMAND, lambda: cluster) == ""


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ({"active_nodes": {"node_" + "3c" * 28: 1}, "idle_nodes": None}, False),
        ({"active_nodes": {"node_" + "3c" * 28: 1}, "idle_nodes": {"node_" + "4d" * 28: 1}}, False),
        ({"active_nodes": {"ray.head.default": 1}}, True),
        ({"active_nodes": {}, "idle_nodes": {"head": 1}}, True),
        ({}, True),
        (None, True),
    ],
)
def test_an_autoscaler_is_known_by_the_types_of_its_nodes(monkeypatch, report, expected):
    monkeypatch.delenv(resources.EMBEDDED_VARIABLE, raising=False)
    reply = None if report is None else json.dumps({"autoscaler_report": report}).encode()
    monkeypatch.setattr(resources, "_internal_kv_get", lambda key: reply)
    assert may_grow() is expected
    monkeypatch.setenv(resources.EMBEDDED_VARIABLE, "1")
    assert may_grow() is False


def test_tasks_that_others_of_theirs_keep_waiting_are_not_reported():
    """Of six tasks on two CPUs four always wait; only if all six do, nothing runs."""
    request = ResourceRequest("simulation tasks", "", 1, 1)
    busy = ClusterResources((Node(2, 0, 0, 0),), False, Counter({(1.0, 0.0): 4}))
    assert describe_pending("the simulation", request, lambda: busy, at_least=6) == ""
    assert describe_pending("the simulation", request, lambda: busy, at_least=4).startswith("the simulation")
