"""Statistics of a training set as a stage: read once, trajectory by trajectory, by Ray Data.

The other splits are read for their faults alone, as a stage of their own, which depends on their files: no
number of theirs enters statistics, and statistics stay where these files change.

    WellDatasource --a pass over each trajectory--> its moments and faults --> merged in order

A read task takes the moments where it reads, so that no state leaves it. They are a few numbers, and merged
in the order of trajectories, whenever they arrive: the result does not depend on workers.
"""

import contextlib
import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from lola.core.config import Config, NonNegativeInt, runtime_field
from lola.core.errors import MissingDataError
from lola.core.waiting import Log
from lola.data.faults import describe_faults, find_faults, merged, require_sound
from lola.data.statistics import statistics_table
from lola.data.systems import SPLITS, System
from lola.data.well.datasets import Datasets
from lola.data.well.scan import Fault, ScannedFile
from lola.data.well.simulation_files import simulation_files
from lola.data.well.splits import WellSplit, state_bytes
from lola.distributed.cluster.causes import unwrap_errors
from lola.distributed.cluster.resources import ResourceRequest
from lola.distributed.cluster.waits import log_while_waiting
from lola.distributed.jobs.datasource import READING_CPUS, iterate_tables, read_blocks
from lola.storage.event_log import EventLog
from lola.storage.inventory import FAULTS
from lola.storage.remote import AnyPath, file_exists, read_bytes
from lola.storage.stages import Stage, atomic_path

READING_REQUEST = ResourceRequest("reading tasks", "", 1, READING_CPUS)
SCANNED = "scanned.parquet"  # what was found in each trajectory of the training set
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class StatisticsStage(Stage):
    """The statistics of a training set, finished when the other splits have been searched for faults as well.

    Arguments:
        others: The fingerprints of these splits by name, on which no number depends.
    """

    others: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def check(self) -> Stage:
        """The stage of that search."""
        inputs = {"statistics": self.fingerprint, **self.others}
        return Stage(
            root=self.root,
            kind=self.kind,
            system=self.system,
            what=FAULTS,
            config=self.config,
            inputs=inputs,
        )

    @property
    def has_statistics(self) -> bool:
        """Whether the statistics are finished."""
        return super().finished

    @property
    def finished(self) -> bool:
        return self.has_statistics and (not self.others or self.check.finished)


def statistics_stage(
    root: AnyPath, system: System, dataset: str, block: int = 0, others: Mapping[str, str] | None = None
) -> StatisticsStage:
    """The stage of the statistics of a training set.

    Arguments:
        dataset: The fingerprint of the training set.
        block: States read at once; 0 is as many as memory allows.
        others: The fingerprints of the other splits that are to be searched for faults.
    """
    config = StatisticsConfig(channels=system.channels, transforms=system.transforms, block=block)
    return StatisticsStage(
        root=root,
        kind="statistics",
        system=system.name,
        what="statistics",
        config=config,
        inputs={"dataset": dataset},
        others=others or {},
    )


def compute_statistics(
    stage: StatisticsStage, system: System, datasets: Datasets, log: Log | None = None
) -> None:
    """Take the statistics of a training set, and search the other splits, as far as that is not finished.

    Arguments:
        log: Takes lines about waits; default: the stage's event log.

    Raises:
        DataError: A file cannot be read, or holds values with which training or scores would be spoilt.
        StorageError: A file cannot be reached.
    """
    log = log or EventLog(stage.folder).notice
    if not stage.has_statistics:
        _compute(stage, system, datasets, log)
    if not stage.finished:
        _check(stage.check, stage, system, datasets, log)


def _compute(stage: Stage, system: System, datasets: Datasets, log: Log) -> None:
    """Write the statistics to `stats.yaml` and commit the stage."""
    config, started = stage.config, time.perf_counter()
    assert isinstance(config, StatisticsConfig)
    split = dataclasses.replace(datasets, statistics=None).open(system, "train")
    rows = _scan([split], config.block, log)
    physical, transformed = merged(rows)
    lines = _require_sound(find_faults(rows, transformed, system), len(rows), log)
    table = statistics_table(physical, transformed, system)
    table |= {"faults": lines, "excluded": list(split.excluded)}
    with atomic_path(stage.folder / "stats.yaml") as tmp_path:
        tmp_path.write_text(yaml.safe_dump(table, sort_keys=False))
    with atomic_path(stage.folder / SCANNED) as tmp_path:
        pq.write_table(pa.Table.from_pylist(rows), tmp_path)
    stage.commit(
        mean=transformed.mean.tolist(),
        std=transformed.std.tolist(),
        trajectories=len(rows),
        states=sum(row["states"] for row in rows),
        faults=lines,
        excluded=list(split.excluded),
        seconds=time.perf_counter() - started,
    )


def _check(stage: Stage, statistics: Stage, system: System, datasets: Datasets, log: Log) -> None:
    """Search the splits for validation and tests that exist for faults, and commit the stage.

    They are compared with what was found in the training set, which is read again if that was not kept.
    """
    config, started = stage.config, time.perf_counter()
    assert isinstance(config, StatisticsConfig)
    datasets = dataclasses.replace(datasets, statistics=None)
    splits = list(other_splits(datasets, system).values())
    others = _scan(splits, config.block, log)
    path = statistics.folder / SCANNED
    if file_exists(path):
        rows = pq.read_table(pa.BufferReader(read_bytes(path))).to_pylist()
    else:  # an earlier version made them
        rows = _scan([datasets.open(system, "train")], config.block, log)
    known = {row["trajectory"] for row in others}
    faults = find_faults(rows, merged(rows)[1], system, others)
    lines = _require_sound([fault for fault in faults if fault.trajectory in known], len(others), log)
    stage.commit(
        trajectories=len(others),
        states=sum(row["states"] for row in others),
        faults=lines,
        excluded=[name for split in splits for name in split.excluded],
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


def other_splits(datasets: Datasets, system: System) -> dict[str, WellSplit]:
    """The splits for validation and tests that exist, by name."""
    found = {}
    for name in SPLITS[1:]:
        with contextlib.suppress(MissingDataError):
            found[name] = datasets.open(system, name)
    return found


def _scan(splits: Sequence[WellSplit], block: int, log: Log) -> list[dict[str, Any]]:
    """What is found in each trajectory, in their order."""
    found = {row["trajectory"]: row for row in (_stream(splits, block, log) if splits else ())}
    return [found[each.id] for split in splits for each in split.trajectories]


def _require_sound(faults: Sequence[Fault], trajectories: int, log: Log) -> list[str]:
    """Log lines about faults, and return them, unless some spoil training or scores."""
    lines = describe_faults(faults)
    for line in lines:
        log(line)
    require_sound(faults, trajectories)
    return lines


def _stream(splits: Sequence[WellSplit], block: int, log: Log) -> list[dict[str, Any]]:
    """What is found in each trajectory, in whatever order."""
    shards = [shard for split in splits for shard in simulation_files(split)]
    files = {number: ScannedFile(shard.split, shard.members) for number, shard in enumerate(shards)}
    large = max(state_bytes(split) * min(split.steps, max(1, block)) for split in splits)
    batches = iterate_tables(read_blocks(files, block, 2 * large if large > SMALL_STATE else None))
    logged = log_while_waiting(batches, "the reading of the datasets", READING_REQUEST, log)
    with unwrap_errors():
        return [row for batch in logged for row in batch.to_pylist()]
