"""Encode a dataset into a latent cache: `cache_latents.py AUTOENCODER [--option value ...]`."""

import dataclasses

import tyro

from lola.core.cli import launch_alone
from lola.core.config import Count, require, runtime_field
from lola.core.waiting import loading
from lola.emulation.cache_config import CacheConfig
from lola.storage.stages import resolve_storage, well_folder


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentCache(CacheConfig):
    """The data that are encoded, and the autoencoder.

    Arguments:
        block: Maximum number of states encoded at once; default: that of an existing cache with otherwise
            equal options, else 25.
        autoencoder: A stage's folder, name or fingerprint, runs:/RUN_ID, or the name of a registered model.
        include: Encode only simulation files whose name contains one of these; default: all files.
        exclude: Skip simulation files whose name contains one of these, and trajectories FILE#NUMBER.
        verify: Check all finished caches of the autoencoder against their checksums; encode nothing.
        system: The folder of a dataset, or a description file, of which a sweep had --system; else the
            autoencoder's datasets are in --well.
        well: The folder of Well datasets, absolute or under the storage root, or a URL.
        storage: The storage root, a folder or a URL; else LOLA_STORAGE, else ~/lola-storage.
    """

    block: Count | None = None  # type: ignore[assignment]
    autoencoder: tyro.conf.Positional[str]
    include: tuple[str, ...] = runtime_field(())
    exclude: tuple[str, ...] = runtime_field(())
    verify: bool = runtime_field(False)
    system: str | None = runtime_field(None)
    well: str = runtime_field("well")
    storage: str | None = runtime_field(None)

    def cache(self) -> CacheConfig:
        """The options that a sweep's cache has too."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(CacheConfig)}
        return CacheConfig(**{name: value for name, value in values.items() if value is not None})


def main(config: LatentCache) -> None:
    """Encode a dataset with a trained autoencoder. Finished shards are kept; an interrupted job resumes.

    The cache is the stage that a sweep with the same options would make, or reuse.
    """
    with loading():
        from lola.data.well.datasets import Datasets
        from lola.data.well.find import find_system
        from lola.workflows.latent_cache import finished_caches, make_cache, plan_cache, verify_cache

    root = resolve_storage(config.storage)
    if config.verify:
        for folder in finished_caches(root, config.autoencoder):
            verify_cache(folder)
            print(f"all row groups match their checksums: {folder}", flush=True)
        return
    datasets = Datasets(well_folder(root, config.well), config.include, config.exclude)
    if config.system:
        system, datasets = find_system(config.system, datasets)
    cache = plan_cache(root, datasets, config.autoencoder, config.cache(), config.block is None)
    require(
        not config.system or system.name == cache.stage.system,
        f"--system {config.system} is not {cache.stage.system}, the system of the autoencoder",
    )
    make_cache(cache, root)
    print(f"cache: {cache.stage.folder}")


if __name__ == "__main__":
    launch_alone(main, LatentCache)
