"""The simulation files of a split, as blocks of consecutive states.

A row is one time block of one trajectory, of a fixed number of states; the last block of a trajectory is
filled up by repeating its last state, and `count` says how many are real.
"""

import dataclasses
from collections.abc import Iterator

import pyarrow as pa
import torch

from lola.data.latent_shards import tensor_column
from lola.data.well.splits import WellSplit, state_bytes
from lola.storage.stages import Location


@dataclasses.dataclass(frozen=True)
class SimulationFile:
    """One file of a split."""

    split: WellSplit
    members: tuple[int, ...]  # the numbers of its trajectories in the split

    @property
    def steps(self) -> int:
        """States of each of the file's trajectories."""
        return self.split.trajectories[self.members[0]].steps

    @property
    def size(self) -> int:
        """Bytes of all states in memory."""
        return len(self.members) * self.steps * state_bytes(self.split)

    def rows(self, states: int) -> int:
        """Blocks of a number of states."""
        return len(self.members) * -(-self.steps // states)

    def blocks(self, number: int, states: int) -> Iterator[pa.Table]:
        """The file's blocks in order, under the number of the shard."""
        for index in self.members:
            for start in range(0, self.steps, states):
                count = min(states, self.steps - start)
                x = self.split.read(index, start, start + count).movedim(1, 0)
                if len(x) < states:
                    x = torch.cat([x, x[-1:].expand(states - len(x), *x.shape[1:])])
                yield pa.table(
                    {
                        "shard": pa.array([number], pa.int32()),
                        "trajectory": pa.array([index], pa.int32()),
                        "start": pa.array([start], pa.int32()),
                        "count": pa.array([count], pa.int32()),
                        "states": tensor_column([x.numpy()]),
                    }
                )


def simulation_files(split: WellSplit) -> list[SimulationFile]:
    files: dict[Location, list[int]] = {}
    for index, trajectory in enumerate(split.trajectories):
        files.setdefault(trajectory.file, []).append(index)
    return [SimulationFile(split, tuple(members)) for members in files.values()]
