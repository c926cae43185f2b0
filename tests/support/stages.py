"""Stages that tests of what comes after them need."""

from pathlib import Path
from typing import Any

import torch

from lola.storage.remote import AnyPath
from lola.storage.stages import Stage, atomic_path
from lola.training.checkpoint import save_weights
from lola.workflows import presets
from lola.workflows.plan import SweepPlan
from lola.workflows.sweep import SweepConfig

ROOT = Path(__file__).parents[2]


def small_sweep() -> SweepConfig:
    """The smoke preset, for the grid of the tests' dataset."""
    config = presets.smoke()
    return config.replace(pixel=config.pixel.replace(network=config.pixel.network.replace(patch_size=4)))


def finish_diffusion(root: AnyPath, well: Path, seed: int = 0, channels: int = 16) -> Stage:
    """Write the stages of a diffusion model and its autoencoder as if they had been trained."""
    config = small_sweep().replace(latent_channels=(channels,))
    training = config.emulator_training.replace(seed=seed)
    plan = SweepPlan(config.replace(emulator_training=training), root, well)
    stages = plan.autoencoder(channels), plan.emulator(plan.planned("diffusion", channels))
    runs = {step.stage.fingerprint: step.run.args[0] for step in plan.steps}
    for stage in stages:
        sizes = runs[stage.fingerprint].sizes
        if stage.finished:
            continue
        model, details = stage.config.model, {"autoencoder": stages[0].name} if stage is stages[1] else {}
        torch.manual_seed(seed)
        stage.folder.mkdir(parents=True)
        save_weights(stage.folder / "model.safetensors", model.build(**sizes))
        stage.commit(model={"type": type(model).__name__, **model.to_json()}, sizes=sizes, **details)
    return stages[1]


def finish_autoencoder(
    root: AnyPath, well: Path, seed: int = 0, system: str = "euler", **details: Any
) -> Stage:
    """Write the stage of an autoencoder as if it had been trained; details are of its manifest."""
    config = small_sweep()
    config = config.replace(system=system, simulation=config.simulation if system == "euler" else None)
    training = config.autoencoder_training.replace(seed=seed)
    stage = SweepPlan(config.replace(autoencoder_training=training), root, well).autoencoder(16)
    model, sizes = stage.config.model, {"channels": 5, "spatial": 2}
    torch.manual_seed(seed)
    with atomic_path(stage.folder / "model.safetensors") as partial:
        save_weights(partial, model.build(**sizes))
    stage.commit(model={"type": type(model).__name__, **model.to_json()}, sizes=sizes, **details)
    return stage
