"""Measure how fast the platform is on this machine."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import announce  # noqa: F401
from benchmarks.data import DataBenchmark, data_table, run_data_benchmark
from benchmarks.emulation import EmulationBenchmark, emulation_table, run_emulation_benchmark
from benchmarks.memory import memory_table, run_memory_benchmark, write_memory
from benchmarks.ray_data import time_ray
from benchmarks.scheduling import SchedulingBenchmark, run_scheduling_benchmark, scheduling_table
from benchmarks.scoring import MetricsBenchmark, metrics_table, run_metrics_benchmark
from benchmarks.training import TrainingBenchmark, run_training_benchmark, table

from lola.core.cli import launch
from lola.workflows import presets

Benchmark = TrainingBenchmark | DataBenchmark | EmulationBenchmark | MetricsBenchmark | SchedulingBenchmark
WAYS: dict[type, tuple[Callable[..., dict[str, Any]], Callable[[dict], str]]] = {
    TrainingBenchmark: (run_training_benchmark, table),
    EmulationBenchmark: (run_emulation_benchmark, emulation_table),
    MetricsBenchmark: (run_metrics_benchmark, metrics_table),
    SchedulingBenchmark: (run_scheduling_benchmark, scheduling_table),
}


def training() -> TrainingBenchmark:
    """The training step of the `mini` preset's networks, and of wider ones."""
    config = presets.mini()
    return TrainingBenchmark(
        autoencoder=config.autoencoder, transformer=config.neural_solver.network.replace(dropout=0.0)
    )


def data() -> DataBenchmark:
    """How fast data reach training, with the `mini` preset's neural solver."""
    config = presets.mini()
    steps = config.emulator_training.replace(steps=80, report_every=20)
    return DataBenchmark(emulator=config.neural_solver, training=steps)


def emulation() -> EmulationBenchmark:
    """Seconds per state of simulator, neural solver and diffusion, with the `mini` preset's networks."""
    config = presets.mini()
    codec = config.autoencoder.replace(latent_channels=32)
    networks = {"latent": config.diffusion.network, "pixel": config.pixel.network}
    return EmulationBenchmark(autoencoder=codec, **networks, simulation=config.simulation)


def main(config: Benchmark) -> None:
    """Time training, emulation, scores, or the way of data, against the plain way; variants take turns."""
    (folder := Path(config.output)).mkdir(parents=True, exist_ok=True)
    result, text = measure(config, folder)
    (folder / f"{result['kind']}.json").write_text(json.dumps(result, indent=1, allow_nan=False))
    (folder / f"{result['kind']}.md").write_text(text + "\n")
    print(text)


def measure(config: Benchmark, folder: Path) -> tuple[dict[str, Any], str]:
    """The result of a benchmark, as JSON values and for people."""
    progress = functools.partial(print, flush=True)
    if (way := WAYS.get(type(config))) is not None:
        return (result := way[0](config, progress)), way[1](result)
    if config.memory:
        result = run_memory_benchmark(config, progress)
        write_memory(result, folder)
        return result, memory_table(result)
    result = run_data_benchmark(config, progress)
    if config.ray:
        sizes = (config.gigabytes, config.steps, config.cells, config.rounds)
        result["ray"] = time_ray(config.system, *sizes, progress)
    return result, data_table(result)


if __name__ == "__main__":
    ways = {"training": training, "data": data, "emulation": emulation, "metrics": MetricsBenchmark}
    launch(main, ways | {"scheduling": SchedulingBenchmark}, default="training")
