"""Steps of plans: what makes a latent cache or an autoencoder, and the trials that train."""

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any, cast

from lola.data.description import SYSTEMS
from lola.data.systems import System
from lola.data.well.datasets import Datasets
from lola.distributed.jobs.encode import encode
from lola.distributed.jobs.train import run_training
from lola.distributed.jobs.worker import TrainingRun
from lola.distributed.trials import InputDataset, Step, Trial
from lola.emulation.cache_config import CacheConfig
from lola.emulation.inference_config import Weights
from lola.models.autoencoder_config import CodecConfig
from lola.storage.remote import AnyPath
from lola.storage.stages import Stage
from lola.training.config import TrainingConfig
from lola.workflows.dataset_info import DatasetInfo
from lola.workflows.model_shape import ModelShape
from lola.workflows.setups import field_setup
from lola.workflows.sweep import Recipe
from lola.workflows.warm_start import Source


def cache_step(stage: Stage, model: AnyPath, datasets: Datasets, tags: dict[str, Any], files: int) -> Step:
    """The encoding of a latent cache, whose stage is configured by a `CacheConfig`, of simulation files."""
    assert isinstance(stage.config, CacheConfig)
    run = functools.partial(encode, stage, model, datasets, stage.config)
    return Step(stage, run, tags, files, reads=(InputDataset.of_well(stage, datasets, "encoding"),))


def autoencoder_step(
    stage: Stage,
    data: DatasetInfo,
    datasets: Datasets,
    tags: dict[str, Any],
    source: Source | None = None,
) -> Step:
    """The training of an autoencoder, whose stage is configured by a `Recipe`, perhaps from a source."""
    recipe = cast(Recipe, stage.config)
    shape = ModelShape.of_autoencoder(cast(CodecConfig, recipe.model), data)
    if source is not None:
        source.check(recipe.model, shape.sizes)
    start = None if source is None else source.folder
    setup = functools.partial(field_setup, recipe, datasets, data.system, shape.sizes, start)
    details = recorded(data.system) | started_from(source)
    run = TrainingRun(stage, recipe.training, setup, recipe.model, shape.sizes, details)
    reads = (InputDataset.of_well(stage, datasets, "training"),)
    return Step(stage, functools.partial(run_training, run), tags, recipe.training.steps, reads=reads)


def recorded(system: System) -> dict[str, Any]:
    """What the manifest of a model says of a system for which its name does not stand."""
    return {} if system == SYSTEMS.get(system.name) else {"data": system.to_json()}


def started_from(source: Source | None) -> dict[str, Any]:
    """What the manifest of a model says of the stage that it started from."""
    return {} if source is None else {"warm_start": source.folder.name}


def training_trial(name: str, training: TrainingConfig, *steps: Step, needs: tuple[Stage, ...] = ()) -> Trial:
    """A trial that occupies the resources of all workers of a training."""
    workers = training.most_workers
    return Trial(name, steps, needs, cpus=training.cpus * workers, gpus=training.gpus * workers)


def weights_of(training: TrainingConfig) -> tuple[Weights, ...]:
    """Which weights of a model are evaluated."""
    return ("raw", "ema") if training.ema else ("raw",)


def needed_trials(trials: tuple[Trial, ...], goal: Iterable[Stage]) -> tuple[Trial, ...]:
    """The trials that lead to some stages, each up to the last step that is needed."""
    wanted = {stage.fingerprint for stage in goal}
    kept: list[Trial] = []
    for trial in reversed(trials):
        steps = list(trial.steps)
        while steps and steps[-1].stage.fingerprint not in wanted:
            steps.pop()
        if steps:
            kept.insert(0, dataclasses.replace(trial, steps=tuple(steps)))
            wanted |= {stage.fingerprint for stage in trial.needs}
    return tuple(kept)
