"""Processes and what they started, as Linux tells of them."""

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path


def below(pid: int) -> Iterator[int]:
    """The processes that descend from one."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == pid:
            yield int(entry.name)
            yield from below(int(entry.name))


def name_of(pid: int) -> str:
    """The name of a process's program, empty if it has ended, though its parent may not know yet."""
    try:
        before, _, after = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
    except OSError:
        return ""
    return "" if after.split()[0] == "Z" else before.partition("(")[2]


def end(pids: Iterable[int], seconds: float = 10) -> None:
    """Wait for processes to end, and kill those that do not."""
    left, deadline = set(pids), time.monotonic() + seconds
    while (left := {pid for pid in left if Path(f"/proc/{pid}").exists()}) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
