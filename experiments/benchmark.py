"""Measure how fast the platform is on this machine."""

import json

from benchmarks import configs
from benchmarks.measure import measure, new_folder, result_files

from lola.core.cli import launch
from lola.workflows import presets


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


def main(config: configs.Benchmark | configs.SchedulingBenchmark) -> None:
    """Time training, emulation, scoring or reading data and compare it with a plain implementation."""
    folder = new_folder(config.output, result_files(config), config.overwrite)
    result, text = measure(config, folder)
    (folder / f"{result['kind']}.json").write_text(json.dumps(result, indent=1, allow_nan=False))
    (folder / f"{result['kind']}.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    configurations = {
        "training": training,
        "data": data,
        "emulation": emulation,
        "metrics": configs.MetricsBenchmark,
    }
    launch(main, configurations | {"scheduling": configs.SchedulingBenchmark}, default="training")
