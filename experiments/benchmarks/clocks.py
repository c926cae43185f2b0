"""CPU seconds of this process by purpose: time inside chosen functions, and inside imports.

A copy of this file, named `sitecustomize.py` and put on `PYTHONPATH`, is imported by every Python process
that is started, and keeps its clocks in a file of the folder that `LOLA_CLOCKS` names. The file is mapped
into memory, so that a process that is killed leaves what it has counted.

A clock counts the CPU seconds of the threads that are inside its functions. Where one function calls another
that has a clock of its own, or imports, only the inner one counts.
"""

import functools
import importlib
import mmap
import os
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

VARIABLE = "LOLA_CLOCKS"
IMPORTS = "imports"
FUNCTIONS: dict[str, tuple[str, ...]] = {
    "simulation": ("lola.simulate.simulation:write_file",),
    "training steps": (
        "lola.training.loop:train",
        "lola.training.stream:BatchStream._assemble",
        "lola.training.stream:_StateBuffers._fill",
    ),
    "encoding": (
        "lola.distributed.jobs.encode:encode",
        "lola.emulation.encoding:BlockEncoder.prepare",
        "lola.emulation.encoding:BlockEncoder.encode",
    ),
    "emulation and scoring": (
        "lola.distributed.jobs.evaluate:run_evaluation",
        "lola.distributed.jobs.evaluate:_load",
        "lola.evaluation.trajectory:evaluate_trajectory",
    ),
    "report": ("lola.workflows.sweep_report:report_sweep",),
    "MLflow": (
        "lola.storage.tracking.tracker:Tracker.__init__",
        "lola.storage.tracking.tracker:Tracker.start_sweep",
        "lola.storage.tracking.tracker:Tracker.follow",
        "lola.storage.tracking.tracker:Tracker.consume",
        "lola.storage.tracking.tracker:Tracker.finish_sweep",
    ),
}
"""The functions of each purpose, as `module:name`."""
CLOCKS = (*FUNCTIONS, IMPORTS)
ENTRY = struct.Struct("<ddd")
"""Of each clock: CPU seconds, and the Unix times when it first started and last stopped."""


class Clocks:
    """The clocks of this process, in a mapped file.

    Arguments:
        folder: Where the file is, named by the process's number and when it began, as in `/proc`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = threading.Lock()
        self.open()
        os.register_at_fork(after_in_child=self.open)

    def open(self) -> None:
        """Begin at zero, as a forked process does too."""
        self.local = threading.local()
        size = ENTRY.size * len(CLOCKS)
        began = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
        with (self.folder / f"{os.getpid()}-{began}").open("wb+") as file:
            file.truncate(size)
            self.memory = mmap.mmap(file.fileno(), size)

    def call(self, clock: int, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Call a function while a clock runs, and the one that ran in this thread before stands still."""
        stack = self.local.__dict__.setdefault("stack", [])
        now = time.thread_time()
        if stack:
            outer, since, started = stack[-1]
            self.add(outer, now - since, started)
        frame = [clock, now, time.time()]
        stack.append(frame)
        try:
            return function(*args, **kwargs)
        finally:
            now = time.thread_time()
            if stack and stack[-1] is frame:  # else this is a child that was forked meanwhile
                stack.pop()
                self.add(clock, now - frame[1], frame[2])
                if stack:
                    stack[-1][1] = now

    def add(self, clock: int, seconds: float, started: float) -> None:
        with self.lock:
            total, first, _ = ENTRY.unpack_from(self.memory, clock * ENTRY.size)
            first = first or started
            ENTRY.pack_into(self.memory, clock * ENTRY.size, total + seconds, first, time.time())

    def watch(self, module: ModuleType, name: str, clock: int) -> None:
        """Let a function or method of a module count for a clock."""
        *owners, last = name.split(".")
        owner: Any = functools.reduce(getattr, owners, module)
        function = getattr(owner, last)

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            return self.call(clock, function, args, kwargs)

        setattr(owner, last, timed)


def start(folder: Path) -> None:
    """Count imports from here on, and calls of `FUNCTIONS` once their modules are imported."""
    clocks = Clocks(folder)
    watched: dict[str, list[tuple[str, int]]] = {}
    for clock, names in enumerate(FUNCTIONS.values()):
        for module, name in (each.split(":") for each in names):
            watched.setdefault(module, []).append((name, clock))
    bootstrap: Any = importlib._bootstrap  # type: ignore[attr-defined]
    find_and_load = bootstrap._find_and_load

    def timed(name: str, *args: Any) -> Any:
        module = clocks.call(CLOCKS.index(IMPORTS), find_and_load, (name, *args), {})
        if name in watched and not getattr(module.__spec__, "_initializing", False):
            for function, clock in watched.pop(name, ()):
                clocks.watch(module, function, clock)
        return module

    bootstrap._find_and_load = timed


def read(path: Path) -> dict[str, tuple[float, float, float]]:
    """CPU seconds and Unix times of the clocks of a process that ran at all, from its file."""
    content = path.read_bytes()
    entries = dict(zip(CLOCKS, ENTRY.iter_unpack(content), strict=False))
    return {name: entry for name, entry in entries.items() if entry[2]}


if __name__ == "sitecustomize" and os.environ.get(VARIABLE) and sys.platform == "linux":
    start(Path(os.environ[VARIABLE]))
