"""Solvers in processes of their own, fed with initial states and asked for solutions through pipes.

Some solvers do not get on with their hosts: Dedalus starts MPI, sets up logging for its whole process and
wants one thread; JAX must not share a process with torch. Each is a module that runs as a program of its own:
it is started once per file, so that what it compiles is used again, and exits with its parent.

A message is the length of what follows, as 8 bytes, and an array in NumPy's format. An empty array is the
answer where a solution stopped being physical. Both sides import this module, which does not import torch.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np

from lola.core.errors import LolaError

Settings = Mapping[str, Any]
Solver = Callable[[np.ndarray], np.ndarray | None]

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}
"""One thread each: a task has one CPU, and sums keep their order."""


@contextlib.contextmanager
def solver_process(module: str, settings: Settings) -> Iterator[Solver]:
    """Start a solver; what is yielded maps an initial state to its solution, or to None.

    Arguments:
        module: The module of the solver, which calls `serve`.
        settings: Passed to the solver at its start, as JSON values.

    Raises:
        LolaError: The process ended before its answer.
    """
    command = [sys.executable, "-P", "-m", module, json.dumps(settings)]
    with tempfile.TemporaryFile() as stderr:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env={**os.environ, **ENVIRONMENT, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        assert process.stdin is not None
        assert process.stdout is not None
        requests, answers = process.stdin, process.stdout

        def solve(initial: np.ndarray) -> np.ndarray | None:
            try:
                send(requests, initial)
                solution = receive(answers)
            except (EOFError, BrokenPipeError):
                code = process.wait()
                stderr.seek(0)
                lines = stderr.read().decode(errors="replace").strip().splitlines() or ["no message"]
                raise LolaError(f"{module} ended with code {code}: {lines[-1]}") from None
            return solution if solution.size else None

        try:
            yield solve
        finally:
            # An idle solver would exit at the end of its input; one at work after an error need not finish.
            process.kill()
            process.wait()
            answers.close()
            with contextlib.suppress(BrokenPipeError):
                requests.close()


def serve(build: Callable[[Settings], Solver]) -> None:
    """Run as a solver process: read its settings, then solve initial states until there are no more.

    What the solver prints goes to the errors' stream.
    """
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    threading.Thread(target=_exit_with_parent, args=(os.getppid(),), daemon=True).start()
    solve = build(json.loads(sys.argv[1]))
    with contextlib.suppress(EOFError):
        while True:
            solution = solve(receive(sys.stdin.buffer))
            send(answers, np.empty(0) if solution is None else solution)


def _exit_with_parent(parent: int) -> None:
    """Exit soon after the parent process has ended."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def send(stream: BinaryIO | Any, array: np.ndarray) -> None:
    """Write an array as a message."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    content = buffer.getbuffer()
    stream.write(len(content).to_bytes(8, "big"))
    stream.write(content)
    stream.flush()


def receive(stream: BinaryIO | Any) -> np.ndarray:
    """Read a message; `EOFError` if there are no more."""
    size = stream.read(8)
    if len(size) < 8:
        raise EOFError
    content = stream.read(int.from_bytes(size, "big"))
    return np.load(io.BytesIO(content), allow_pickle=False)
