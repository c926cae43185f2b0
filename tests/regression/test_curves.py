"""Loss curves, a simulation and a rollout must stay what they were: a change of numbers is noticed and meant.

The goldens were made by this code. `LOLA_UPDATE_GOLDENS=1 python -m pytest tests/regression` writes them
again; say in the commit why they changed.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from lola.core.seeding import seed_process
from lola.data.description import EULER
from lola.data.transforms import Standardisation
from lola.data.well.splits import open_split
from lola.data.well.windows import WellWindows
from lola.emulation.emulator import Emulator
from lola.emulation.sampling_config import SamplerConfig
from lola.models.autoencoder_config import AutoencoderConfig
from lola.models.diffusion_config import DiffusionConfig
from lola.models.neural_solver_config import NeuralSolverConfig
from lola.models.transformer_config import TransformerConfig
from lola.simulate.euler import EulerConfig
from lola.simulate.simulation import simulation_jobs, write_file
from lola.training.config import OptimizerConfig, TrainingConfig
from lola.training.loop import train

GOLDENS = Path(__file__).with_name("goldens.json")
TOLERANCE = 1e-3  # kernels differ between processors; a changed formula moves more
WINDOW = 5
TRANSFORMER = TransformerConfig(
    features=16, blocks=2, heads=2, modulation=16, patch_size=(1, 4, 4), dropout=0.0
)
MODELS = {
    "autoencoder": AutoencoderConfig(
        latent_channels=4, channels=(8, 16), blocks=(1, 1), patch_size=2, dropout=0.0
    ),
    "diffusion": DiffusionConfig(network=TRANSFORMER),
    "neural_solver": NeuralSolverConfig(network=TRANSFORMER),
}


def check(name: str, found: list[float]) -> None:
    """Compare with the goldens, or write them where the environment asks for it."""
    goldens = json.loads(GOLDENS.read_text()) if GOLDENS.exists() else {}
    if os.environ.get("LOLA_UPDATE_GOLDENS"):
        goldens[name] = [float(f"{value:.7g}") for value in found]
        GOLDENS.write_text(json.dumps(goldens, indent=1, sort_keys=True) + "\n")
    assert found == pytest.approx(goldens[name], rel=TOLERANCE)


def build(name: str) -> torch.nn.Module:
    seed_process(0, "weights")
    sizes = {"channels": 5, "spatial": 2}
    if name != "autoencoder":
        sizes |= {"parameters": 5, "window": WINDOW}
    return MODELS[name].build(**sizes)


def curve(name: str, well: Path, optimizer: str) -> tuple[torch.nn.Module, list[float]]:
    """The training and validation losses of a few steps."""
    length = 1 if name == "autoencoder" else WINDOW
    standardise = Standardisation(EULER)
    training, validation = (
        WellWindows(open_split(well, EULER, split), standardise, length, 2, symmetries)
        for split, symmetries in (("train", "plain"), ("valid", None))
    )
    config = TrainingConfig(
        steps=12,
        batch_size=6,
        warmup=2,
        optimizer=OptimizerConfig(name=optimizer, learning_rate=3e-3),
        valid_samples=8,
        report_every=4,
    )
    losses: list[float] = []
    model = build(name)
    train(
        model,
        config,
        training,
        validation,
        report=lambda step, metrics, save: losses.extend((metrics["train/loss"], metrics["valid/loss"])),
    )
    return model, losses


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [("autoencoder", "adamw"), ("autoencoder", "psgd"), ("diffusion", "adamw"), ("neural_solver", "adam")],
)
@pytest.mark.filterwarnings("ignore")
def test_loss_curves(well, name, optimizer):
    _, losses = curve(name, well, optimizer)
    check(f"{name}-{optimizer}", losses)


def test_a_rollout(well):
    model, _ = curve("diffusion", well, "adamw")
    split = open_split(well, EULER, "test")
    context = Standardisation(EULER).forward(split.read(0, 0, 1))[None]
    emulator = Emulator(model=model, sampler=SamplerConfig(steps=4))
    states = torch.cat(list(emulator.rollout(context, split.parameters(0)[None], 8, [(0, "rollout")])), dim=2)
    check("rollout", states.mean(dim=(0, 2, 3, 4)).tolist() + states.std(dim=(0, 2, 3, 4)).tolist())


def test_a_simulation(tmp_path):
    config = EulerConfig(resolution=32, gammas=(1.4,), train=0, valid=0, test=2, outputs=5, end=0.1)
    for job in simulation_jobs(config):
        write_file(job, config, tmp_path / job.path)
    split = open_split(tmp_path, EULER, "test")
    states = torch.stack([split.read(i, split.steps - 1, split.steps) for i in range(4)])
    moments = [states.mean(dim=(2, 3, 4)), states.std(dim=(2, 3, 4))]
    check("simulation", np.stack(moments).flatten().tolist())
