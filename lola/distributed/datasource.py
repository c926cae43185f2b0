"""A Ray Data source that streams The Well's HDF5 files as blocks of consecutive states.

A row is one time block of one trajectory, of a fixed number of states; the last block of a trajectory is
filled up by repeating its last state, and `count` says how many are real. A read task covers one file and
yields block by block, so that no file is ever held whole.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping

import pyarrow as pa
import torch
from ray.data import Datasource, ReadTask
from ray.data.block import Block, BlockMetadata

from lola.data.latents import tensor_column
from lola.data.well import WellSplit
from lola.storage import Location


@dataclasses.dataclass(frozen=True)
class Shard:
    """One file to read.

    Arguments:
        split: The split that the file belongs to.
        members: Its trajectories, by their number in the split.
    """

    split: WellSplit
    members: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes of all states in memory."""
        state = 4 * len(self.split.system.channels) * math.prod(self.split.grid)
        return len(self.members) * self.split.steps * state

    def rows(self, states: int) -> int:
        """Blocks of a number of states."""
        return len(self.members) * -(-self.split.steps // states)

    def blocks(self, number: int, states: int) -> Iterator[Block]:
        """The file's blocks in order, under the number of the shard."""
        for index in self.members:
            for start in range(0, self.split.steps, states):
                x = self.split.read(index, start, min(start + states, self.split.steps)).movedim(1, 0)
                fill = x[-1:].expand(states - len(x), *x.shape[1:])
                yield pa.table(
                    {
                        "shard": pa.array([number], pa.int32()),
                        "trajectory": pa.array([index], pa.int32()),
                        "start": pa.array([start], pa.int32()),
                        "count": pa.array([len(x)], pa.int32()),
                        "states": tensor_column([torch.cat([x, fill]).numpy()]),
                    }
                )


def shards_of(split: WellSplit) -> list[Shard]:
    """The files of a split, in order."""
    files: dict[Location, list[int]] = {}
    for index, trajectory in enumerate(split.trajectories):
        files.setdefault(trajectory.file, []).append(index)
    return [Shard(split, tuple(members)) for members in files.values()]


class WellDatasource(Datasource):
    """Blocks of states of some shards.

    Arguments:
        shards: The files by their number, which the rows carry.
        states: States per block.
    """

    def __init__(self, shards: Mapping[int, Shard], states: int) -> None:
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
