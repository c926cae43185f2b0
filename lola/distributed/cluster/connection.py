"""The connection to a Ray cluster: a running one, or an embedded one that ends with the program."""

import contextlib
import logging
import os
import stat
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path

import ray
import ray.data
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from lola.core import errors
from lola.core.waiting import Log, reminding
from lola.distributed.cluster.address import find_cluster
from lola.distributed.cluster.start import replace_home, start_ray
from lola.storage.remote import AnyPath

HEAD = "node:__internal_head__"
"""The resource that pins light driver work to the head node."""

SETTINGS = {
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}
EMBEDDED_SETTINGS = {
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
}
"""For processes of an embedded cluster, which inherit them: one node, never preempted, and short runs.

Processes of a cluster that is running already have the environment of its nodes, and keep it."""

STOPPING_S = 2.0  # after which a line says what takes the time

_connected = False  # by `connect`, not by whoever called it


def connect(log: Log = print) -> None:
    """Attach to the running cluster, or start an embedded one with this machine's resources.

    A submitted job finds its cluster in `RAY_ADDRESS`. No resources are named, since an existing cluster
    has its own. An embedded cluster answers those alone who know its token, which Ray makes, unless
    `RAY_AUTH_MODE` says otherwise.

    Arguments:
        log: Takes lines about what is started or waited for.

    Raises:
        ClusterError: The cluster that is named does not answer, or none can be started.
    """
    for name, value in {**SETTINGS, **EMBEDDED_SETTINGS}.items():
        os.environ.setdefault(name, value)
    if ray.is_initialized():
        return
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    replace_home(log)
    restrict_token_permissions()
    start_ray(find_cluster(log), log)
    global _connected
    _connected = True
    restrict_token_permissions()


def disconnect() -> None:
    """Detach from the cluster; an embedded one ends, and its processes release what they hold."""
    global _connected
    _connected = False
    ray.shutdown()


def stop_ray(log: Log) -> None:
    """Undo `connect`, if it connected: Ray's own processes take seconds to end, at exit without a word."""
    if _connected:
        with reminding(lambda: "stopping Ray", log, first=STOPPING_S):
            disconnect()


@contextlib.contextmanager
def stopping_ray(log: Log) -> Iterator[None]:
    """Undo what the block connects, as `stop_ray` does."""
    try:
        yield
    finally:
        stop_ray(log)


def restrict_token_permissions() -> None:
    """Make the authentication token readable to its owner alone.

    Ray writes it for all to read. Its folder is closed beforehand, so that no other user reads it meanwhile.
    """
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    try:
        folder = Path.home() / ".ray"
        token = Path(named).expanduser() if named else folder / "auth_token"
    except RuntimeError:  # a user without a home: `replace_home` keeps the token elsewhere
        return
    with contextlib.suppress(OSError):  # Ray reports what cannot be written
        folder.mkdir(mode=0o700, exist_ok=True)
    for path, mode in ((folder, 0o700), (token, 0o600)):
        with contextlib.suppress(OSError):  # missing, or another user's
            if stat.S_IMODE(path.stat().st_mode) & 0o077:
                path.chmod(mode)


def require_shared(root: AnyPath) -> None:
    """Raise `StorageError` unless every node of the cluster sees what is written to a storage root."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) < 2 or not isinstance(root, Path):
        return
    probe = root / f".probe-{uuid.uuid4().hex}"
    probe.touch()
    try:
        strategies = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
        answers = [_sees.options(scheduling_strategy=strategy).remote(probe) for strategy in strategies]
        seen = [_unless_gone(answer) for answer in answers]
    finally:
        probe.unlink()
    blind = [node["NodeManagerAddress"] for node, sees in zip(nodes, seen, strict=True) if not sees]
    if blind:
        raise errors.StorageError(
            f"storage {root} is not seen by the nodes {', '.join(blind)}; name a folder that all nodes "
            "share, or a bucket, with --storage"
        )


def _unless_gone(answer: ray.ObjectRef) -> bool:
    """What a node answered; one that has left meanwhile need not see anything."""
    try:
        return ray.get(answer)
    except (ray.exceptions.NodeDiedError, ray.exceptions.TaskUnschedulableError):
        return True


@ray.remote(num_cpus=0)
def _sees(path: Path) -> bool:
    return path.exists()


def configure_ray_data() -> None:
    """Keep Ray Data out of the console of this process, and let it raise the errors of tasks as they are."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.raise_original_map_exception = True
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module="ray.data")
