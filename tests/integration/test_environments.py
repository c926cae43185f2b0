"""Whole processes in the environments of users: odd names, consoles, homes, disks, umasks, users."""

import os
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import sqlalchemy
from waves import write_dataset

ROOT = Path(__file__).parents[2]
SMALL_RUN = ROOT / "tests" / "support" / "small_run.py"
ODD = "a [red] [/x] 50%20 %s::b ~u ünï-日本"
GROUP, ALICE, BOB, CAROL = 54320, 54321, 54322, 54323  # users that the machine does not know
KEPT = ("PATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "COVERAGE_PROCESS_START")
CONNECT = """
import numpy as np, ray
from lola.distributed.cluster.connection import connect
connect()
task = ray.remote(lambda: np.ones(4_000_000))
print("sum", ray.get(task.remote()).sum())
"""


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that all users may enter, with a dataset; the tests' own are closed to others."""
    with tempfile.TemporaryDirectory(prefix="lola-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        write_dataset(folder / "well")
        yield folder


def process(
    *arguments: str | Path,
    options: tuple[str, ...] = (),
    before: tuple[str, ...] = (),
    seconds: float = 400,
    umask: int = -1,
    **variables: str,
) -> subprocess.CompletedProcess:
    """Run Python with nothing in its environment but what it needs, and some variables."""
    paths = (ROOT, ROOT / "tests", ROOT / "tests" / "support")
    environment = {name: os.environ[name] for name in KEPT if name in os.environ}
    environment |= {"PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*before, sys.executable, *options, *map(str, arguments)],
        env=environment | variables,
        cwd="/",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=seconds,
        umask=umask,
    )


def small_run(place: Path, root: Path, *more: str, **how) -> str:
    """What a small run prints, which must end well."""
    ended = process(SMALL_RUN, "--well", place / "well", "--storage", root, *more, **how)
    assert ended.returncode == 0, ended.stdout[-6000:]
    assert "Traceback" not in ended.stdout
    assert ended.stdout.splitlines()[-1].endswith("nothing is missing")
    return ended.stdout


def require_whole(root: Path, stages: int = 4) -> None:
    """Check that MLflow has all runs of a small run, and that its evaluation has its rows."""
    uri = sqlalchemy.URL.create("sqlite", database=str(root / "mlflow" / "mlflow.db"))
    engine = sqlalchemy.create_engine(uri)
    with engine.connect() as connection:
        status = connection.execute(sqlalchemy.text("SELECT status FROM runs")).scalars().all()
    engine.dispose()
    assert status == ["FINISHED"] * (stages + 1)
    (metrics,) = root.glob("evaluations/*/metrics.parquet")
    assert pq.read_metadata(metrics).num_rows > 0
    assert not list(root.rglob("*.part*"))


def in_namespace(script: str) -> tuple[str, ...]:
    """What runs a command with mounts of its own, after a shell's script; skips where that is not allowed."""
    if not shutil.which("unshare"):
        pytest.skip("unshare is not installed: no mounts of one process")
    before = ("unshare", "--mount", "sh", "-c", f'{script} && exec "$@"', "sh")
    probe = subprocess.run([*before, "true"], capture_output=True, text=True)
    if probe.returncode:
        pytest.skip(f"mounts are not permitted here: {probe.stderr.strip()}")
    return before


def as_user(place: Path, number: int, group: int = GROUP) -> tuple[str, ...]:
    """What runs a command as a user without a name, who can read this Python; skips where not allowed."""
    base, partial = shlex.quote(sys.base_prefix), place / "python"
    script = "umask 002"
    if closed := [each for each in Path(base).parents if not each.stat().st_mode & stat.S_IXOTH]:
        partial.mkdir(exist_ok=True)
        opened = f"mount --bind {base} {partial} && mount -t tmpfs -o mode=755 tmpfs {closed[-1]}"
        script = f"{opened} && mkdir -p {base} && mount --bind {partial} {base} && {script}"
    identity = ("setpriv", f"--reuid={number}", f"--regid={group}", "--clear-groups")
    before = in_namespace(script) + identity
    probe = process("-c", "import lola.core.errors", before=before)
    if probe.returncode:
        pytest.skip(f"other users cannot run this Python: {probe.stdout.strip()}")
    return before


@pytest.mark.slow
def test_an_odd_root_on_an_ascii_console_under_a_strict_umask_without_assertions(place):
    root = place / ODD
    output = small_run(
        place,
        root,
        options=("-O",),
        umask=0o077,
        LC_ALL="C",
        PYTHONIOENCODING="ascii",
        HOME=str(place / "home"),
        TMPDIR=str(long_folder(place)),
    )
    shown = str(root).encode("ascii", "backslashreplace").decode()
    assert f"neural_solver-f8c16: {shown}/evaluations/" in output
    require_whole(root)
    for path in root.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def long_folder(place: Path) -> Path:
    """A folder for temporary files whose name is longer than a socket's may be."""
    folder = place / ("long" * 30)
    folder.mkdir(exist_ok=True)
    return folder


@pytest.mark.slow
@pytest.mark.long
def test_users_of_a_group_share_a_root_without_homes_or_gpus(place):
    """One trains the autoencoder; another uses it, and goes on; one of no group is refused in a line."""
    alice, bob, carol = as_user(place, ALICE), as_user(place, BOB), as_user(place, CAROL, CAROL)
    root = place / "shared"
    root.mkdir()
    os.chown(root, 0, GROUP)
    root.chmod(0o2775)
    small_run(place, root, "--only", "autoencoders", before=alice)
    output = small_run(place, root, before=bob, HOME="/", CUDA_VISIBLE_DEVICES="")
    assert "autoencoder-f8c16  running" not in output
    require_whole(root)
    owners = {path.stat().st_uid for path in root.rglob("*")}
    assert owners == {ALICE, BOB}
    for path in root.rglob("*"):
        assert path.stat().st_gid == GROUP, path
        assert stat.S_IMODE(path.stat().st_mode) & 0o060 == 0o060, path
    refused = process(ROOT / "experiments" / "sync_mlflow.py", "--storage", root, before=carol)
    assert refused.returncode == 1
    line = refused.stdout.strip().splitlines()[-1]
    assert f"error: storage: cannot use {root} (Permission denied); give another --storage" in line
    assert "Traceback" not in refused.stdout


@pytest.mark.slow
def test_a_disk_that_is_full_before_every_stage_ends_each_in_a_line_and_loses_nothing(place):
    root = place / "full"
    root.mkdir()
    before = in_namespace(f"mount -t tmpfs -o size=16m tmpfs {root}")
    output = small_run(place, root, "--fill", before=before, HOME=str(place))
    refused = [line for line in output.splitlines() if "  refused: " in line]
    assert len(refused) >= 6  # MLflow's database, each stage's record, weights and tables
    # Whether a poll meets the full disk before the end does is a matter of time
    missing = "of 5 runs (SQLite: database or disk is full); send the rest with: python experiments/sync"
    assert missing in output
    assert "MLflow has everything" in output


@pytest.mark.slow
@pytest.mark.long
def test_ray_starts_in_small_shared_memory_without_a_home_with_long_temporary_folders(place):
    before = in_namespace("mount -t tmpfs -o size=64m tmpfs /dev/shm")
    folder = str(long_folder(place))
    ended = process("-c", CONNECT, before=before, HOME="/dev/null/home", TMPDIR=folder)
    assert ended.returncode == 0, ended.stdout[-4000:]
    assert "sum 4000000.0" in ended.stdout
    assert f"TMPDIR {folder} is {len(folder)} bytes long" in ended.stdout
    assert "home folder /dev/null/home is not writable (Not a directory)" in ended.stdout


SINGLE = {
    "home unset": {},
    "home of root": {"HOME": "/"},
    "home not writable": {"HOME": "/dev/null/home"},
    "long TMPDIR": {"TMPDIR": "long"},
    "long RAY_TMPDIR": {"RAY_TMPDIR": "long"},
    "ASCII": {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"},
    "no devices": {"CUDA_VISIBLE_DEVICES": ""},
}


@pytest.mark.long
@pytest.mark.parametrize("name", SINGLE)
def test_each_by_itself(place, name):
    root = place / name / ODD
    variables = {
        key: str(long_folder(place)) if each == "long" else each for key, each in SINGLE[name].items()
    }
    small_run(place, root, **variables)
    require_whole(root)


@pytest.mark.long
def test_a_small_run_without_shared_memory(place):
    small_run(place, place / "memory", before=in_namespace("mount -t tmpfs -o size=64m tmpfs /dev/shm"))
    require_whole(place / "memory")


@pytest.mark.long
def test_programs_load_without_assertions(place):
    for program in ("sweep_compression.py", "emulate.py", "guide.py", "plan.py"):
        ended = process(ROOT / "experiments" / program, "--help", options=("-O",), HOME=str(place))
        assert ended.returncode == 0, ended.stdout
        assert "--storage" in ended.stdout
