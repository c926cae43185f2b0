"""Measure how fast the platform is on this machine."""

import functools
import json
from pathlib import Path
from typing import Any

import presets

from lola.benchmark.data import DataBenchmark, data_table, run_data_benchmark
from lola.benchmark.emulation import EmulationBenchmark, emulation_table, run_emulation_benchmark
from lola.benchmark.memory import memory_table, run_memory_benchmark, write_memory
from lola.benchmark.scoring import MetricsBenchmark, metrics_table, run_metrics_benchmark
from lola.benchmark.training import TrainingBenchmark, run_training_benchmark, table
from lola.cli import launch
from lola.distributed.benchmark import time_ray

Benchmark = TrainingBenchmark | DataBenchmark | EmulationBenchmark | MetricsBenchmark
RUNS: dict[type, tuple[Any, Any]] = {
    TrainingBenchmark: (run_training_benchmark, table),
    MetricsBenchmark: (run_metrics_benchmark, metrics_table),
    EmulationBenchmark: (run_emulation_benchmark, emulation_table),
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
    return DataBenchmark(
        emulator=config.neural_solver, training=config.emulator_training.replace(steps=80, report_every=20)
    )


def emulation() -> EmulationBenchmark:
    """Seconds per state of simulator, neural solver and diffusion, with the `mini` preset's networks."""
    config = presets.mini()
    codec, network = config.autoencoder.replace(latent_channels=32), config.diffusion.network
    pixel = network.replace(patch_size=(1, 16, 16))
    return EmulationBenchmark(autoencoder=codec, latent=network, pixel=pixel, simulation=config.simulation)


def main(config: Benchmark) -> None:
    """Time training, emulation, scores, or the way of data, against the plain way; contenders take turns."""
    folder = Path(config.output)
    folder.mkdir(parents=True, exist_ok=True)
    result, text = measure(config, folder)
    (folder / f"{result['kind']}.json").write_text(json.dumps(result, indent=1))
    (folder / f"{result['kind']}.md").write_text(text + "\n")
    print(text)


def measure(config: Benchmark, folder: Path) -> tuple[dict[str, Any], str]:
    """The result of a benchmark, as JSON values and for people."""
    progress = functools.partial(print, flush=True)
    if type(config) in RUNS:
        run, show = RUNS[type(config)]
        result = run(config, progress)
        return result, show(result)
    if config.memory:
        result = run_memory_benchmark(config, progress)
        write_memory(result, folder)
        return result, memory_table(result)
    result = run_data_benchmark(config, progress)
    if config.ray:
        result["ray"] = time_ray(
            config.system, config.gigabytes, config.steps, config.cells, config.rounds, progress
        )
    return result, data_table(result)


if __name__ == "__main__":
    kinds = {"training": training, "data": data, "emulation": emulation, "metrics": MetricsBenchmark}
    launch(main, kinds, default="training")
