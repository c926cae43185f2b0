"""A sweep whose processes are killed at random, again and again, against one that is left alone.

A job is a driver and all that descends from it: Ray's own processes, actors, workers. At random moments one
of them, any, is killed with SIGKILL; a driver that ends is started again, with the same command. Where a
sweep ends before all kills are done, its results are compared, and another begins from nothing.
"""

import contextlib
import dataclasses
import math
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
from benchmarks.configs import SoakConfig

from lola.core.config import require
from lola.core.errors import LolaError
from lola.storage.inventory import unknown_files

MAX_FAILURES = 3  # how often a driver may fail after the last kill
LIMIT = 1800.0  # seconds after which an undisturbed sweep is taken to hang


@dataclasses.dataclass
class SweepProcess:
    """A sweep on one storage root, started as often as it takes.

    Arguments:
        command: The sweep.
        root: The folder of its storage root, its log and Ray's files.
    """

    command: list[str]
    root: Path
    starts: int = 0

    @property
    def storage(self) -> Path:
        return self.root / "storage"

    def start(self) -> None:
        """Start the driver, on a Ray cluster of its own."""
        environment = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS",)}
        environment |= {"LOLA_STORAGE": str(self.storage), "RAY_TMPDIR": str(self.root / "ray")}
        environment.pop("MLFLOW_TRACKING_URI", None)
        for name in ("storage", "ray"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        with (self.root / "log.txt").open("a") as log:
            self.process = subprocess.Popen(
                self.command, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        self.starts += 1

    def ended(self) -> bool:
        return self.process.poll() is not None

    def watch(self, seconds: float) -> dict[int, str]:
        """Wait, at most until the driver ends; returns the processes that the job had last."""
        deadline = time.monotonic() + seconds
        members: dict[int, str] = {}
        while not self.ended() and time.monotonic() < deadline:
            members = {self.process.pid: "driver"} | {pid: _what(pid) for pid in _below(self.process.pid)}
            time.sleep(0.2)
        return members

    def clear(self, members: dict[int, str]) -> None:
        """Wait until what a driver left running has ended, and kill what is still running."""
        deadline = time.monotonic() + 30
        while (left := [pid for pid in members if _alive(pid)]) and time.monotonic() < deadline:
            time.sleep(0.2)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def checked(self) -> Path:
        """The storage root of a job that ended well, with nothing in it that belongs to nothing.

        Raises:
            LolaError: The driver did not end well, or files are left over.
        """
        if self.process.poll() != 0:
            raise LolaError(f"the sweep did not end well; see {self.root}/log.txt")
        left = unknown_files(self.storage)
        if left:
            raise LolaError(f"{len(left)} files of {self.storage} belong to nothing, such as {left[0]}")
        return self.storage


def soak(config: SoakConfig, command: list[str], log: Callable[[str], None]) -> dict[str, object]:
    """Disturb a sweep, and compare what comes of it with one that is left alone; returns a summary.

    Arguments:
        command: The sweep.

    Raises:
        LolaError: The tables differ, files are left over, or an undisturbed sweep fails or hangs.
    """
    folder = Path(config.folder).resolve()
    require(not folder.exists(), f"{folder} exists already; name a new folder")
    started, draw = time.monotonic(), random.Random(config.seed)
    alone = SweepProcess(command, folder / "a")
    alone.start()
    alone.clear(alone.watch(LIMIT))
    expected = tables(alone.checked())
    log(f"a sweep that is left alone: {len(expected)} values")
    killed: list[str] = []
    largest, sweeps, restarts, failures = 0.0, 0, 0, 0
    job = SweepProcess(command, folder / "b")
    job.start()
    while True:
        over = len(killed) >= config.kills
        members = job.watch(LIMIT if over else draw.uniform(*config.between))
        if not job.ended():
            if over:
                raise LolaError(f"the sweep hangs; see {job.root}/log.txt")
            killed.append(kill_one(members, draw))
            log(f"{time.monotonic() - started:.0f} s: killed {killed[-1]}, {len(killed)} of {config.kills}")
            continue
        job.clear(members)
        if job.process.returncode == 0:
            largest = max(largest, largest_difference(expected, tables(job.checked()), config.tolerance))
            sweeps += 1
            log(f"a disturbed sweep ended with the same tables after {job.starts} starts")
            if over:
                break
            shutil.rmtree(job.root)
            job = SweepProcess(command, folder / "b")
        else:
            restarts, failures = restarts + 1, failures + over
            if failures > MAX_FAILURES:
                raise LolaError(f"the sweep fails undisturbed; see {job.root}/log.txt")
        job.start()
    return {
        "kills": dict(Counter(killed)),
        "sweeps": sweeps,
        "restarts": restarts,
        "values": len(expected),
        "largest relative difference": largest,
        "unknown files": 0,
        "seconds": round(time.monotonic() - started),
    }


def kill_one(members: dict[int, str], draw: random.Random) -> str:
    """Kill one of some processes, of a sort drawn first, since there are few drivers; returns what it was."""
    alive = [pid for pid in sorted(members) if _alive(pid)]
    sort = draw.choice(sorted({sort_of(members[pid]) for pid in alive}))
    pid = draw.choice([pid for pid in alive if sort_of(members[pid]) == sort])
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return members[pid]


def sort_of(what: str) -> str:
    """The sort of process of a name: driver, raylet, worker (of an actor or task), or service."""
    if what in ("driver", "raylet"):
        return what
    return "worker" if what.startswith("ray::") and not what.endswith("Agent") else "service"


def tables(storage: Path) -> dict[tuple, float]:
    """All values of a sweep's report, by everything that names them."""
    values = {}
    for name in ("metrics", "spectra"):
        (path,) = storage.glob(f"reports/*/{name}.parquet")
        table = pq.read_table(path)
        column = "value" if name == "metrics" else "values"
        keys = table.drop_columns([column]).to_pylist()
        for key, value in zip(keys, table[column].to_pylist(), strict=True):
            for i, each in enumerate([value] if name == "metrics" else value):
                values[name, *key.values(), i] = each
    return values


def largest_difference(expected: dict[tuple, float], found: dict[tuple, float], tolerance: float) -> float:
    """The largest relative difference between tables.

    Raises:
        LolaError: It is more than the tolerance, or the tables hold other rows.
    """
    if found.keys() != expected.keys():
        raise LolaError("the tables have other rows than those of the sweep that was left alone")
    largest = 0.0
    for key, value in expected.items():
        if math.isnan(value) and math.isnan(found[key]):
            continue
        difference = abs(found[key] - value) / max(abs(value), 1e-6)
        if not difference <= tolerance:
            raise LolaError(f"{key}: {found[key]} is not {value}, that of the sweep that was left alone")
        largest = max(largest, difference)
    return largest


def _below(pid: int) -> Iterator[int]:
    """The processes that descend from one."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            parents.setdefault(parent, []).append(int(entry.name))
    waiting = [pid]
    while waiting:
        children = parents.get(waiting.pop(), [])
        yield from children
        waiting += children


def _what(pid: int) -> str:
    """What a process of a job is, by its command."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return "gone"
    if words[0].startswith("ray::"):
        return words[0]
    programs = [word for word in words if word.endswith(".py")]
    return Path((programs or words)[0].split(" ")[0]).name


def _alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
