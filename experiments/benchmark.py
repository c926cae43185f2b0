"""Measure how fast the platform is on this machine."""

import json
from pathlib import Path

import presets

from lola.benchmark.training import TrainingBenchmark, run_training_benchmark, table
from lola.cli import launch


def training() -> TrainingBenchmark:
    """The training step of the `mini` preset's networks, and of wider ones."""
    config = presets.mini()
    return TrainingBenchmark(
        autoencoder=config.autoencoder, transformer=config.neural_solver.network.replace(dropout=0.0)
    )


def main(config: TrainingBenchmark) -> None:
    """Time training steps against the same networks written the plain way; contenders take turns."""
    result = run_training_benchmark(config, progress=lambda what: print(what, flush=True))
    folder = Path(config.output)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{result['kind']}.json").write_text(json.dumps(result, indent=1))
    (folder / f"{result['kind']}.md").write_text(table(result) + "\n")
    print(table(result))


if __name__ == "__main__":
    launch(main, {"training": training}, default="training")
