"""A Ray Data source that streams The Well's HDF5 files as blocks of consecutive states.

A row is one time block of one trajectory, of a fixed number of states; the last block of a trajectory is
filled up by repeating its last state, and `count` says how many are real. A read task covers one file and
yields block by block, so that no file is ever held whole.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import torch
from ray.data import Datasource, ReadTask
from ray.data.block import Block, BlockMetadata

from lola.data.latents import tensor_column
from lola.data.well import WellSplit


class WellDatasource(Datasource):
    """Blocks of states of a split.

    Arguments:
        split: The trajectories.
        states: States per block.
        skip: Files to leave out, by their number in the split.
    """

    def __init__(self, split: WellSplit, states: int, skip: Sequence[int] = ()) -> None:
        super().__init__()
        self.split, self.states = split, states
        self.files = [
            (number, members) for number, members in enumerate(by_file(split)) if number not in set(skip)
        ]

    def estimate_inmemory_data_size(self) -> int:
        """Bytes of all blocks."""
        return sum(len(members) for _, members in self.files) * self._trajectory_bytes()

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: object = None
    ) -> list[ReadTask]:
        """One task per file, whatever parallelism is asked for: encoding must not depend on it."""
        blocks = -(-self.split.steps // self.states)
        return [
            ReadTask(
                _Reader(self.split, number, members, self.states),
                BlockMetadata(
                    num_rows=len(members) * blocks,
                    size_bytes=len(members) * self._trajectory_bytes(),
                    input_files=(str(self.split.trajectories[members[0]].file),),
                    exec_stats=None,
                ),
                per_task_row_limit=per_task_row_limit,
            )
            for number, members in self.files
        ]

    def _trajectory_bytes(self) -> int:
        return 4 * self.split.steps * len(self.split.system.channels) * int(np.prod(self.split.grid))


def by_file(split: WellSplit) -> list[list[int]]:
    """The trajectories of each file, in the order of the split."""
    files: dict[object, list[int]] = {}
    for index, trajectory in enumerate(split.trajectories):
        files.setdefault(trajectory.file, []).append(index)
    return list(files.values())


class _Reader:
    """Reads one file, block by block."""

    def __init__(self, split: WellSplit, shard: int, members: list[int], states: int) -> None:
        self.split, self.shard, self.members, self.states = split, shard, members, states

    def __call__(self) -> Iterable[Block]:
        for index in self.members:
            yield from self._trajectory(index)

    def _trajectory(self, index: int) -> Iterator[Block]:
        for start in range(0, self.split.steps, self.states):
            block = self.split.read(index, start, min(start + self.states, self.split.steps)).movedim(1, 0)
            count = len(block)
            fill = block[-1:].expand(self.states - count, *block.shape[1:])
            states = torch.cat([block, fill]).numpy()
            yield pa.table(
                {
                    "shard": pa.array([self.shard], pa.int32()),
                    "trajectory": pa.array([index], pa.int32()),
                    "start": pa.array([start], pa.int32()),
                    "count": pa.array([count], pa.int32()),
                    "states": tensor_column([states]),
                }
            )
