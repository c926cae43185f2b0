"""The simulation files of a split, as blocks of consecutive states.

A row is one time block of one trajectory, of a fixed number of states; the last block of a trajectory is
filled up by repeating its last state, and `count` says how many are real.
"""

import dataclasses
import math
from collections.abc import Iterator

import pyarrow as pa
import torch

from lola.data.latent_shards import tensor_column
from lola.data.well.splits import WellSplit
from lola.storage.stages import Location


@dataclasses.dataclass(frozen=True)
class SimulationFile:
    """One file of a split."""

    split: WellSplit
    members: tuple[int, ...]  # the numbers of its trajectories in the split

    @property
    def size(self) -> int:
        """Bytes of all states in memory."""
        state = 4 * len(self.split.system.channels) * math.prod(self.split.grid)
        return len(self.members) * self.split.steps * state

    def rows(self, states: int) -> int:
        """Blocks of a number of states."""
        return len(self.members) * -(-self.split.steps // states)

    def blocks(self, number: int, states: int) -> Iterator[pa.Table]:
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


def simulation_files(split: WellSplit) -> list[SimulationFile]:
    files: dict[Location, list[int]] = {}
    for index, trajectory in enumerate(split.trajectories):
        files.setdefault(trajectory.file, []).append(index)
    return [SimulationFile(split, tuple(members)) for members in files.values()]
