"""The models of the `paper` preset that the lane measures, in the shapes of the published data.

A unit test compares sizes and shapes with those of the preset's plan, which needs Ray.
"""

import dataclasses
from typing import Any

from lola.data.description import SYSTEMS
from lola.models.crps_ensemble_config import CRPSEnsembleConfig
from lola.models.diffusion_config import DiffusionConfig
from lola.models.emulator_config import EmulatorConfig
from lola.models.neural_solver_config import NeuralSolverConfig
from lola.training.config import TrainingConfig
from lola.workflows import presets


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
    config, system = presets.paper(name), SYSTEMS[name]
    channels = len(system.channels)
    assert system.published is not None
    return Trained(
        config.autoencoder.replace(latent_channels=latents),
        {"channels": channels, "spatial": system.dimensions},
        (channels, 1, *system.published.grid),
        config.autoencoder_training,
    )


def emulator(name: str, model: EmulatorConfig, latents: int | None) -> Trained:
    """An emulator in the latent space of so many channels, or (None) in pixel space."""
    config, system = presets.paper(name), SYSTEMS[name]
    assert system.published is not None
    channels, grid, training = len(system.channels), system.published.grid, config.pixel_training
    if latents is not None:
        factors = config.autoencoder.factors(system.dimensions)
        grid = tuple(size // factor for size, factor in zip(grid, factors, strict=True))
        channels, training = latents, config.emulator_training
    sizes = {
        "channels": channels,
        "parameters": system.published.parameter_count,
        "spatial": system.dimensions,
        "window": config.window,
    }
    return Trained(model, sizes, (channels, config.window, *grid), training)


PIXEL = presets.paper("euler").pixel
assert PIXEL is not None
MODELS = {
    "rayleigh_benard autoencoder f32c64": autoencoder("rayleigh_benard", 64),
    "rayleigh_benard diffusion f32c64": emulator("rayleigh_benard", DiffusionConfig(), 64),
    "euler autoencoder f32c64": autoencoder("euler", 64),
    "turbulence_gravity_cooling autoencoder f8c64": autoencoder("turbulence_gravity_cooling", 64),
    "euler neural_solver f32c64": emulator("euler", NeuralSolverConfig(), 64),
    "euler crps_ensemble f32c64": emulator("euler", CRPSEnsembleConfig(), 64),
    "turbulence_gravity_cooling diffusion f8c64": emulator(
        "turbulence_gravity_cooling", DiffusionConfig(), 64
    ),
    "euler neural_solver pixel": emulator("euler", PIXEL, None),
}
"""Those whose memory is measured: of every kind, grid and number of micro-batches one, small ones first."""
