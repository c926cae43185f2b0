"""Encoding a dataset into a latent cache: encoded blocks arrive in order, and one writer commits them.

    encoded blocks --by shard, by trajectory--> row groups --> shard, renamed --> manifest

The writer holds one trajectory at a time. A shard that exists is whole and is not encoded again, so that
a job that was killed goes on with the shard that it was at, and ends with the same bytes.
"""

import itertools
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from lola.core.config import fingerprint
from lola.core.errors import DataError
from lola.core.waiting import Log
from lola.data.latent_shards import describe_shards, shapes, shard_error, shard_path, write_shard
from lola.data.latents import LatentTrajectory
from lola.data.systems import SPLITS, System
from lola.data.well.datasets import Datasets
from lola.data.well.simulation_files import simulation_files
from lola.data.well.splits import WellSplit
from lola.distributed.jobs.blocks import EncodedBlock, FaultReportingFile, encoded_blocks
from lola.emulation.cache_config import CacheConfig
from lola.emulation.emulator import trained_system
from lola.emulation.encoding import variants_of
from lola.storage.event_log import EventLog
from lola.storage.remote import AnyPath, find_files
from lola.storage.stages import Stage


def open_splits(
    datasets: Datasets, system: System, config: CacheConfig
) -> tuple[dict[str, WellSplit], dict[str, str]]:
    """The splits that a cache is made of, and what is wrong with files that are left out, by their names.

    Raises:
        DataError: There are no files, or one cannot be used and is not to be skipped.
    """
    faults: dict[str, str] = {}
    left_out = faults if config.skip_bad_shards else None
    datasets.check(system)
    return {name: datasets.open(system, name, left_out) for name in SPLITS}, faults


def dataset_fingerprint(splits: dict[str, WellSplit]) -> str:
    return fingerprint({name: split.fingerprint for name, split in splits.items()})


def encode(stage: Stage, model: AnyPath, datasets: Datasets, config: CacheConfig) -> None:
    """Encode every split of a system's datasets and commit the cache; finished shards are kept.

    Arguments:
        model: The folder of the finished autoencoder that encodes.

    Raises:
        DataError: A simulation file cannot be read, and is not to be skipped.
        StorageError: The storage is full or read-only; finished shards are kept.
    """
    started = time.perf_counter()
    splits, faults = open_splits(datasets, trained_system(model), config)
    files = [
        (name, shard_path(stage.folder, name, number), FaultReportingFile(shard.split, shard.members))
        for name in splits
        for number, shard in enumerate(simulation_files(splits[name]))
    ]
    event_log, existing = EventLog(stage.folder), set()
    for name, fault in faults.items():
        event_log.notice(f"left out {name}: {fault}")
    for path in find_files(stage.folder):
        if path.name.startswith(".shard-"):  # a killed job's; under the lease no other process writes them
            path.unlink()
        elif path.suffix == ".parquet":
            fault = shard_error(path) if isinstance(path, Path) else ""  # objects appear whole
            if fault:
                event_log.notice(f"{fault}; it is encoded again")
                path.unlink()
            else:
                existing.add(path)
    missing = {i: shard for i, (_, path, shard) in enumerate(files) if path not in existing}
    done, encoded = len(files) - len(missing), 0
    if missing:
        since = time.perf_counter()
        paths = [path for _, path, _ in files]
        longest = max(shard.steps for _, _, shard in files)
        for number, fault in _encode_shards(missing, longest, paths, model, config, event_log.waiting):
            _, path, shard = files[number]
            if fault:
                faults[_name(shard)] = fault
                event_log.notice(f"left out {_name(shard)}: {fault}")
            else:
                states, took = _states(shard, config), time.perf_counter() - since
                done, encoded = done + 1, encoded + states
                rates = {
                    "encode/states_per_second": states / took,
                    "encode/bytes_per_second": path.stat().st_size / took,
                }
                event_log.metrics(done, {"progress/shards": done} | rates)
            since = time.perf_counter()
    existing = set(find_files(stage.folder))
    seconds = time.perf_counter() - started
    stage.commit(
        **_describe(splits, [file for file in files if file[1] in existing], faults),
        autoencoder=model.name,
        seconds=seconds,
        # The encoders' own; None if there was nothing to do
        speed={
            "seconds_per_state": seconds * config.actors / encoded if encoded else None,
            "gpus": config.gpus,
        },
    )


def _states(shard: FaultReportingFile, config: CacheConfig) -> int:
    """States of a shard, variants included."""
    return len(shard.members) * shard.steps * variants_of(shard, config)


def _encode_shards(
    missing: dict[int, FaultReportingFile],
    longest: int,
    paths: list[AnyPath],
    model: AnyPath,
    config: CacheConfig,
    log: Log,
) -> Iterator[tuple[int, str]]:
    """Write the missing shards; yields each one's number and, if it was skipped, why."""
    blocks = encoded_blocks(missing, longest, model, config, log)
    for number, own in itertools.groupby(blocks, key=lambda block: block.shard):
        fault = ""
        try:
            write_shard(
                paths[number], _trajectories(own, missing[number], variants_of(missing[number], config))
            )
        except DataError as error:
            if not config.skip_bad_shards:
                raise DataError(
                    f"{error}; --skip-bad-shards (--cache.skip-bad-shards in a sweep) leaves it out"
                ) from error
            fault = str(error)
        yield number, fault


def _trajectories(
    blocks: Iterable[EncodedBlock], shard: FaultReportingFile, variants: int
) -> Iterator[LatentTrajectory]:
    """Join the blocks of each trajectory and variant of a shard; none may be missing.

    Raises:
        DataError: A block carries a fault.
    """
    written = 0
    for index, own in itertools.groupby(blocks, key=lambda block: block.trajectory):
        parts: list[list[np.ndarray]] = [[] for _ in range(variants)]
        parameters: dict[int, np.ndarray] = {}
        for block in own:
            if block.fault:
                raise DataError(block.fault)
            parts[block.variant].append(block.latents)
            parameters[block.variant] = block.parameters
        for variant, latents in enumerate(parts):
            whole = np.concatenate(latents)
            if len(whole) != shard.steps:
                raise DataError(f"{len(whole)} states of {shard.steps} of {_name(shard)} were encoded")
            yield LatentTrajectory(shard.split.trajectories[index].id, variant, parameters[variant], whole)
            written += 1
    if written != variants * len(shard.members):
        raise DataError(f"{written} rows of {len(shard.members)} trajectories of {_name(shard)} were encoded")


def _describe(
    splits: dict[str, WellSplit],
    files: list[tuple[str, AnyPath, FaultReportingFile]],
    faults: dict[str, str],
) -> dict:
    """What the manifest says of the shards, with the simulation files that they are of."""
    described = {}
    for name, split in splits.items():
        own = [(path, shard) for each, path, shard in files if each == name]
        skipped = {file: fault for file, fault in faults.items() if file.split("/")[1] == name}
        if not own:
            raise DataError(f"no file of the {name} split can be encoded: {next(iter(skipped.values()))}")
        described[name] = describe_shards([path for path, _ in own])
        for entry, (_, shard) in zip(described[name]["shards"], own, strict=True):
            entry["file"] = _name(shard)
        described[name] |= {
            "dataset": split.fingerprint,
            "skipped": skipped,
            "excluded": list(split.excluded),
        }
    (_, *shape), parameters = shapes(files[0][1])
    longest = max(shard.steps for _, _, shard in files)
    return {"shape": [longest, *shape], "parameters": parameters, "splits": described}


def _name(shard: FaultReportingFile) -> str:
    """`<dataset>/<split>/<file>` of a shard."""
    return shard.split.trajectories[shard.members[0]].id.rpartition("#")[0]
