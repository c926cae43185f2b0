"""The peak arithmetic rate of a device: published figures of GPUs, else a timed matrix product.

A training step of `F` counted operations that takes `s` seconds on `G` devices of peak `p` uses them to

    MFU = F / (s G p)

(model FLOP utilisation): operations that a step repeats, such as those of recomputed blocks, do not count.
"""

import contextlib
import os
import platform
import time
from collections.abc import Iterator

import torch

from lola.training.hardware import Hardware
from lola.training.precision import Precision

GPUS = {
    "h100": Hardware(),
    "h100-pcie": Hardware(bfloat16=756e12, float32=51e12, bandwidth=2e12),
    "h200": Hardware(memory=141e9, bandwidth=4.8e12),
    "a100-80gb": Hardware(bfloat16=312e12, float32=19.5e12, bandwidth=2.039e12),
    "a100-40gb": Hardware(bfloat16=312e12, float32=19.5e12, memory=40e9, bandwidth=1.555e12),
    "l40s": Hardware(bfloat16=362e12, float32=91.6e12, memory=48e9, bandwidth=864e9),
}
"""Published figures without sparsity, by kind."""


def gpu_kind(name: str) -> str | None:
    """The kind of a GPU by the name that it reports, such as `NVIDIA H100 80GB HBM3`; None if unknown."""
    kinds = [kind for kind in GPUS if all(part in name.lower() for part in kind.split("-"))]
    return max(kinds, key=len, default=None)  # the most specific one


def device_kind(device: torch.device) -> str:
    """The kind of a device, else its own name, else `cpu`."""
    if device.type != "cuda":
        return "cpu"
    name = torch.cuda.get_device_name(device)
    return gpu_kind(name) or name


def processor_name() -> str:
    """The name that this machine's processor reports, such as `AMD EPYC 7R13 Processor`."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def peak_flops(device: torch.device, precision: Precision) -> float:
    """Peak operations per second of a device: published figures, else those of a timed matrix product."""
    kind = device_kind(device)
    return GPUS[kind].peak_flops(precision) if kind in GPUS else matmul_rate(device, precision)


@torch.no_grad()
def matmul_rate(device: torch.device, precision: Precision, size: int = 1024, rounds: int = 3) -> float:
    """Operations per second of a large matrix product on this process' threads: the fastest of `rounds`."""
    a, b = torch.ones(2, size, size, device=device, dtype=getattr(torch, precision))
    seconds = []
    single = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.thread_time if single else time.perf_counter  # other processes do not count
    for _ in range(1 + rounds):
        started = clock()
        float(torch.mm(a, b)[0, 0])  # a number that arrives on the host: the product is done
        seconds.append(clock() - started)
    return 2 * size**3 / min(seconds[1:])


def emulates_bfloat16() -> bool:
    """Whether this machine's processor has no arithmetic in bfloat16: products then take far longer in it."""
    cpu = torch.device("cpu")
    with one_thread():
        return matmul_rate(cpu, "bfloat16", 128) < matmul_rate(cpu, "float32", 128) / 2


def processor(cores: int) -> Hardware:
    """This machine's processor as a device of `cores` cores: measured on one, and scaled linearly."""
    with one_thread():
        cpu = torch.device("cpu")
        rates = {name: cores * matmul_rate(cpu, name, size=512) for name in ("float32", "bfloat16")}
        source = torch.ones(2**24)
        source.clone()
        started = time.perf_counter()
        source.clone()
        bandwidth = 2 * source.nbytes / (time.perf_counter() - started)
    memory = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return Hardware(**rates, bandwidth=bandwidth, memory=memory)


def one_thread() -> contextlib.AbstractContextManager[None]:
    """A context in which torch computes on one thread of this process."""
    return threads(1)


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """A context in which torch computes on so many threads of this process."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
