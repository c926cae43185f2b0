"""Encoding and evaluation use a node that arrives, and lose nothing that is finished with one that goes."""

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from processes import below
from ray.cluster_utils import Cluster
from stages import ROOT, finish_autoencoder
from sweeps import finish, launch
from waves import write_dataset

from lola.emulation.encoding import BlockEncoder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore"),  # of processes that Ray leaves to the garbage collector
    pytest.mark.skipif(not os.path.exists("/proc"), reason="needs /proc"),
]
ENCODING = (b"ReadWell", f"MapBatches({BlockEncoder.__name__})".encode())  # what reads, or what encodes
ENCODE = [str(ROOT / "experiments" / "cache_latents.py"), "--variants", "80"]
EVALUATE = [
    "-c",
    """
import sys
from pathlib import Path
from stages import small_sweep
from lola.distributed.cluster.connection import connect
from lola.workflows.plan import SweepPlan

root, config = Path(sys.argv[1]), small_sweep()
scoring = config.evaluation.replace(starts=(0, 1, 2, 3), trajectories=16, stride=1)
plan = SweepPlan(config.replace(evaluation=scoring), root, root / "well")
connect()
(step,) = [trial.steps[0] for trial in plan.evaluations if "autoencoder" in trial.name]
step.run()
""",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A storage root with data and an autoencoder."""
    root = tmp_path_factory.mktemp("data")
    write_dataset(root / "well", size=64, steps=51, count=8)
    finish_autoencoder(root, root / "well")
    return root


@pytest.fixture
def cluster(monkeypatch) -> Iterator[Cluster]:
    """A head without CPUs, and a node with one."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        try:
            cluster.add_node(num_cpus=1)
            yield cluster
        finally:
            cluster.shutdown()


def start(program: list[str], root: Path, **variables: str) -> subprocess.Popen:
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests", ROOT / "tests" / "support")))
    return launch([sys.executable, *program], root, PYTHONPATH=paths, **variables)


def succeed(process: subprocess.Popen) -> None:
    output = finish(process)
    assert process.returncode == 0, output[-4000:]


def wait_until(condition: Callable[[], bool], process: subprocess.Popen, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            pytest.fail(f"the moment never came:\n{process.communicate()[0][-4000:]}")
        time.sleep(0.05)


def works(node, *names: bytes) -> bool:
    """Whether a process of a node has one of some names; Ray names those of tasks and actors."""
    (raylet,) = node.all_processes["raylet"]
    for pid in below(raylet.process.pid):
        try:
            title = Path(f"/proc/{pid}/cmdline").read_bytes()
            if any(name in title for name in names):
                return True
        except OSError:  # it has ended
            continue
    return False


def disturb(cluster: Cluster, process: subprocess.Popen, finished: Callable[[], list[Path]], *names: bytes):
    """Once something is finished add a node, and once that works take the first away.

    Returns what was finished by then, with the numbers of the files and the times of their last change.
    """
    (first,) = cluster.worker_nodes
    wait_until(lambda: bool(finished()), process)
    second = cluster.add_node(num_cpus=1)
    wait_until(lambda: works(second, *names), process)
    before = identities(finished())
    assert process.poll() is None
    cluster.remove_node(first, allow_graceful=False)
    return before


def identities(paths: list[Path]) -> dict[Path, tuple[int, int]]:
    return {path: ((status := path.stat()).st_ino, status.st_mtime_ns) for path in paths}


def copied(data: Path, root: Path) -> Path:
    shutil.copytree(data, root, dirs_exist_ok=True)
    return root


def test_encoding(data, cluster, tmp_path):
    root = copied(data, tmp_path / "disturbed")
    (autoencoder,) = (each.name for each in data.glob("autoencoders/*"))
    process = start([*ENCODE, autoencoder, "--actors", "2"], root, RAY_ADDRESS=cluster.address)
    before = disturb(cluster, process, lambda: shards(root), *ENCODING)
    assert not list(root.glob("latents/*/manifest.json"))
    succeed(process)
    assert list(root.glob("latents/*/manifest.json"))
    assert before.items() <= identities(shards(root)).items()
    other = copied(data, tmp_path / "alone")
    succeed(start([*ENCODE, autoencoder], other))
    assert hashes(root) == hashes(other)


def shards(root: Path) -> list[Path]:
    return sorted(root.glob("latents/*/*/shard-*.parquet"))


def hashes(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in shards(root)
    }


def test_evaluation(data, cluster, tmp_path):
    root = copied(data, tmp_path / "disturbed")
    process = start([*EVALUATE, str(root)], root, RAY_ADDRESS=cluster.address)
    before = disturb(cluster, process, lambda: parts(root), b"ray::_evaluate")
    assert len(before) < 64
    succeed(process)
    assert len(parts(root)) == 64
    assert before.items() <= identities(parts(root)).items()
    other = copied(data, tmp_path / "undisturbed")
    succeed(start([*EVALUATE, str(other)], other, RAY_ADDRESS=cluster.address))
    for name in ("metrics", "spectra"):
        found, expected = (table(each, name) for each in (root, other))
        assert len(found) > 10_000
        assert found.equals(expected)


def parts(root: Path) -> list[Path]:
    return sorted(path for path in root.glob("evaluations/*/parts/*") if not path.name.startswith("."))


def table(root: Path, name: str):
    """Numbers as a frame, in which missing values are equal."""
    (path,) = root.glob(f"evaluations/*/{name}.parquet")
    frame = pq.read_table(path).to_pandas()
    return frame if name == "metrics" else frame.explode("values")
