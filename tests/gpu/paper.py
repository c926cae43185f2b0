"""The models of the `paper` preset, as far as their training needs, without importing Ray, which presets do.

A unit test checks that these are the preset's.
"""

import dataclasses
from typing import Any

from lola.data.systems import SYSTEMS
from lola.models.autoencoder_config import AutoencoderConfig
from lola.models.diffusion_config import DiffusionConfig
from lola.models.neural_solver_config import NeuralSolverConfig
from lola.models.transformer import TransformerConfig
from lola.training.config import OptimizerConfig, TrainingConfig
from lola.training.order import OrderConfig

WINDOW = 5
AUTOENCODER = TrainingConfig(
    steps=1024 * 256,
    batch_size=64,
    optimizer=OptimizerConfig(name="psgd", learning_rate=1e-5, betas=(0.9, 0.99), max_dimension=4096),
    precision="bfloat16",
    valid_samples=1024,
    order=OrderConfig(memory=64.0),
    compile=True,
    report_every=1024,
    workers=8,
    gpus=1,
    cpus=4,
)
EMULATOR = AUTOENCODER.replace(
    steps=4096 * 64,
    batch_size=256,
    optimizer=OptimizerConfig(name="adamw", learning_rate=1e-4, betas=(0.9, 0.99)),
)
LEVELS = {2: (64, 128, 256, 512, 768, 1024), 3: (64, 256, 512, 1024)}
PIXEL = TransformerConfig(features=2048, blocks=16, heads=16, patch_size=(1, 16, 16))


@dataclasses.dataclass(frozen=True)
class Trained:
    """A model of the preset.

    Arguments:
        model: Its configuration, and `sizes` the arguments of its `build`.
        shape: The shape `(C, L, *grid)` of a sample.
        training: How it is trained.
    """

    model: Any
    sizes: dict[str, int]
    shape: tuple[int, ...]
    training: TrainingConfig

    @property
    def of_a_gpu(self) -> TrainingConfig:
        """The training of one GPU's share of the batch."""
        share = -(-self.training.batch_size // self.training.most_workers)
        return self.training.replace(batch_size=share, workers=1)


def autoencoder(name: str, latents: int) -> Trained:
    """An autoencoder of a system."""
    system = SYSTEMS[name]
    channels, levels = len(system.channels), LEVELS[system.dimensions]
    return Trained(
        AutoencoderConfig(latent_channels=latents, channels=levels, blocks=(3,) * len(levels)),
        {"channels": channels, "spatial": system.dimensions},
        (channels, 1, *system.published.grid),
        AUTOENCODER,
    )


def emulator(name: str, model: DiffusionConfig | NeuralSolverConfig, latents: int | None) -> Trained:
    """An emulator in the latent space of so many channels, or (None) in pixel space."""
    system = SYSTEMS[name]
    channels, grid = len(system.channels), system.published.grid
    training = EMULATOR.replace(accumulate=1 if system.dimensions == 2 else 2)
    if latents is None:
        training = EMULATOR.replace(workers=16, accumulate=4 if name == "euler" else 1)
    else:
        factors = autoencoder(name, latents).model.factors(system.dimensions)
        channels, grid = latents, tuple(size // factor for size, factor in zip(grid, factors, strict=True))
    sizes = {
        "channels": channels,
        "parameters": system.published.parameter_count,
        "spatial": system.dimensions,
        "window": WINDOW,
    }
    return Trained(model, sizes, (channels, WINDOW, *grid), training)


MODELS = {
    "rayleigh_benard autoencoder f32c64": autoencoder("rayleigh_benard", 64),
    "rayleigh_benard diffusion f32c64": emulator("rayleigh_benard", DiffusionConfig(), 64),
    "euler autoencoder f32c64": autoencoder("euler", 64),
    "turbulence_gravity_cooling autoencoder f8c64": autoencoder("turbulence_gravity_cooling", 64),
    "euler neural_solver f32c64": emulator("euler", NeuralSolverConfig(), 64),
    "turbulence_gravity_cooling diffusion f8c64": emulator(
        "turbulence_gravity_cooling", DiffusionConfig(), 64
    ),
    "euler neural_solver pixel": emulator("euler", NeuralSolverConfig(network=PIXEL), None),
}
"""Those whose memory is measured: of every kind, grid and number of micro-batches one, small ones first."""
