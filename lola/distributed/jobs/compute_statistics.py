"""Statistics of a training set as a stage: read once, trajectory by trajectory, by Ray Data.

The other splits are read as well, for their faults alone: no number of theirs enters statistics.

    WellDatasource --a pass over each trajectory--> its moments and faults --> merged in order

A read task takes the moments where it reads, so that no state leaves it. They are a few numbers, and merged
in the order of trajectories, whenever they arrive: the result does not depend on workers.
"""

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import yaml

from lola.core.config import Config, NonNegativeInt, runtime_field
from lola.core.errors import MissingDataError
from lola.core.waiting import Log
from lola.data.faults import describe_faults, find_faults, merged, require_sound
from lola.data.statistics import statistics_table
from lola.data.systems import SPLITS, System
from lola.data.well.datasets import Datasets
from lola.data.well.scan import ScannedFile
from lola.data.well.simulation_files import simulation_files
from lola.data.well.splits import WellSplit, state_bytes
from lola.distributed.cluster.causes import unwrap_errors
from lola.distributed.cluster.resources import ResourceRequest
from lola.distributed.cluster.waits import log_while_waiting
from lola.distributed.jobs.datasource import READING_CPUS, iterate_tables, read_blocks
from lola.storage.event_log import EventLog
from lola.storage.remote import AnyPath
from lola.storage.stages import Stage, atomic_path

READING_REQUEST = ResourceRequest("reading tasks", "", 1, READING_CPUS)
SMALL_STATE = 2**26  # bytes; tasks that read larger ones ask for their memory


@dataclasses.dataclass(frozen=True, kw_only=True)
class StatisticsConfig(Config):
    """What statistics are taken of.

    Arguments:
        channels: The channels of the system.
        transforms: Their transforms.
        block: States read at once; 0 is as many as memory allows.
    """

    channels: tuple[str, ...]
    transforms: tuple[str, ...]
    block: NonNegativeInt = runtime_field(0)


def statistics_stage(root: AnyPath, system: System, dataset: str, block: int = 0) -> Stage:
    """The stage of the statistics of a training set.

    Arguments:
        dataset: The fingerprint of the training set.
        block: States read at once; 0 is as many as memory allows.
    """
    config = StatisticsConfig(channels=system.channels, transforms=system.transforms, block=block)
    inputs = {"dataset": dataset}
    return Stage(
        root=root, kind="statistics", system=system.name, what="statistics", config=config, inputs=inputs
    )


def compute_statistics(stage: Stage, system: System, datasets: Datasets, log: Log | None = None) -> None:
    """Take the statistics of a system's training set, write them to `stats.yaml` and commit the stage.

    Splits for validation and tests are searched for faults, if they exist.

    Arguments:
        log: Takes lines about waits; default: the stage's event log.

    Raises:
        DataError: A file cannot be read, or holds values with which training or scores would be spoilt.
        StorageError: A file cannot be reached.
    """
    config, log, started = stage.config, log or EventLog(stage.folder).notice, time.perf_counter()
    assert isinstance(config, StatisticsConfig)
    datasets = dataclasses.replace(datasets, statistics=None)
    split = datasets.open(system, "train")
    splits = [split, *_others(datasets, system)]
    found = {row["trajectory"]: row for row in _stream(splits, config.block, log)}
    rows, *others = ([found[each.id] for each in own.trajectories] for own in splits)
    physical, transformed = merged(rows)
    faults = find_faults(rows, transformed, system, [*itertools.chain(*others)])
    lines = describe_faults(faults)
    for line in lines:
        log(line)
    require_sound(faults, len(found))
    table = statistics_table(physical, transformed, system)
    table |= {"faults": lines, "excluded": list(split.excluded)}
    with atomic_path(stage.folder / "stats.yaml") as tmp_path:
        tmp_path.write_text(yaml.safe_dump(table, sort_keys=False))
    stage.commit(
        mean=transformed.mean.tolist(),
        std=transformed.std.tolist(),
        trajectories=len(rows),
        states=sum(row["states"] for row in rows),
        faults=lines,
        excluded=list(split.excluded),
        seconds=time.perf_counter() - started,
    )


def left_bounds(stage: Stage, system: System) -> list[str]:
    """Channels that leave the bounds of a system, which statistics that are finished may not know."""
    table = yaml.safe_load((stage.folder / "stats.yaml").read_text())
    low, high = (
        dict(
            zip(
                system.channels,
                np.concatenate([np.ravel(table[key][f.name]) for f in system.fields]),
                strict=True,
            )
        )
        for key in ("min", "max")
    )
    return [
        f"{each.channel} is from {low[each.channel]:g} to {high[each.channel]:g} in the training set, "
        f"outside its bounds {each.limits}"
        for each in system.bounds
        if not each.contain(low[each.channel], high[each.channel]).all()
    ]


def _others(datasets: Datasets, system: System) -> Iterator[WellSplit]:
    """The splits for validation and tests that exist."""
    for name in SPLITS[1:]:
        with contextlib.suppress(MissingDataError):
            yield datasets.open(system, name)


def _stream(splits: Sequence[WellSplit], block: int, log: Log) -> list[dict[str, Any]]:
    """What is found in each trajectory, in whatever order."""
    shards = [shard for split in splits for shard in simulation_files(split)]
    files = {number: ScannedFile(shard.split, shard.members) for number, shard in enumerate(shards)}
    large = max(state_bytes(split) * min(split.steps, max(1, block)) for split in splits)
    batches = iterate_tables(read_blocks(files, block, 2 * large if large > SMALL_STATE else None))
    logged = log_while_waiting(batches, "the reading of the datasets", READING_REQUEST, log)
    with unwrap_errors():
        return [row for batch in logged for row in batch.to_pylist()]
