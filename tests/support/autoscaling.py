"""A Ray cluster of one machine whose nodes are started by Ray's own autoscaler, as those of a cloud are.

Ray's `AutoscalingCluster` reads a file that its packages lack, and ends every Ray process of the machine.
This one gives the same node provider a configuration of its own, and ends the processes that it started.
"""

import contextlib
import dataclasses
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import ray.util
from processes import below, end, name_of

VARIABLES = {
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    "RAY_FAKE_CLUSTER": "1",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_CLOUD_INSTANCE_ID": "f" * 51 + "00000",  # the head's, as its provider calls it
}


@dataclasses.dataclass
class Autoscaled:
    """A running cluster.

    Arguments:
        address: Of its head, for `RAY_ADDRESS`.
        dashboard: Of its dashboard, for `ray job`.
        known: The variables of those whom it answers.
        watched: Seconds since its start and numbers of nodes with CPUs, at every change.
    """

    address: str
    dashboard: str
    known: dict[str, str]
    watched: list[tuple[float, int]] = dataclasses.field(default_factory=lambda: [(0.0, 0)])

    @property
    def nodes(self) -> int:
        """Nodes there are now, but for the head."""
        return self.watched[-1][1]

    @property
    def most(self) -> int:
        """The most nodes that there were at once."""
        return max(count for _, count in self.watched)

    def wait(self, nodes: int, seconds: float) -> None:
        """Wait until there are so many nodes."""
        deadline = time.monotonic() + seconds
        while self.nodes != nodes:
            assert time.monotonic() < deadline, f"not {nodes} nodes after {seconds} s: {self.watched}"
            time.sleep(0.2)

    def watch(self, head: int, stop: threading.Event) -> None:
        """Count nodes until stopped; each has a process that is called a raylet."""
        started = time.monotonic()
        while not stop.wait(0.5):
            if (count := sum(name_of(pid) == "raylet" for pid in below(head)) - 1) != self.nodes:
                self.watched.append((round(time.monotonic() - started, 1), count))


@contextlib.contextmanager
def autoscaled(
    workers: int, cpus: int = 1, idle: float = 15.0, version: int = 1, **variables: str
) -> Iterator[Autoscaled]:
    """A cluster of a head without CPUs, and up to so many nodes that come when they are asked for.

    Arguments:
        workers: The most nodes.
        cpus: Of each node.
        idle: Seconds after which a node that does nothing goes.
        version: Of the autoscaler: 1 as `ray up` has it, 2 as KubeRay's operator.
        variables: More of the environment of all nodes.
    """
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # a short path, which sockets need
    ports = free_ports(4)
    address, dashboard = f"{ray.util.get_node_ip_address()}:{ports[0]}", f"http://127.0.0.1:{ports[1]}"
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    configuration = folder / "cluster.json"
    configuration.write_text(json.dumps(configure(address, workers, cpus, idle, version)))
    known = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | known
    command = [
        *(str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--num-cpus=0"),
        *(f"--port={ports[0]}", f"--temp-dir={folder / 'ray'}"),
        *("--dashboard-host=127.0.0.1", f"--dashboard-port={ports[1]}"),
        # Another cluster of this machine may have the usual port, and an agent without one takes no jobs
        *(f"--ray-client-server-port={ports[2]}", f"--dashboard-agent-listen-port={ports[3]}"),
        *(f"--autoscaling-config={configuration}", "--object-store-memory=100000000"),
        "--disable-usage-stats",
    ]
    log = (folder / "head.log").open("w")
    head = subprocess.Popen(
        command,
        env=kept | VARIABLES | {"RAY_enable_autoscaler_v2": str(version - 1)} | variables,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    cluster, stop = Autoscaled(address, dashboard, known), threading.Event()
    watch = threading.Thread(target=cluster.watch, args=(head.pid, stop), daemon=True)
    try:
        await_start(head, folder / "head.log")
        watch.start()
        yield cluster
    finally:
        stop.set()
        shut(head)
        log.close()
        shutil.rmtree(folder, ignore_errors=True)


def configure(address: str, workers: int, cpus: int, idle: float, version: int) -> dict:
    """The configuration that `ray up` would get."""
    return {
        "cluster_name": "autoscaled",
        "max_workers": workers,
        "upscaling_speed": 100.0,
        "idle_timeout_minutes": idle / 60,
        "provider": {
            "type": "external",  # under its own name it would read a file that does not exist
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "disable_node_updaters": True,
            "foreground_node_launch": True,
            "use_node_id_as_ip": True,  # nodes of one machine have one address
            "gcs_address": address,
            "launch_multiple": version == 2,
            "head_node_id": VARIABLES["RAY_CLOUD_INSTANCE_ID"],
        },
        "auth": {},
        "available_node_types": {
            "ray.head.default": {"resources": {}, "node_config": {}, "max_workers": 0},
            "worker": {
                "resources": {"CPU": cpus, "object_store_memory": 100_000_000},
                "node_config": {},
                "min_workers": 0,
                "max_workers": workers,
            },
        },
        "head_node_type": "ray.head.default",
        "docker": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        "initialization_commands": [],
        "setup_commands": [],
        "head_setup_commands": [],
        "worker_setup_commands": [],
        "head_start_ray_commands": [],
        "worker_start_ray_commands": [],
    }


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def await_start(head: subprocess.Popen, log: Path, seconds: float = 200) -> None:
    """Wait until a head answers."""
    deadline = time.monotonic() + seconds
    while "Ray runtime started" not in log.read_text():
        assert head.poll() is None, log.read_text()
        assert time.monotonic() < deadline, f"no head after {seconds} s: {log.read_text()}"
        time.sleep(0.2)


def shut(head: subprocess.Popen) -> None:
    """End a head and all that it started, nodes that its autoscaler started included."""
    started = list(below(head.pid))
    head.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        head.wait(timeout=10)
    end(started, 0)
    head.kill()
    head.wait()
