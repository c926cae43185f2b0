"""What stages take of a cluster, what it has, and what is told where the two do not fit.

A cluster that cannot grow and can never give what something takes is refused before anything is made. Where
it may grow, or others hold what there is, stages wait, and the console says for what.
"""

import contextlib
import dataclasses
import json
import os
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import ray
from ray.autoscaler.v2.sdk import get_cluster_resource_state
from ray.core.generated.autoscaler_pb2 import NodeStatus  # type: ignore[attr-defined]
from ray.experimental.internal_kv import _internal_kv_get

from lola.core.errors import ClusterError
from lola.distributed.cluster.address import EMBEDDED

FIXED_TYPE = re.compile(r"node_[0-9a-f]+")  # what Ray calls the type of a node that no autoscaler has started


@dataclasses.dataclass(frozen=True)
class Demand:
    """Processes that run at the same time, at least.

    Arguments:
        what: What they are, in the plural.
        option: The option that says how many there are; empty if there is none.
        count: How many.
        cpus, gpus: What each takes, of one node.
    """

    what: str
    option: str
    count: int
    cpus: float
    gpus: float = 0

    def __str__(self) -> str:
        each = " each" if self.count > 1 else ""
        return f"{self.count} {self.what if self.count > 1 else self.what[:-1]} with {self.each}{each}"

    @property
    def each(self) -> str:
        """What one of them takes, in words."""
        return amount(self.cpus, self.gpus, only=True)


@dataclasses.dataclass(frozen=True)
class Node:
    """What a node has, and what of it is free."""

    cpus: float
    gpus: float
    free_cpus: float
    free_gpus: float

    def fit(self, demand: Demand) -> int:
        """How many of a demand's processes it could run, if it had nothing else to do."""
        return _fit(demand, self.cpus, self.gpus)

    def fit_now(self, demand: Demand) -> int:
        """How many it could run beside what runs on it."""
        return _fit(demand, self.free_cpus, self.free_gpus)


@dataclasses.dataclass(frozen=True)
class Cluster:
    """A cluster as it is.

    Arguments:
        nodes: Its nodes.
        grows: Whether there may be more of them.
        pending: How many processes wait for resources, of any program, by the CPUs and GPUs of each.
    """

    nodes: tuple[Node, ...]
    grows: bool = False
    pending: Counter[tuple[float, float]] = dataclasses.field(default_factory=Counter)

    def __str__(self) -> str:
        has = amount(sum(node.cpus for node in self.nodes), sum(node.gpus for node in self.nodes))
        free = amount(sum(node.free_cpus for node in self.nodes), sum(node.free_gpus for node in self.nodes))
        on = f" on {len(self.nodes)} nodes" if len(self.nodes) > 1 else ""
        return f"the cluster has {has}{on}, of which {free} are free"

    def can_run(self, demand: Demand) -> bool:
        """Whether it could run all of a demand's processes at once, if it had nothing else to do."""
        return sum(node.fit(demand) for node in self.nodes) >= demand.count

    def can_run_now(self, demand: Demand) -> bool:
        """Whether it could run them beside what runs."""
        return sum(node.fit_now(demand) for node in self.nodes) >= demand.count

    def waiting(self, demand: Demand) -> int:
        """How many processes like those of a demand wait for resources."""
        return self.pending[(float(demand.cpus), float(demand.gpus))]


def _fit(demand: Demand, cpus: float, gpus: float) -> int:
    shares = [had / taken for had, taken in ((cpus, demand.cpus), (gpus, demand.gpus)) if taken]
    return int(min(shares, default=demand.count))


def amount(cpus: float, gpus: float, only: bool = False) -> str:
    """CPUs and GPUs in words; `only` leaves out what is none."""
    parts = [
        f"{number:g} {name}{'' if number == 1 else 's'}"
        for number, name in ((cpus, "CPU"), (gpus, "GPU"))
        if number or not only
    ]
    return " and ".join(parts) or "nothing"


def refuse_impossible(demands: dict[str, Demand], cluster: Cluster) -> None:
    """Refuse what a cluster that does not grow can never run.

    Arguments:
        demands: What is needed, by the option that says so.
        cluster: What there is.

    Raises:
        ClusterError: Something can never run.
    """
    lacking = {} if cluster.grows else {k: d for k, d in demands.items() if not cluster.can_run(d)}
    if not lacking:
        return
    option, demand = next(iter(lacking.items()))
    has = amount(sum(node.cpus for node in cluster.nodes), sum(node.gpus for node in cluster.nodes))
    on = f" on {len(cluster.nodes)} nodes" if len(cluster.nodes) > 1 else ""
    hidden = ""
    if demand.gpus and os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        hidden = ", since CUDA_VISIBLE_DEVICES is empty"
    remedies = [f"{option}.{each}" for each in (demand.option, "gpus" if demand.gpus else "") if each]
    others = f" (so do {', '.join(list(lacking)[1:])})" if len(lacking) > 1 else ""
    remedy = f"give less with {' or '.join(remedies)}, or " if remedies else ""
    raise ClusterError(
        f"{option} needs {demand}{others}, but the cluster has {has}{on}{hidden} and does not grow; "
        f"{remedy}use a cluster that has them"
    )


def current_cluster() -> Cluster:
    """The cluster that this process is connected to, as it is now."""
    client = ray._private.worker.global_worker.gcs_client  # type: ignore[attr-defined]
    state = get_cluster_resource_state(client)
    nodes = tuple(
        Node(
            float(each.total_resources.get("CPU", 0)),
            float(each.total_resources.get("GPU", 0)),
            float(each.available_resources.get("CPU", 0)),
            float(each.available_resources.get("GPU", 0)),
        )
        for each in state.node_states
        if each.status != NodeStatus.DEAD
    )
    pending: Counter[tuple[float, float]] = Counter()
    for request in state.pending_resource_requests:
        pending[_shape(request.request.resources_bundle)] += request.count
    for gang in state.pending_gang_resource_requests:
        for request in gang.requests:
            pending[_shape(request.resources_bundle)] += 1
    return Cluster(nodes, may_grow(), pending)


def _shape(bundle: Any) -> tuple[float, float]:
    return float(bundle.get("CPU", 0)), float(bundle.get("GPU", 0))


def may_grow() -> bool:
    """Whether nodes may come: whether an autoscaler has started any, or nothing is known of that.

    Ray tells of the types of the nodes that its autoscaler started; where there is none, a type is made of
    the node's own name.
    """
    if EMBEDDED in os.environ:
        return False
    report: dict[str, Any] = {}
    with contextlib.suppress(Exception):  # not told yet, or not understood
        report = json.loads(_internal_kv_get(b"__autoscaling_status"))["autoscaler_report"]
    types = {*(report.get("active_nodes") or {}), *(report.get("idle_nodes") or {})}
    return not types or not all(FIXED_TYPE.fullmatch(name) for name in types)


def describe_wait(
    title: str, demand: Demand, looking: Callable[[], Cluster] = current_cluster, sure: bool = False
) -> str:
    """What something waits for, if anything like it waits for resources; else nothing.

    Arguments:
        title: What waits; nothing where that is known, as in a stage's own record.
        demand: What it takes.
        looking: Tells what there is.
        sure: Whether it is known to wait, whatever the cluster tells.
    """
    cluster = looking()
    if not sure and not cluster.waiting(demand):
        return ""
    if cluster.can_run(demand):
        remedy = "they start when others give it back"
    elif cluster.grows:
        remedy = "they start when nodes come; give less, or add nodes, if none do"
    else:
        remedy = "none of its nodes can give that: give less, or add nodes"
    return f"{title} waits for {demand}: {cluster}; {remedy}".lstrip()
