"""Measure how fast the platform is on this machine."""

import functools
import importlib
import json
from pathlib import Path
from typing import Any

from benchmarks import configs

from lola.core.cli import launch
from lola.core.config import Config
from lola.core.waiting import loading
from lola.workflows import presets

BENCHMARKS: dict[type, tuple[str, str, str]] = {
    configs.TrainingBenchmark: ("training", "run_training_benchmark", "table"),
    configs.EmulationBenchmark: ("emulation", "run_emulation_benchmark", "emulation_table"),
    configs.MetricsBenchmark: ("scoring", "run_metrics_benchmark", "metrics_table"),
    configs.SchedulingBenchmark: ("scheduling", "run_scheduling_benchmark", "scheduling_table"),
}
"""The module of each benchmark, the function that runs it, and the one that formats its result."""


def training() -> configs.TrainingBenchmark:
    """The training step of the `mini` preset's networks, and of wider ones."""
    config = presets.mini()
    transformer = config.neural_solver.network.replace(dropout=0.0)
    return configs.TrainingBenchmark(autoencoder=config.autoencoder, transformer=transformer)


def data() -> configs.DataBenchmark:
    """How fast data arrive in training, with the `mini` preset's neural solver."""
    config = presets.mini()
    steps = config.emulator_training.replace(steps=80, report_every=20)
    return configs.DataBenchmark(emulator=config.neural_solver, training=steps)


def emulation() -> configs.EmulationBenchmark:
    """Seconds per state of simulator, neural solver and diffusion, with the `mini` preset's networks."""
    config = presets.mini()
    codec = config.autoencoder.replace(latent_channels=32)
    networks = {"latent": config.diffusion.network, "pixel": config.pixel.network}
    return configs.EmulationBenchmark(autoencoder=codec, **networks, simulation=config.simulation)


def main(config: Config) -> None:
    """Time training, emulation, scoring or reading data and compare it with a plain implementation."""
    (folder := Path(config.output)).mkdir(parents=True, exist_ok=True)
    result, text = measure(config, folder)
    (folder / f"{result['kind']}.json").write_text(json.dumps(result, indent=1, allow_nan=False))
    (folder / f"{result['kind']}.md").write_text(text + "\n")
    print(text)


def measure(config: Config, folder: Path) -> tuple[dict[str, Any], str]:
    """The result of a benchmark, as JSON values and as a table."""
    log = functools.partial(print, flush=True)
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


if __name__ == "__main__":
    configurations = {
        "training": training,
        "data": data,
        "emulation": emulation,
        "metrics": configs.MetricsBenchmark,
    }
    launch(main, configurations | {"scheduling": configs.SchedulingBenchmark}, default="training")
