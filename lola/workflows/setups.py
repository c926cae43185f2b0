"""What the workers of a sweep's trainings build: a model, and where its windows are read from."""

from lola.data.latents import LatentSplit, LatentWindows
from lola.data.systems import System
from lola.data.transforms import Standardisation
from lola.data.well.datasets import Datasets
from lola.data.well.windows import WellWindows
from lola.distributed.jobs.train import Setup
from lola.storage.remote import AnyPath
from lola.workflows.sweep import Recipe


def field_setup(
    recipe: Recipe,
    datasets: Datasets,
    system: System,
    sizes: dict[str, int],
    length: int,
    stride: int,
) -> Setup:
    """A model trained on windows of fields, read from HDF5."""
    splits = (datasets.open(system, "train"), recipe.symmetries), (datasets.open(system, "valid"), None)
    sources = [
        WellWindows(split, Standardisation(split.system), length, stride, symmetries)
        for split, symmetries in splits
    ]
    return Setup(recipe.model.build(**sizes), *sources)


def latent_setup(recipe: Recipe, cache: AnyPath, sizes: dict[str, int]) -> Setup:
    """A model trained on windows of latents, read from the cache."""
    sources = [
        LatentWindows(LatentSplit(cache, split), recipe.window, recipe.stride) for split in ("train", "valid")
    ]
    return Setup(recipe.model.build(**sizes), *sources)
