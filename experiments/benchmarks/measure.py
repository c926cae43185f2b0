"""One benchmark, run by the module that its configuration names."""

import functools
import importlib
from pathlib import Path
from typing import Any

from benchmarks import configs

from lola.core.config import Config
from lola.core.waiting import loading

BENCHMARKS: dict[type, tuple[str, str, str]] = {
    configs.TrainingBenchmark: ("training", "run_training_benchmark", "training_table"),
    configs.EmulationBenchmark: ("emulation", "run_emulation_benchmark", "emulation_table"),
    configs.MetricsBenchmark: ("scoring", "run_metrics_benchmark", "metrics_table"),
    configs.SchedulingBenchmark: ("scheduling", "run_scheduling_benchmark", "scheduling_table"),
}
"""The module of each benchmark, the function that runs it, and the one that formats its result."""


def measure(config: Config, folder: Path) -> tuple[dict[str, Any], str]:
    """The result of a benchmark, as JSON values and as a table."""
    log = functools.partial(print, flush=True)
    if isinstance(config, configs.Benchmark) and config.threads:
        import torch  # here, since it takes seconds

        torch.set_num_threads(config.threads)
    if not isinstance(config, configs.DataBenchmark):
        name, run, table = BENCHMARKS[type(config)]
        with loading():
            module = importlib.import_module(f"benchmarks.{name}")
        return (result := getattr(module, run)(config, log)), getattr(module, table)(result)
    with loading():
        from benchmarks import memory, ray_data
        from benchmarks.data import data_table, run_data_benchmark
    if config.memory:
        result = memory.run_memory_benchmark(config, log)
        memory.write_memory(result, folder)
        return result, memory.memory_table(result)
    result = run_data_benchmark(config, log)
    if config.ray:
        sizes = (config.gigabytes, config.steps, config.cells, config.rounds)
        result["ray"] = ray_data.time_ray(config.system, *sizes, log)
    return result, data_table(result)
