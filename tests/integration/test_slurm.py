"""The Slurm script on one node, with stand-ins for Slurm's own commands and a real Ray cluster."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "cluster" / "slurm" / "sweep.sbatch"
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
exec "$@"
"""
COMMAND = """
import glob, os, stat, sys
import ray
ray.init(log_to_driver=False)
path = os.environ["RAY_AUTH_TOKEN_PATH"]
assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
token = open(path, "rb").read()
assert len(token) == 64
assert not any(token in open(each, "rb").read() for each in glob.glob("/proc/[0-9]*/cmdline"))
assert ray.get(ray.remote(lambda: 1).remote()) == 1
print("nodes", len(ray.nodes()), "in", os.getcwd(), "with", sys.argv[1:])
sys.exit(3)
"""
pytestmark = pytest.mark.slow


@pytest.fixture
def allocation(tmp_path) -> Iterator[dict[str, str]]:
    """The environment of a job on one node."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", "#!/bin/bash\necho here\n")):
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    short = tempfile.mkdtemp(prefix="lola")  # sockets need short names
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SLURM_"))}
    yield kept | {
        "PATH": os.pathsep.join([str(commands), str(Path(sys.executable).parent), os.environ["PATH"]]),
        "HOME": str(tmp_path),
        "LOLA_STORAGE": str(tmp_path),
        "RAY_TMPDIR": short,
        "SLURM_CPUS_PER_TASK": "1",
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NODELIST": "here",
    }
    shutil.rmtree(short, ignore_errors=True)


def run(environment: dict[str, str], folder: Path, *command: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", str(SCRIPT), *command],
        env=environment,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )


@pytest.mark.long
def test_a_command_runs_on_a_cluster_of_its_own_that_ends_with_it(tmp_path, allocation):
    done = run(allocation, tmp_path, "python", "-c", COMMAND, "two words", "$HOME")
    assert f"nodes 1 in {tmp_path} with ['two words', '$HOME']" in done.stdout, done.stdout
    assert done.returncode == 3
    assert list((tmp_path / ".lola" / "ray-tokens").iterdir()) == []
    left = subprocess.run(["pgrep", "-f", allocation["RAY_TMPDIR"]], capture_output=True, text=True)
    assert left.stdout == ""


def test_a_job_without_command_or_storage_is_refused_before_anything_starts(tmp_path, allocation):
    assert run(allocation, tmp_path).returncode == 2
    del allocation["LOLA_STORAGE"]
    refused = run(allocation, tmp_path, "true")
    assert refused.returncode != 0
    assert "set LOLA_STORAGE to a folder that all nodes see" in refused.stdout
    assert not (tmp_path / ".lola").exists()
