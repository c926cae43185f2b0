r"""Timing that a busy machine does not spoil: variants take turns.

Round `r` times every variant once, forwards in even rounds and backwards in odd ones, so that whatever else
the machine does hits all of them alike. With `s_r` the seconds of a variant in round `r` and `s'_r` those
of another, the second is faster by

    ratio = median_r (s_r / s'_r)

Where others keep the machine busy, threads wait for each other more than they work; the clock `cpu` on one
thread still measures what a step costs, since it stands while others run.
"""

import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from benchmarks.configs import Clock

from lola.training.peak import processor_name


def interleave(
    steps: Mapping[str, Callable[[], object]], rounds: int, clock: Clock = "wall", at_least: float = 0.05
) -> dict[str, list[float]]:
    """Seconds per call of every variant in every round.

    Arguments:
        steps: The variants; each has been called before, so that nothing is compiled here.
        clock: Seconds that pass, or that this process computes.
        at_least: Seconds that a timing takes at least; short calls are repeated.
    """
    repeats = {}
    for name, step in steps.items():
        step()
        repeats[name] = max(1, math.ceil(at_least / _seconds(step, 1, clock)))
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(rounds):
        order = list(steps) if round_ % 2 == 0 else list(steps)[::-1]
        for name in order:
            seconds[name].append(_seconds(steps[name], repeats[name], clock))
    return seconds


def _seconds(step: Callable[[], object], repeats: int, clock: Clock) -> float:
    now = time.perf_counter if clock == "wall" else time.process_time
    _synchronize()
    started = now()
    for _ in range(repeats):
        step()
    _synchronize()
    return (now() - started) / repeats


def _synchronize() -> None:
    """Wait until a GPU, if this process uses one, has done what it was asked for."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """How many times faster the second variant is, by the median over rounds."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def describe_machine() -> dict[str, Any]:
    """What the timings depend on in addition to the code."""
    return {
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": platform.platform(),
    }
