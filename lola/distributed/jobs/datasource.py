"""A Ray Data source that streams The Well's HDF5 files as blocks of consecutive states.

A read task covers one file and yields block by block, so that no file is ever held whole.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import ray.data
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata

from lola.data.well.simulation_files import SimulationFile
from lola.distributed.cluster.connection import configure_ray_data

READING_CPUS = 0.25


def map_blocks(
    shards: Mapping[int, SimulationFile],
    states: int,
    function: Callable[..., Any],
    *,
    ordered: bool = False,
    readers: int | None = None,
    **options: Any,
) -> Iterator[pa.Table]:
    """What a function, or an actor's class, makes of every block of `states` states, by Ray Data.

    Arguments:
        shards: The files by their number.
        ordered: Whether results come in the order of the blocks, rather than as they are ready.
        readers: The most files that are read at once.
        options: Those of `ray.data.Dataset.map_batches`.
    """
    results = read_blocks(shards, states, readers=readers).map_batches(
        function, batch_size=1, batch_format="pyarrow", **options
    )
    results.context.execution_options.preserve_order = ordered
    return iterate_tables(results)


def read_blocks(
    shards: Mapping[int, SimulationFile],
    states: int,
    memory: float | None = None,
    readers: int | None = None,
) -> ray.data.Dataset:
    """The blocks of some shards, read by at most `readers` tasks at once.

    Each asks for an amount of memory (bytes), if any.
    """
    configure_ray_data()
    source = WellDatasource(shards, states)
    return ray.data.read_datasource(source, num_cpus=READING_CPUS, memory=memory, concurrency=readers)


def iterate_tables(dataset: ray.data.Dataset) -> Iterator[pa.Table]:
    """The batches of a dataset as they are ready."""
    for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
        assert isinstance(table, pa.Table)
        yield table


class WellDatasource(Datasource):
    """Blocks of states of some shards.

    Arguments:
        shards: The files by their number, which the rows carry.
        states: States per block.
    """

    def __init__(self, shards: Mapping[int, SimulationFile], states: int) -> None:
        super().__init__()
        self.shards, self.states = dict(shards), states

    def estimate_inmemory_data_size(self) -> int:
        return sum(shard.size for shard in self.shards.values())

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: object = None
    ) -> list[ReadTask]:
        """One task per file, whatever parallelism is asked for: a file is read once, in order."""
        return [
            ReadTask(
                functools.partial(shard.blocks, number, self.states),
                BlockMetadata(
                    num_rows=shard.rows(self.states),
                    size_bytes=shard.size,
                    input_files=(str(shard.split.trajectories[shard.members[0]].file),),
                    exec_stats=None,
                ),
                per_task_row_limit=per_task_row_limit,
            )
            for number, shard in self.shards.items()
        ]
