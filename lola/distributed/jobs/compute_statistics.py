"""Statistics of a training set as a stage: read once, trajectory by trajectory, by Ray Data.

    WellDatasource --a pass over each trajectory--> its moments and faults --> merged in order

A read task takes the moments where it reads, so that no state leaves it. They are a few numbers, and merged
in the order of trajectories, whenever they arrive: the result does not depend on workers.
"""

import dataclasses
import time
from typing import Any

import yaml

from lola.core.config import Config, NonNegativeInt, runtime_field
from lola.core.waiting import Log
from lola.data.faults import describe_faults, find_faults, merged, require_sound
from lola.data.statistics import statistics_table
from lola.data.systems import System
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

    Arguments:
        log: Takes lines about waits; default: the stage's event log.

    Raises:
        DataError: A file cannot be read, or holds values with which training would be spoilt.
        StorageError: A file cannot be reached.
    """
    config, log, started = stage.config, log or EventLog(stage.folder).notice, time.perf_counter()
    assert isinstance(config, StatisticsConfig)
    split = dataclasses.replace(datasets, statistics=None).open(system, "train")
    order = {trajectory.id: number for number, trajectory in enumerate(split.trajectories)}
    rows = sorted(_stream(split, config.block, log), key=lambda row: order[row["trajectory"]])
    physical, transformed = merged(rows)
    faults = find_faults(rows, transformed, system)
    lines = describe_faults(faults)
    for line in lines:
        log(line)
    require_sound(faults, len(rows))
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


def _stream(split: WellSplit, block: int, log: Log) -> list[dict[str, Any]]:
    """What is found in each trajectory, in whatever order."""
    files = {
        number: ScannedFile(file.split, file.members) for number, file in enumerate(simulation_files(split))
    }
    large = state_bytes(split) * min(split.steps, max(1, block))
    batches = iterate_tables(read_blocks(files, block, 2 * large if large > SMALL_STATE else None))
    logged = log_while_waiting(batches, "the reading of the training set", READING_REQUEST, log)
    with unwrap_errors():
        return [row for batch in logged for row in batch.to_pylist()]
