"""A Ray Data source that streams The Well's HDF5 files as blocks of consecutive states.

A read task covers one file and yields block by block, so that no file is ever held whole.
"""

import functools
from collections.abc import Mapping

from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata

from lola.data.well.simulation_files import SimulationFile


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
        """Bytes of all blocks."""
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
