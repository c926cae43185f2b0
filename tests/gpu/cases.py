"""The small models of the tests on a GPU, and what they are trained on."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sources import Single
from torch import Tensor, nn

from lola.core.seeding import SampleGenerator, seed_process
from lola.data.description import EULER
from lola.data.strides import Strides
from lola.emulation.emulator import Emulator
from lola.emulation.inference_config import InferenceConfig
from lola.emulation.sampling_config import SamplerConfig
from lola.models.autoencoder_config import AutoencoderConfig
from lola.models.crps_ensemble_config import CRPSEnsembleConfig
from lola.models.diffusion_config import DiffusionConfig
from lola.models.emulator_config import EmulatorConfig
from lola.models.neural_solver_config import NeuralSolverConfig
from lola.models.schedule_config import ScheduleConfig
from lola.models.shortcut_config import ShortcutConfig
from lola.models.transformer_autoencoder_config import TransformerAutoencoderConfig
from lola.models.transformer_config import TransformerConfig
from lola.models.unet_config import UNetConfig
from lola.training.config import OptimizerConfig, TrainingConfig
from lola.training.loop import Position, train


class Waves(Single):
    """Windows of waves in memory, the phase of each field shifted by the key.

    Arguments:
        shape: The shape `(C, L, *grid)` of a window.
        parameters: The length `P` of a window's parameters.
        strides: The strides that windows draw from, if they do: they are one more parameter.
    """

    def __init__(self, shape: tuple[int, ...], parameters: int = 0, strides: tuple[int, ...] = ()) -> None:
        self.shape, self.parameters, self.strides = shape, parameters, Strides(1, strides)

    def __len__(self) -> int:
        return 24

    def read(self, index: int, key: Any) -> tuple[Tensor, Tensor]:
        channels, states, *grid = self.shape
        phase = 6.3 * SampleGenerator([key]).uniform(channels)[0].reshape(-1, *[1] * (len(grid) + 1))
        place = sum(
            torch.linspace(0, 6.3, size).reshape(-1, *[1] * (len(grid) - axis - 1))
            for axis, size in enumerate(grid)
        )
        (first,), (stride,) = self.strides.draw(states, [key])
        time = (first + stride * torch.arange(states)).reshape(-1, *[1] * len(grid))
        states = torch.sin(place + 0.3 * time + phase + index / 4)
        parameters = torch.full((1, self.parameters), index / 24)
        return states, self.strides.label(parameters, np.array([stride]))[0]


Report = Callable[[int, dict[str, float], Callable[[Path], None]], None]


@dataclasses.dataclass(frozen=True)
class Case:
    """A small model with what it is trained on.

    Arguments:
        model: Its configuration, and `sizes` the arguments of its `build`.
        shape: The shape `(C, L, *grid)` of a window.
    """

    model: Any
    sizes: dict[str, int]
    shape: tuple[int, ...]

    def build(self, device: torch.device) -> nn.Module:
        """The model with the same weights on every device."""
        seed_process(0, "weights")
        return self.model.build(**self.sizes).to(device)

    @property
    def source(self) -> Waves:
        """What it is trained on."""
        strides = self.model.strides if isinstance(self.model, EmulatorConfig) else ()
        return Waves(self.shape, self.sizes.get("parameters", 0), strides)

    def train(
        self,
        device: torch.device,
        config: TrainingConfig,
        folder: Path | None = None,
        resume: Path | None = None,
        **options: Any,
    ) -> tuple[dict[str, list[float]], Position]:
        """Train it; returns every metric's curve.

        Arguments:
            device: Where.
            config: How.
            folder: Where checkpoints go to, in a folder `<step>` each.
            resume: The folder of a checkpoint.
            options: Of `train`.
        """
        curves: dict[str, list[float]] = {}

        def report(step: int, metrics: dict[str, float], save: Callable[[Path], None]) -> None:
            for name, value in metrics.items():
                curves.setdefault(name, []).append(value)
            if folder is not None:
                (folder / str(step)).mkdir(parents=True)
                save(folder / str(step))

        options = {"report": report, "resume": resume, "device": device} | options
        return curves, train(self.build(device), config, self.source, self.source, **options)


BLOCKS = {"features": 64, "blocks": 2, "heads": 4, "dropout": 0.0}
TRANSFORMER = TransformerConfig(modulation=32, **BLOCKS)
WINDOW = {"channels": 8, "parameters": 3, "spatial": 2, "window": 5}
PLAIN = {"channels": (16, 32), "blocks": (1, 1), "dropout": 0.0}
CASES = {
    "autoencoder-2d": Case(
        AutoencoderConfig(latent_channels=4, patch_size=2, attention_heads=((1, 2),), **PLAIN),
        {"channels": 5, "spatial": 2},
        (5, 1, 32, 32),
    ),
    "autoencoder-3d": Case(
        AutoencoderConfig(latent_channels=4, patch_size=2, **PLAIN),
        {"channels": 6, "spatial": 3},
        (6, 1, 16, 16, 16),
    ),
    "diffusion": Case(DiffusionConfig(network=TRANSFORMER), WINDOW, (8, 5, 8, 8)),
    "neural_solver": Case(NeuralSolverConfig(network=TRANSFORMER), WINDOW, (8, 5, 8, 8)),
    "crps_ensemble": Case(CRPSEnsembleConfig(network=TRANSFORMER), WINDOW, (8, 5, 8, 8)),
    "shortcut": Case(ShortcutConfig(network=TRANSFORMER, consistency=0.5), WINDOW, (8, 5, 8, 8)),
}
CHANGE = {"predicts": "change", "context_noise": 0.3}
OTHERS = {
    "diffusion-change": Case(DiffusionConfig(network=TRANSFORMER, **CHANGE), WINDOW, (8, 5, 8, 8)),
    "neural_solver-change": Case(NeuralSolverConfig(network=TRANSFORMER, **CHANGE), WINDOW, (8, 5, 8, 8)),
    "neural_solver-strides": Case(
        NeuralSolverConfig(network=TRANSFORMER, strides=(1, 2, 4)), WINDOW, (8, 5, 8, 8)
    ),
    "crps_ensemble-rollout": Case(
        CRPSEnsembleConfig(network=TRANSFORMER, rollout_windows=2, energy=0.5), WINDOW, (8, 9, 8, 8)
    ),
    "autoencoder-variational": Case(
        AutoencoderConfig(latent_channels=4, kl_weight=1e-3, latent_noise=0.1, **PLAIN),
        {"channels": 5, "spatial": 2},
        (5, 1, 16, 16),
    ),
    "autoencoder-transformer": Case(
        TransformerAutoencoderConfig(latent_channels=4, patch_size=4, **BLOCKS),
        {"channels": 5, "spatial": 2},
        (5, 1, 32, 32),
    ),
    "diffusion-unet": Case(
        DiffusionConfig(network=UNetConfig(channels=(16, 32), blocks=(1, 1), modulation=32, dropout=0.0)),
        WINDOW,
        (8, 5, 8, 8),
    ),
}
CONFIG = TrainingConfig(
    steps=8,
    batch_size=8,
    optimizer=OptimizerConfig(learning_rate=1e-3),
    warmup=2,
    ema=0.9,
    valid_samples=8,
    report_every=2,
)
SMALL = TransformerConfig(features=32, blocks=2, heads=2, modulation=16)
UNET = UNetConfig(channels=(8, 16), blocks=(1, 1), modulation=16)
ADAMS, DDPM, FLOW = (SamplerConfig(name=name, steps=3) for name in ("adams_bashforth", "ddpm", "euler"))
# Guided by observations, untrained networks diverge from noise of deviation 1000
MILD = DiffusionConfig(network=SMALL, schedule=ScheduleConfig(sigma_max=5.0))
EMULATORS = {
    "diffusion": (DiffusionConfig(network=SMALL), ADAMS),
    "diffusion-ddpm": (DiffusionConfig(network=SMALL), DDPM),
    "diffusion-unet": (DiffusionConfig(network=UNET), ADAMS),
    "neural_solver": (NeuralSolverConfig(network=SMALL), ADAMS),
    "crps_ensemble": (CRPSEnsembleConfig(network=SMALL), ADAMS),
    "shortcut": (ShortcutConfig(network=SMALL), FLOW),
    "diffusion-change": (DiffusionConfig(network=SMALL, rollout_noise=0.1, **CHANGE), ADAMS),
    "neural_solver-change": (NeuralSolverConfig(network=SMALL, rollout_noise=0.1, **CHANGE), ADAMS),
    "neural_solver-strides": (NeuralSolverConfig(network=SMALL, strides=(1, 2, 4)), ADAMS),
    "mild": (MILD, ADAMS),
    "mild-ddpm": (MILD, DDPM),
}
CODEC = AutoencoderConfig(latent_channels=4, channels=(8, 16), blocks=(1, 1), patch_size=2)
ROWS, STATES, GRID, LATENT = 4, 6, (16, 16), (4, 4)
KEYS = [(0, "trajectory", member) for member in range(ROWS)]


def emulator(name: str, device: torch.device, parameters: int = 3, **how: object) -> Emulator:
    """An untrained emulator of latent states of the Euler equations, the same on every device."""
    model, sampler = EMULATORS[name]
    seed_process(0, "weights")
    return Emulator(
        model=model.build(channels=4, parameters=parameters, spatial=2, window=5).to(device),
        autoencoder=CODEC.build(5, 2).to(device),
        sampler=sampler,
        system=EULER,
        inference=InferenceConfig(rows=2, **how),
    )


def context(count: int = 1) -> tuple[Tensor, Tensor]:
    """Known states and parameters of every row."""
    generator = SampleGenerator(KEYS)
    return generator.normal(4, count, *LATENT), generator.uniform(3)
