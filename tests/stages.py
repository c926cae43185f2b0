"""Stages that tests of what comes after them need."""

import sys
from pathlib import Path

import torch

from lola.distributed.plan import Plan
from lola.distributed.sweep import SweepConfig
from lola.remote import AnyPath
from lola.storage import Stage, atomic_path
from lola.training.checkpoint import save_weights

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))
import presets

ROOT = Path(__file__).parents[1]


def small_sweep() -> SweepConfig:
    """The smoke preset, for the grid of the tests' dataset."""
    config = presets.smoke()
    return config.replace(pixel=config.pixel.replace(network=config.pixel.network.replace(patch_size=4)))


def finish_autoencoder(root: AnyPath, well: Path, seed: int = 0) -> Stage:
    """Write the stage of an autoencoder as if it had been trained."""
    config = small_sweep()
    training = config.autoencoder_training.replace(seed=seed)
    stage = Plan(config.replace(autoencoder_training=training), root, well).autoencoder(16)
    model, sizes = stage.config.model, {"channels": 5, "spatial": 2}
    torch.manual_seed(seed)
    with atomic_path(stage.folder / "model.safetensors") as aside:
        save_weights(aside, model.build(**sizes))
    stage.commit(model={"type": type(model).__name__, **model.what()}, sizes=sizes)
    return stage
