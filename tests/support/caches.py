"""Latent caches for tests: encoded with three variants in blocks of eight states."""

from pathlib import Path

from lola.data.description import EULER
from lola.data.well.datasets import Datasets
from lola.distributed.jobs.encode import dataset_fingerprint, encode, open_splits
from lola.emulation.cache_config import CacheConfig
from lola.storage.remote import AnyPath
from lola.storage.stages import Stage

CONFIG = CacheConfig(block=8, variants=3)


def cache_of(root: AnyPath, well: Path, autoencoder: Stage, config: CacheConfig = CONFIG) -> Stage:
    """The stage of a cache."""
    splits, _ = open_splits(Datasets(well), EULER, config)
    return Stage(
        root=root,
        kind="latents",
        system="euler",
        what="latents-f8c16",
        config=config,
        inputs={"dataset": dataset_fingerprint(splits), "autoencoder": autoencoder.fingerprint},
    )


def encode_cache(root: AnyPath, well: Path, autoencoder: Stage, config: CacheConfig = CONFIG) -> Stage:
    """The finished stage of a cache."""
    stage = cache_of(root, well, autoencoder, config)
    encode(stage, autoencoder.folder, Datasets(well), config)
    return stage
