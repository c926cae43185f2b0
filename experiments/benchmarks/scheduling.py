"""How fast a sweep's trials are scheduled, and what memory its driver takes, on resources that do not exist.

Every trial takes as many GPUs and CPUs as the paper's trainings, of a cluster that only claims to have
them, and makes an empty stage: what is timed is Ray Tune, the queue, leases and manifests.
"""

import dataclasses
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from benchmarks.configs import SchedulingBenchmark

from lola.core.config import Config
from lola.core.errors import LolaError
from lola.core.waiting import reminding
from lola.distributed.cluster.connection import EMBEDDED_SETTINGS, SETTINGS
from lola.distributed.runner.tune import run_trials
from lola.distributed.trials import Step, Trial
from lola.storage.stages import Stage

MEGABYTE = 2**20
REPORT_INTERVAL_S = 30.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Nothing(Config):
    """A stage that holds nothing, one of many."""

    number: int


def run_scheduling_benchmark(config: SchedulingBenchmark, progress: Callable[[str], None]) -> dict[str, Any]:
    """Run a sweep of empty trials; returns trials per second and megabytes of the driver."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(SETTINGS | EMBEDDED_SETTINGS | {"RAY_TMPDIR": folder})
        ray.init(
            address="local",
            num_cpus=192 * config.nodes,
            num_gpus=8 * config.nodes,
            log_to_driver=False,
            _system_config={"prestart_worker_first_driver": False},  # not one process for each CPU
        )
        trials = [_trial(Path(folder), number) for number in range(config.trials)]
        before, started = _megabytes(), time.perf_counter()

        def describe() -> str:
            return f"{sum(trial.finished for trial in trials)} trials are finished, {_megabytes():.0f} MB"

        with reminding(describe, progress, REPORT_INTERVAL_S, REPORT_INTERVAL_S):
            failed = run_trials(trials, Path(folder) / "tune")
        seconds, after = time.perf_counter() - started, _megabytes()
        ray.shutdown()
    if failed:
        raise LolaError(
            f"{len(failed)} of {config.trials} empty trials failed: {next(iter(failed.values()))}"
        )
    return {
        "kind": "scheduling",
        "trials": config.trials,
        "trials at once": config.nodes,
        "seconds": seconds,
        "trials per second": config.trials / seconds,
        "driver, megabytes": after,
        "before, megabytes": before,
    }


def scheduling_table(result: dict[str, Any]) -> str:
    rows = [f"| {name} | {value:.4g} |" for name, value in result.items() if name != "kind"]
    return "\n".join(["| scheduling | |", "| --- | --- |", *rows])


def _trial(root: Path, number: int) -> Trial:
    stage = Stage(
        root=root, kind="emulators", system="euler", what="nothing", config=Nothing(number=number), inputs={}
    )
    return Trial(f"trial {number}", (Step(stage, stage.commit, {}, 1, register=False),), cpus=32, gpus=8)


def _megabytes() -> float:
    """The most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MEGABYTE
