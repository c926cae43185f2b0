"""What the workers of a sweep's trainings build: a model, and where its windows are read from."""

import dataclasses

from lola.data.latents import LatentSplit, LatentWindows
from lola.data.systems import System
from lola.data.transforms import Standardisation
from lola.data.well.datasets import Datasets
from lola.data.well.windows import WellWindows
from lola.distributed.jobs.worker import Setup
from lola.storage.remote import AnyPath, local_copy
from lola.storage.stages import WEIGHTS
from lola.training.buffers import WindowSource
from lola.training.checkpoint import copy_weights
from lola.training.stream import fixed_batches
from lola.workflows.sweep import Recipe

CHANGES = 64  # windows, over the whole training set, that give the size of changes


def field_setup(
    recipe: Recipe,
    datasets: Datasets,
    system: System,
    sizes: dict[str, int],
    start: AnyPath | None = None,
) -> Setup:
    """A model trained on windows of fields, read from HDF5; it may start from a finished stage's folder."""
    splits = (
        (datasets.open(system, "train"), recipe.symmetries, recipe.strides),
        (datasets.open(system, "valid"), None, ()),
    )
    training, validation = (
        WellWindows(split, Standardisation(split.system), recipe.states, recipe.stride, symmetries, strides)
        for split, symmetries, strides in splits
    )
    return _setup(recipe, sizes, training, validation, start)


def latent_setup(
    recipe: Recipe, cache: AnyPath, sizes: dict[str, int], start: AnyPath | None = None
) -> Setup:
    """A model trained on windows of latents, read from the cache; it may start from a finished stage."""
    training, validation = (
        LatentWindows(LatentSplit(cache, split), recipe.states, recipe.stride, strides)
        for split, strides in (("train", recipe.strides), ("valid", ()))
    )
    return _setup(recipe, sizes, training, validation, start)


def _setup(
    recipe: Recipe,
    sizes: dict[str, int],
    training: WindowSource,
    validation: WindowSource,
    start: AnyPath | None,
) -> Setup:
    setup = Setup(recipe.model.build(**sizes), training, validation)
    change = getattr(setup.model, "change", None)
    if change is not None:  # weights that it starts from bring their own scale, of the same channels
        windows = fixed_batches(training, seed=recipe.training.seed, samples=CHANGES, batch_size=1)
        change.fit((batch for batch, _ in windows), recipe.window)
    if start is None:
        return setup
    transfer = copy_weights(local_copy(start / WEIGHTS), setup.model)
    return dataclasses.replace(setup, notices=(transfer.describe(start.name),))
