"""One benchmark, run by the module that its configuration names."""

import functools
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import configs

from lola.core.config import Config
from lola.core.filesystem import expand
from lola.core.waiting import loading
from lola.storage.remote import require_new

BENCHMARKS: dict[type, tuple[str, str, str]] = {
    configs.TrainingBenchmark: ("training", "run_training_benchmark", "training_table"),
    configs.EmulationBenchmark: ("emulation", "run_emulation_benchmark", "emulation_table"),
    configs.ReadingBenchmark: ("reading", "run_reading_benchmark", "reading_table"),
    configs.MetricsBenchmark: ("scoring", "run_metrics_benchmark", "metrics_table"),
    configs.SchedulingBenchmark: ("scheduling", "run_scheduling_benchmark", "scheduling_table"),
}
"""The module of each benchmark, the function that runs it, and the one that formats its result."""
KINDS: dict[type, str] = {
    configs.TrainingBenchmark: "training",
    configs.EmulationBenchmark: "emulation",
    configs.ReadingBenchmark: "reading",
    configs.MetricsBenchmark: "metrics",
    configs.SchedulingBenchmark: "scheduling",
}
"""What the results of each are called."""


def result_files(config: Config) -> list[str]:
    """The names of the files that a benchmark writes."""
    if isinstance(config, configs.DataBenchmark):
        kind = "data-memory" if config.memory else "data"
    else:
        kind = KINDS[type(config)]
    figures = ["csv", "png"] if kind == "data-memory" else []
    return [f"{kind}.{end}" for end in ("json", "md", *figures)]


def new_folder(output: str, names: Sequence[str], overwrite: bool) -> Path:
    """A folder for results, made if it does not exist.

    Raises:
        ConfigError: It has files of these names, which are not to be replaced.
    """
    folder = expand(output)
    for name in names:
        require_new(folder / name, overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


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
