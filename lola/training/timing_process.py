"""Processes that time the steps of a training (`lola.training.throughput`), as its workers will run.

They have the threads of a worker and leave no memory occupied on a GPU. Several trainings that will run at
once on one machine are timed at once: they share its memory and its clock rate. All processes warm up, say
so, and start when the last one has. A worker of one thread on a CPU counts the seconds that it computes, so
that others on a busy machine do not make one model look slower than the next.

The module is also their program: standard input has a request and then a line to start, standard output takes
a line when it is warm and then the seconds, as JSON.
"""

import contextlib
import dataclasses
import json
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from lola.core.errors import LolaError
from lola.core.seeding import seed_process
from lola.training.config import TrainingConfig
from lola.training.throughput import Throughput, measure


@dataclasses.dataclass(frozen=True)
class Request:
    """A training to time.

    Arguments:
        model: The model's configuration and `sizes` the arguments of its `build`.
        states: The shape `(C, L, *grid)` of a sample.
        parameters: The length `P` of a sample's parameters.
    """

    model: Any
    sizes: dict[str, int]
    training: TrainingConfig
    states: tuple[int, ...]
    parameters: int


def measure_throughput(request: Request, *, threads: int, copies: int = 1) -> Throughput:
    """Time a training in processes of its own; the means over them.

    Arguments:
        threads: Those of each worker.
        copies: How many such trainings run at once.

    Raises:
        LolaError: A process ended early, for example since the model does not fit the memory.
    """
    world = request.training.most_workers
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(_process(request, f"{folder}/{copy}", copy * world + rank, rank, threads))
            for copy in range(copies)
            for rank in range(world)
        ]
        for process in processes:
            _answer(process)
        for process in processes:
            _send(process, b"start\n")
        found = [Throughput(**json.loads(_answer(process))) for process in processes]
    return Throughput(
        **{
            field.name: statistics.fmean(getattr(each, field.name) for each in found)
            for field in dataclasses.fields(Throughput)
        }
    )


@contextlib.contextmanager
def _process(
    request: Request, meeting: str, number: int, rank: int, threads: int
) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that times one worker of a training, which finds the others by the file `meeting`."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    with tempfile.TemporaryFile() as stderr:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", __spec__.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=environment,
        )
        process.errors = stderr  # type: ignore[attr-defined]
        try:
            _send(process, pickle.dumps((request, meeting, number, rank)))
            yield process
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):  # what could not be written
                    assert pipe is not None
                    pipe.close()


def _send(process: "subprocess.Popen[bytes]", message: bytes) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # its answer will be missing
        process.stdin.write(message)
        process.stdin.flush()


def _answer(process: "subprocess.Popen[bytes]") -> bytes:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        code = process.wait()
        process.errors.seek(0)  # type: ignore[attr-defined]
        lines = process.errors.read().decode(errors="replace").strip().splitlines()  # type: ignore[attr-defined]
        raise LolaError(f"timing its steps ended with code {code}: {lines[-1] if lines else 'no message'}")
    return line


def gpu_names() -> list[str]:
    """The names of this machine's GPUs, asked for in a process, since asking takes memory on them."""
    program = (
        "import torch; print(*map(torch.cuda.get_device_name, range(torch.cuda.device_count())), sep='\\n')"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    return found.stdout.split("\n")[:-1] if found.returncode == 0 and found.stdout.strip() else []


def _main() -> None:
    """Time one worker of a training. What libraries print goes to the errors' stream."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    request, meeting, number, rank = pickle.load(sys.stdin.buffer)  # of the parent
    training, world = request.training, request.training.most_workers
    on_gpu = training.gpus > 0
    device = torch.device("cuda", number % torch.cuda.device_count()) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    if world > 1:
        backend = "nccl" if on_gpu else "gloo"
        torch.distributed.init_process_group(
            backend, init_method=f"file://{meeting}", rank=rank, world_size=world
        )

    def distribute(module: nn.Module) -> nn.Module:
        return nn.parallel.DistributedDataParallel(module, device_ids=[device] if on_gpu else None)

    def wait_for_start() -> None:
        print(flush=True, file=answers)
        sys.stdin.buffer.readline()

    seed_process(training.seed, "weights")
    found = measure(
        request.model.build(**request.sizes).to(device),
        training,
        request.states,
        request.parameters,
        device=device,
        rank=rank,
        world=world,
        wrap=distribute if world > 1 else None,
        start=wait_for_start,
        clock=time.perf_counter if on_gpu or torch.get_num_threads() > 1 else time.process_time,
    )
    print(json.dumps(dataclasses.asdict(found)), flush=True, file=answers)


if __name__ == "__main__":
    _main()
