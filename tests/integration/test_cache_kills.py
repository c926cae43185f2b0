"""A latent cache whose driver or one of whose actors is killed ends with the bytes of an undisturbed one."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import below
from stages import ROOT, finish_autoencoder
from sweeps import finish, launch
from waves import write_dataset

from lola.emulation.encoding import BlockEncoder

pytestmark = pytest.mark.slow
ENCODER = f"MapBatches({BlockEncoder.__name__})".encode()


@pytest.fixture(scope="module")
def storage(tmp_path_factory) -> Path:
    """A storage root with data and an autoencoder, and what an undisturbed job makes of them."""
    root = tmp_path_factory.mktemp("storage")
    write_dataset(root / "well", size=64, steps=51, count=8)
    finish_autoencoder(root, root / "well")
    output = finish(start(root))
    assert "cache: " in output, output
    return root


def start(root: Path, *options: str) -> subprocess.Popen:
    (autoencoder,) = root.glob("autoencoders/*")
    command = [sys.executable, str(ROOT / "experiments" / "cache_latents.py"), autoencoder.name]
    return launch([*command, "--block", "17", "--variants", "2", *options], root)


def wait_for(process: subprocess.Popen, root: Path) -> list[Path]:
    """The first shards of a cache, as soon as there are any."""
    for _ in range(6000):
        shards = sorted(root.glob("latents/*/*/shard-*.parquet"))
        if shards or process.poll() is not None:
            break
        time.sleep(0.02)
    if process.poll() is not None or not shards:
        pytest.fail(f"the moment to kill never came:\n{finish(process)}")
    return shards


def copied(storage: Path, root: Path) -> Path:
    """The storage root without its cache."""
    for name in ("well", "autoencoders"):
        shutil.copytree(storage / name, root / name)
    return root


def hashes(root: Path) -> dict[str, str]:
    found = sorted(root.glob("latents/*/*/*.parquet"))
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def encoders(pid: int) -> list[int]:
    """The processes of a driver's encoders."""
    return [one for one in below(pid) if ENCODER in Path(f"/proc/{one}/cmdline").read_bytes()]


def test_a_killed_driver(storage, tmp_path):
    root = copied(storage, tmp_path)
    process = start(root)
    shards = wait_for(process, root)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not list(root.glob("latents/*/manifest.json"))
    before = {path: path.stat().st_mtime_ns for path in shards}
    output = finish(start(root))
    assert "cache: " in output, output
    assert before == {path: path.stat().st_mtime_ns for path in shards}
    assert hashes(root) == hashes(storage)
    assert not list(root.glob("latents/*/*/.shard-*"))


@pytest.mark.skipif(not os.path.exists("/proc"), reason="needs /proc")
@pytest.mark.long
def test_a_killed_actor_of_two(storage, tmp_path):
    root = copied(storage, tmp_path)
    process = start(root, "--actors", "2")
    wait_for(process, root)
    assert not list(root.glob("latents/*/manifest.json"))
    victim = encoders(process.pid)[0]
    os.kill(victim, signal.SIGKILL)
    output = finish(process)
    assert "cache: " in output, output
    assert hashes(root) == hashes(storage)
