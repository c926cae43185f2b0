"""Statistics of a training set as a stage: read once, block by block, by Ray Data.

    WellDatasource --blocks of states--> moments of each block --> merged in the order of the blocks

The moments of a block are a few numbers. They are merged in order, whenever they arrive, so that the result
does not depend on workers.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import yaml

from lola.core.config import Config, Count, runtime_field
from lola.core.errors import DataError
from lola.core.waiting import Log
from lola.data.statistics import Moments, channel_moments, statistics_table
from lola.data.systems import System
from lola.data.well.datasets import Datasets
from lola.data.well.simulation_files import SimulationFile, simulation_files
from lola.distributed.cluster.causes import unwrap_errors
from lola.distributed.cluster.resources import ResourceRequest
from lola.distributed.cluster.waits import log_while_waiting
from lola.distributed.jobs.datasource import READING_CPUS, map_blocks
from lola.storage.event_log import EventLog
from lola.storage.remote import AnyPath
from lola.storage.stages import Stage, atomic_path

READING_REQUEST = ResourceRequest("reading tasks", "", 1, READING_CPUS)
PARTS = ("mean", "squares", "minimum", "maximum")


@dataclasses.dataclass(frozen=True, kw_only=True)
class StatisticsConfig(Config):
    """What statistics are taken of.

    Arguments:
        channels: The channels of the system.
        transforms: Their transforms.
        block: States read at once.
    """

    channels: tuple[str, ...]
    transforms: tuple[str, ...]
    block: Count = runtime_field(16)


def statistics_stage(root: AnyPath, system: System, dataset: str, block: int = 16) -> Stage:
    """The stage of the statistics of a training set.

    Arguments:
        dataset: The fingerprint of the training set.
    """
    config = StatisticsConfig(channels=system.channels, transforms=system.transforms, block=block)
    inputs = {"dataset": dataset}
    return Stage(
        root=root, kind="statistics", system=system.name, what="statistics", config=config, inputs=inputs
    )


def compute_statistics(stage: Stage, system: System, datasets: Datasets, log: Log | None = None) -> None:
    """Take the statistics of a system's training set, write them to `stats.yaml` and commit the stage.

    Arguments:
        log: Takes lines about waits; default: the stage's event log.

    Raises:
        DataError: A file cannot be read, or holds values that no physical field has.
        StorageError: A file cannot be reached.
    """
    config = stage.config
    assert isinstance(config, StatisticsConfig)
    split = dataclasses.replace(datasets, statistics=None).open(system, "train")
    rows = _stream(
        dict(enumerate(simulation_files(split))), config.block, log or EventLog(stage.folder).notice
    )
    physical, transformed = merged(rows)
    with atomic_path(stage.folder / "stats.yaml") as tmp_path:
        tmp_path.write_text(yaml.safe_dump(statistics_table(physical, transformed, system), sort_keys=False))
    stage.commit(
        mean=transformed.mean.tolist(),
        std=transformed.std.tolist(),
        trajectories=len({row["trajectory"] for row in rows}),
        states=physical.count // math.prod(split.grid),
    )


def _stream(shards: Mapping[int, SimulationFile], block: int, log: Log) -> list[dict[str, Any]]:
    """The moments of every block, in whatever order."""
    states = min(block, min(shard.split.steps for shard in shards.values()))
    batches = map_blocks(
        shards, states, functools.partial(block_moments, shards=shards), num_cpus=READING_CPUS
    )
    logged = log_while_waiting(batches, "the reading of the training set", READING_REQUEST, log)
    with unwrap_errors():
        return [row for batch in logged for row in batch.to_pylist()]


def block_moments(batch: pa.Table, shards: Mapping[int, SimulationFile]) -> pa.Table:
    """The moments of one block of states: its place, and lists `(2 C,)`, of physical and transformed fields.

    Raises:
        DataError: A value is outside the domain of its channel's transform.
    """
    (entry,) = batch.drop_columns(["states"]).to_pylist()
    split = shards[entry["shard"]].split
    states = batch["states"].combine_chunks().to_numpy_ndarray()[0, : entry["count"]]
    try:
        both = channel_moments(torch.from_numpy(states.copy()).movedim(0, 1), split.system)
    except DataError as error:
        source = split.trajectories[entry["trajectory"]]
        raise DataError(f"{source.id} ({source.file}): {error}; simulate or fetch it again") from error
    columns = {name: np.concatenate([getattr(moments, name) for moments in both]) for name in PARTS}
    return pa.table(
        {"trajectory": [entry["trajectory"]], "start": [entry["start"]], "values": [both[0].count]}
        | {name: pa.array([column.tolist()], pa.list_(pa.float64())) for name, column in columns.items()}
    )


def merged(rows: list[dict[str, Any]]) -> tuple[Moments, Moments]:
    """The moments of all blocks, before and after the transforms, from the rows of `block_moments`."""
    both = Moments(), Moments()
    for row in sorted(rows, key=lambda row: (row["trajectory"], row["start"])):
        halves = zip(*(np.split(np.array(row[name]), 2) for name in PARTS), strict=True)
        for moments, parts in zip(both, halves, strict=True):
            moments.merge(Moments(row["values"], *parts))
    return both
