"""The processes of a command, sampled from `/proc`, until the last of them has ended.

The command runs below this process, which adopts what its processes leave (Linux's child subreaper), so that
daemons and workers that outlive their parents are seen too. A process is distinguished from later ones of the
same number by when it began. What it used since its last sample is not seen before it ends; the kernel
adds up what all of them used, and the difference is reported.
"""

import contextlib
import ctypes
import dataclasses
import os
import resource
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from lola.core.config import require

INTERVAL_S = 0.2  # between samples
GRACE_S = 15.0  # how long processes may outlive the command, before they are terminated
TICKS = os.sysconf("SC_CLK_TCK") if sys.platform == "linux" else 100
PAGE = resource.getpagesize()
SET_CHILD_SUBREAPER = 36
GROWTH = 1.02  # of resident memory, since shared pages were last counted in proportion: that takes long


@dataclasses.dataclass
class Process:
    """A process as it was last seen: CPU seconds by the titles that it had, and its most resident bytes."""

    seconds: defaultdict[str, float] = dataclasses.field(default_factory=lambda: defaultdict(float))
    total: float = 0.0
    resident: int = 0
    title: str = ""


@dataclasses.dataclass
class Account:
    """What a command's processes used.

    Arguments:
        processes: By number and start, as in `/proc`.
        unseen: CPU seconds of processes between their last sample and their end.
        wall: Seconds until the last of them ended.
        code: The command's exit code.
        resident, proportional: The most bytes at one time, resident in all of them and with shared pages
            divided among those that share them.
        most: The most processes at one time.
        timeline: Unix time, CPU seconds of the processes so far, and seconds that the machine's cores worked.
    """

    processes: dict[str, Process] = dataclasses.field(default_factory=dict)
    unseen: float = 0.0
    wall: float = 0.0
    code: int = 0
    resident: int = 0
    proportional: int = 0
    most: int = 0
    timeline: list[tuple[float, float, float]] = dataclasses.field(default_factory=list)

    @property
    def seconds(self) -> float:
        return sum(process.total for process in self.processes.values()) + self.unseen


def account(command: Sequence[str], environment: dict[str, str]) -> Account:
    """Run a command to its end, and that of all processes that it started; a signal to stop ends them.

    Whatever runs below this process counts as the command's, and is ended with it: start nothing else here.

    Raises:
        ConfigError: The system is not Linux.
    """
    require(sys.platform == "linux", f"processes are read from /proc, which {sys.platform} does not have")
    require(
        ctypes.CDLL(None, use_errno=True).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0,
        "this kernel does not let a process adopt others (prctl)",
    )
    found = Account()
    before, started = _children_seconds(), time.monotonic()
    process = subprocess.Popen(command, env=environment)
    ended: float | None = None

    def stop(*_: object) -> None:
        nonlocal ended
        ended = time.monotonic() - GRACE_S

    handlers = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    while running := list(below(os.getpid())):
        sample(found, running)
        _reap(process)
        if ended is None and process.returncode is not None:
            ended = time.monotonic()
        if ended is not None and (late := time.monotonic() - ended) > GRACE_S:
            for pid in running:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM if late < 2 * GRACE_S else signal.SIGKILL)
        time.sleep(INTERVAL_S)
    for number, handler in handlers.items():
        signal.signal(number, handler)
    found.wall = time.monotonic() - started
    _reap(process)
    found.code = process.wait()
    seen = sum(each.total for each in found.processes.values())
    found.unseen = max(0.0, _children_seconds() - before - seen)
    return found


def sample(found: Account, pids: Sequence[int]) -> None:
    """Add what processes have used since they were last sampled."""
    resident = 0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError, IndexError):  # it has ended
            values = _stat(pid)
            key = f"{pid}-{values[19]}"
            process = found.processes.setdefault(key, Process())
            total = (int(values[11]) + int(values[12])) / TICKS
            process.title = title(pid) or process.title
            process.seconds[process.title] += total - process.total
            process.total = total
            process.resident = max(process.resident, int(values[21]) * PAGE)
            resident += int(values[21]) * PAGE
    if resident > GROWTH * found.resident:
        found.proportional = max(found.proportional, sum(map(_proportional, pids)))
    found.resident, found.most = max(found.resident, resident), max(found.most, len(pids))
    seen = sum(process.total for process in found.processes.values())
    found.timeline.append((time.time(), seen, _machine_seconds()))


def below(pid: int) -> Iterator[int]:
    """The processes that descend from one and run."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                state, parent, *_ = _stat(int(entry))
                if state != "Z":
                    children.setdefault(int(parent), []).append(int(entry))
    waiting = [pid]
    while waiting:
        yield from (own := children.get(waiting.pop(), []))
        waiting += own


def title(pid: int) -> str:
    """What a process calls itself: its command, or what Ray's workers put in its place."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
    return words.strip()


def _stat(pid: int) -> list[str]:
    """The fields of `/proc/PID/stat` that follow the name, the first being the state."""
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()


def _proportional(pid: int) -> int:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup") as lines:
        return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return 0


def _machine_seconds() -> float:
    """Seconds that the machine's cores have worked, whatever for."""
    with open("/proc/stat") as lines:
        user, nice, system, _idle, _waiting, irq, softirq, *_ = map(int, lines.readline().split()[1:])
    return (user + nice + system + irq + softirq) / TICKS


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _reap(command: "subprocess.Popen[bytes]") -> None:
    """Take note of this process's children, adopted ones too, that have ended."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == command.pid:
                command.returncode = os.waitstatus_to_exitcode(ended[1])
