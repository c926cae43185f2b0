"""Measure how fast the platform is on this machine."""

import json
from collections.abc import Callable

from benchmarks import configs
from benchmarks.measure import measure, new_folder, result_files

from lola.core.cli import launch
from lola.models.autoencoder_config import AutoencoderConfig
from lola.models.transformer_config import TransformerConfig
from lola.simulate.euler import EulerConfig
from lola.workflows import presets


def training() -> configs.TrainingBenchmark:
    """The training step of the `mini` preset's networks, and of wider ones."""
    autoencoder, solver = _mini()
    return configs.TrainingBenchmark(autoencoder=autoencoder, transformer=solver.replace(dropout=0.0))


def data() -> configs.DataBenchmark:
    """How fast data arrive in training, with the `mini` preset's neural solver."""
    config = presets.mini()
    steps = config.emulator_training.replace(steps=80, report_every=20)
    return configs.DataBenchmark(emulator=config.neural_solver, training=steps)


def emulation() -> configs.EmulationBenchmark:
    """Seconds per state of simulator, neural solver and diffusion, with the `mini` preset's networks."""
    autoencoder, solver = _mini()
    config = presets.mini()
    assert config.pixel
    assert isinstance(config.pixel.network, TransformerConfig)
    assert isinstance(config.simulation, EulerConfig)
    return configs.EmulationBenchmark(
        autoencoder=autoencoder.replace(latent_channels=32),
        latent=solver,
        pixel=config.pixel.network,
        simulation=config.simulation,
    )


def _mini() -> tuple[AutoencoderConfig, TransformerConfig]:
    """The networks of the `mini` preset's latent neural solver."""
    config = presets.mini()
    network = config.neural_solver.network
    assert isinstance(config.autoencoder, AutoencoderConfig)
    assert isinstance(network, TransformerConfig)
    return config.autoencoder, network


def main(config: configs.Benchmark | configs.SchedulingBenchmark) -> None:
    """Time training, emulation, scoring or reading data and compare it with a plain implementation."""
    folder = new_folder(config.output, result_files(config), config.overwrite)
    result, text = measure(config, folder)
    (folder / f"{result['kind']}.json").write_text(json.dumps(result, indent=1, allow_nan=False))
    (folder / f"{result['kind']}.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    configurations: dict[str, Callable[..., configs.Benchmark | configs.SchedulingBenchmark]] = {
        "training": training,
        "data": data,
        "reading": configs.ReadingBenchmark,
        "emulation": emulation,
        "metrics": configs.MetricsBenchmark,
        "scheduling": configs.SchedulingBenchmark,
    }
    launch(main, configurations, default="training")
