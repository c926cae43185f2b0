"""Resources that stages request and that a cluster has.

A cluster that cannot grow and can never give what something takes is refused before anything is made. Where
it may grow, or others hold what there is, stages wait, and the console shows for what.
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

from lola.core.config import require
from lola.core.errors import ClusterError
from lola.distributed.cluster.address import EMBEDDED_VARIABLE

# What Ray calls the type of a node that no autoscaler has started
STATIC_NODE_TYPE = re.compile(r"node_[0-9a-f]+")

DIGITS = 4  # of resources in Ray
ROUNDING = 1e-6  # of sums of shares


@dataclasses.dataclass(frozen=True)
class ResourceRequest:
    """Processes that run at the same time, at least.

    Arguments:
        what: What they are, in the plural.
        option: The option that says how many there are; empty if there is none.
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
        return format_resources(self.cpus, self.gpus, only=True)

    def fitting(self, cpus: float, gpus: float) -> int:
        """How many of the processes fit into the resources of a node."""
        fits = [int(cpus / self.cpus + ROUNDING)] if self.cpus else []
        fits += [count_on_gpus(gpus, self.gpus)] if self.gpus else []
        return min(fits, default=self.count)


@dataclasses.dataclass(frozen=True)
class Node:
    """Resources of a node, and those of them that are free."""

    cpus: float
    gpus: float = 0
    free_cpus: float = 0
    free_gpus: float = 0


@dataclasses.dataclass(frozen=True)
class ClusterResources:
    """Resources of a cluster at a moment.

    Arguments:
        grows: Whether an autoscaler may add nodes.
        pending: How many processes of any program wait for resources, by the CPUs and GPUs of each.
    """

    nodes: tuple[Node, ...] = ()
    grows: bool = False
    pending: Counter[tuple[float, float]] = dataclasses.field(default_factory=Counter)

    @property
    def cpus(self) -> float:
        return sum(node.cpus for node in self.nodes)

    @property
    def gpus(self) -> float:
        return sum(node.gpus for node in self.nodes)

    @property
    def total(self) -> str:
        """CPUs and GPUs in words."""
        on = f" on {len(self.nodes)} nodes" if len(self.nodes) > 1 else ""
        return f"the cluster has {format_resources(self.cpus, self.gpus)}{on}"

    def __str__(self) -> str:
        free = format_resources(
            sum(node.free_cpus for node in self.nodes), sum(node.free_gpus for node in self.nodes)
        )
        return f"{self.total}, of which {free} are free"

    def can_run(self, request: ResourceRequest) -> bool:
        """Whether all processes of a request could run at once if nothing else did."""
        return sum(request.fitting(node.cpus, node.gpus) for node in self.nodes) >= request.count

    def can_run_now(self, request: ResourceRequest) -> bool:
        """Whether all processes of a request could run next to what runs."""
        return sum(request.fitting(node.free_cpus, node.free_gpus) for node in self.nodes) >= request.count

    def count_pending(self, request: ResourceRequest) -> int:
        return self.pending[(round(request.cpus, DIGITS), round(request.gpus, DIGITS))]


def count_on_gpus(gpus: float, each: float) -> int:
    """How many processes fit that take so much of GPUs each: a share is of one GPU, and does not span two."""
    if each < 1:
        return int(gpus) * int(1 / each + ROUNDING) + int((gpus % 1) / each + ROUNDING)
    return int(gpus / each + ROUNDING)


def format_resources(cpus: float, gpus: float, only: bool = False) -> str:
    """CPUs and GPUs in words; `only` leaves out what is none."""
    parts = [
        f"{number:g} {name}{'' if number == 1 else 's'}"
        for number, name in ((cpus, "CPU"), (gpus, "GPU"))
        if number or not only
    ]
    return " and ".join(parts) or "nothing"


def require_feasible(requests: dict[str, ResourceRequest], cluster: ClusterResources) -> None:
    """Refuse what a cluster that does not grow can never run.

    Arguments:
        requests: What is needed, by the option that says so.

    Raises:
        ClusterError: Something can never run.
    """
    lacking = {} if cluster.grows else {k: d for k, d in requests.items() if not cluster.can_run(d)}
    if not lacking:
        return
    option, request = next(iter(lacking.items()))
    hidden = ""
    if request.gpus and os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        hidden = ", since CUDA_VISIBLE_DEVICES is empty"
    remedies = [f"{option}.{name}" for name in (request.option, "gpus" if request.gpus else "") if name]
    others = f" (so do {', '.join(list(lacking)[1:])})" if len(lacking) > 1 else ""
    remedy = f"give less with {' or '.join(remedies)}, or " if remedies else ""
    raise ClusterError(
        f"{option} needs {request}{others}, but {cluster.total}{hidden} and does not grow; "
        f"{remedy}use a cluster that has them"
    )


def cluster_resources() -> ClusterResources:
    """The cluster that this process is connected to, as it is now."""
    client = ray._private.worker.global_worker.gcs_client  # type: ignore[attr-defined]
    state = get_cluster_resource_state(client)
    nodes = tuple(
        Node(*_cpus_and_gpus(node.total_resources), *_cpus_and_gpus(node.available_resources))
        for node in state.node_states
        if node.status != NodeStatus.DEAD
    )
    pending: Counter[tuple[float, float]] = Counter()
    for request in state.pending_resource_requests:
        pending[_cpus_and_gpus(request.request.resources_bundle)] += request.count
    for gang in state.pending_gang_resource_requests:
        for request in gang.requests:
            pending[_cpus_and_gpus(request.resources_bundle)] += 1
    return ClusterResources(nodes, may_grow(), pending)


def _cpus_and_gpus(bundle: Any) -> tuple[float, float]:
    return float(bundle.get("CPU", 0)), float(bundle.get("GPU", 0))


def may_grow() -> bool:
    """Whether nodes may come: whether an autoscaler has started any, or nothing is known of that.

    Ray reports the types of the nodes that its autoscaler started; where there is none, a type is made of
    the node's own name.
    """
    if EMBEDDED_VARIABLE in os.environ:
        return False
    report: dict[str, Any] = {}
    with contextlib.suppress(Exception):  # not reported yet, or in another format
        report = json.loads(_internal_kv_get(b"__autoscaling_status"))["autoscaler_report"]
    types = {*(report.get("active_nodes") or {}), *(report.get("idle_nodes") or {})}
    return not types or not all(STATIC_NODE_TYPE.fullmatch(name) for name in types)


def describe_pending(
    title: str,
    request: ResourceRequest,
    read: Callable[[], ClusterResources] | None = None,
    at_least: int = 1,
) -> str:
    """What something waits for, if enough processes like its own wait for resources; else nothing.

    Arguments:
        title: What waits; nothing where that is known, as in a stage's own event log.
        request: What each process takes.
        at_least: How many must wait: all of several tasks, since those that run make others wait.
    """
    cluster = (read or cluster_resources)()
    if cluster.count_pending(request) < at_least:
        return ""
    if cluster.can_run(request):
        remedy = "they start when others give it back"
    elif cluster.grows:
        remedy = "they start when nodes come; give less, or add nodes, if none do"
    else:
        remedy = "none of its nodes can give that: give less, or add nodes"
    return f"{title} waits for {request}: {cluster}; {remedy}".lstrip()


def cpus_per_gpu() -> int:
    """The share of a node's CPUs that each of its GPUs has, on the node where it is least.

    Raises:
        ConfigError: There are no GPUs.
    """
    shares = [
        node["Resources"].get("CPU", 0) // node["Resources"]["GPU"]
        for node in ray.nodes()
        if node["Alive"] and node["Resources"].get("GPU")
    ]
    require(bool(shares), "cpus: 0 is a GPU's share of its node's, but there are no GPUs; give a number")
    return max(1, int(min(shares)))
