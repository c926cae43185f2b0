"""A latent cache of one autoencoder, made outside a sweep as a stage that sweeps share, and its check."""

import dataclasses
from collections.abc import Iterator

from rich.console import Console

from lola.core.config import fingerprint, flatten
from lola.core.errors import DataError, StorageError
from lola.data.latent_shards import verify
from lola.data.well.datasets import Datasets
from lola.data.well.simulation_files import simulation_files
from lola.distributed.cluster.connection import connect, stopping_ray
from lola.distributed.jobs.encode import dataset_fingerprint, open_splits
from lola.distributed.runner.tune import following_stages
from lola.distributed.trials import Step, Trial, make
from lola.emulation.cache_config import CacheConfig
from lola.emulation.emulator import trained_system
from lola.models.autoencoder_config import CodecConfig
from lola.storage.event_log import FILE_NAME, read_events
from lola.storage.progress import Progress
from lola.storage.registry import find_stage
from lola.storage.remote import AnyPath
from lola.storage.stages import Stage, manifests, read_manifest
from lola.storage.tracking import Tracker
from lola.workflows.base_plan import stage_tags
from lola.workflows.model_shape import read_model_config
from lola.workflows.steps import cache_step


def plan_cache(
    root: AnyPath, datasets: Datasets, autoencoder: str, config: CacheConfig, same_block: bool = False
) -> Step:
    """The making of the cache of a dataset by an autoencoder: a sweep with the same options has the same.

    Arguments:
        autoencoder: Names the autoencoder, as for `find_stage`.
        same_block: Whether to take a cache that exists, finished or not, and differs in its block size alone.

    Raises:
        LolaError: The autoencoder or the data do not exist, or are faulty.
    """
    model = find_stage(root, autoencoder, "autoencoders")
    manifest = read_manifest(model)
    splits, _ = open_splits(datasets, trained_system(model), config)
    codec = read_model_config(manifest)
    assert isinstance(codec, CodecConfig)
    codec.check_grid(splits["train"].grid)
    stage = Stage(
        root=root,
        kind="latents",
        system=manifest["system"],
        what=f"latents-{manifest['what'].removeprefix('autoencoder-')}",
        config=config,
        inputs={
            "dataset": dataset_fingerprint(splits),
            "autoencoder": manifest["fingerprint"],
            **{role: manifest["inputs"][role] for role in ("statistics",) if role in manifest["inputs"]},
        },
    )
    if same_block:
        stage = next(_existing(stage), stage)
    tags = stage_tags("latents", stage.system, "autoencoder", codec.compression(**manifest["sizes"]))
    files = sum(len(simulation_files(split)) for split in splits.values())
    return cache_step(stage, model, datasets, tags, files)


def _existing(stage: Stage) -> Iterator[Stage]:
    """The caches in the storage root that differ from one in their block size alone, finished ones first."""
    folders = [path.parent for path in manifests(stage.root, "latents")]
    folders += sorted({path.parent for path in (stage.root / "latents").glob(f"*/{FILE_NAME}")})
    for folder in folders:
        described = (event for _, event in read_events(folder) if event["kind"] == "describe")
        block = next((event["parameters"].get("block") for event in described), None)
        if block is not None:
            other = dataclasses.replace(stage, config=stage.config.replace(block=block))
            if other.folder == folder:
                yield other


def make_cache(cache: Step, root: AnyPath) -> None:
    """Make a cache that is not finished, with a run in MLflow, from wherever an earlier call left it.

    Raises:
        LolaError: Data or storage are at fault; finished shards are kept.
    """
    progress, stage = Progress(Console()), cache.stage
    config = stage.config
    assert isinstance(config, CacheConfig)
    tracker = Tracker(root, stage.system, progress.log)
    tracker.start_sweep(
        f"cache {stage.what}", fingerprint("cache", stage.fingerprint), flatten(config.to_json())
    )
    with (
        stopping_ray(progress.log),
        tracker.finish_on_error(),
        following_stages([Trial("cache", (cache,))], tracker, progress),
        stage.logged_lease(progress.log),
    ):
        if stage.finished:
            progress.log(f"{stage.name} is finished already")
            for split in stage.manifest()["splits"].values():
                for file, reason in split["skipped"].items():
                    progress.log(f"left out {file}: {reason}")
        else:
            progress.log(f"encoding; a sweep reuses this cache if it is given --cache.block {config.block}")
            if config.actors > 1 or config.gpus:
                connect(progress.log)
            make(cache)
    tracker.finish_sweep(None, "FINISHED")
    for line in tracker.directions:
        progress.log(line)
    if tracker.missing:
        progress.log(tracker.missing)


def finished_caches(root: AnyPath, autoencoder: str) -> list[AnyPath]:
    """The folders of all finished caches of an autoencoder, whatever their options.

    Arguments:
        autoencoder: Names the autoencoder, as for `find_stage`.

    Raises:
        LolaError: The autoencoder does not exist, or has no finished cache.
    """
    model = find_stage(root, autoencoder, "autoencoders")
    wanted = read_manifest(model)["fingerprint"]
    folders = [path.parent for path in manifests(root, "latents")]
    found = [folder for folder in folders if read_manifest(folder)["inputs"].get("autoencoder") == wanted]
    if not found:
        raise StorageError(
            f"{root} has no finished latent cache of {model.name}; "
            "the same command without --verify makes one"
        )
    return found


def verify_cache(folder: AnyPath) -> None:
    """Check every row group of a finished cache against its manifest.

    Raises:
        DataError: Row groups are corrupt; all are printed, and the first is named.
        StorageError: The cache is not finished.
    """
    faults = []
    for fault in verify(folder):
        print(fault, flush=True)
        faults.append(fault)
    if faults:
        raise DataError(
            f"faults of {folder}: {len(faults)}, the first {faults[0]}; delete the shards that are named and "
            "manifest.json, and the same command without --verify encodes these again"
        )
