"""The latent cache: trajectories of latent states in Parquet, readable with pyarrow alone.

A split is a folder of shards `shard-00000.parquet`, one for each simulation file. A row is one variant of
one trajectory, and a row group holds one row, so that any window is read without its neighbours. Rows are
in the order of trajectories, then variants:

    trajectory  string                        <dataset>/<split>/<file>#<index>
    variant     int32                         0 is the trajectory as simulated, others are augmentations
    parameters  fixed_shape_tensor (P,)       float32
    latents     fixed_shape_tensor (L, C, *grid)  float32 or float16

Shards are written aside and renamed (`lola/data/latent_shards.py`); the cache's manifest comes last, and
alone says which shards belong to it: simulation files that it lists under `skipped` could not be read.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from lola.errors import DataError
from lola.seeding import Key
from lola.storage import read_manifest


@dataclasses.dataclass(frozen=True)
class LatentTrajectory:
    """One encoded trajectory.

    Arguments:
        id: `<dataset>/<split>/<file>#<index>`.
        variant: The augmentation's number; 0 is none.
        parameters: Shape `(P,)`, those of the augmented simulation.
        latents: Shape `(L, C, *grid)`.
    """

    id: str
    variant: int
    parameters: np.ndarray
    latents: np.ndarray


class LatentSplit:
    """The encoded trajectories of a split, read window by window.

    Shards are mapped into memory, not loaded: what is resident is what the system's page cache holds.

    Arguments:
        folder: The folder of a finished cache.
        split: `train`, `valid` or `test`.

    Attributes:
        skipped: Simulation files that are not in the cache, and why.

    Raises:
        DataError: A shard of the manifest is missing or torn.
        StorageError: The cache is not finished.
    """

    def __init__(self, folder: Path, split: str) -> None:
        manifest = read_manifest(folder)
        if split not in manifest["splits"]:
            raise DataError(f"{folder} holds no split {split!r}, only {', '.join(manifest['splits'])}")
        self.folder, self.split = folder, split
        self.shape: tuple[int, ...] = tuple(manifest["shape"])
        self.steps = self.shape[0]
        self.parameter_count: int = manifest["parameters"]
        self._rows: list[pa.Table] = []
        self.skipped: dict[str, str] = manifest["splits"][split].get("skipped", {})
        self._paths = [folder / split / shard["name"] for shard in manifest["splits"][split]["shards"]]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_rows": []}

    @property
    def rows(self) -> list[pa.Table]:
        """One mapped table per trajectory and variant, opened on first use in each process."""
        if not self._rows:
            for path in self._paths:
                try:
                    file = pq.ParquetFile(path, memory_map=True)
                except (OSError, pa.ArrowInvalid) as error:
                    raise DataError(
                        f"latent shard {path} is missing or torn ({error}); "
                        f"remove {self.folder} and run again"
                    ) from None
                self._rows += [file.read_row_group(group) for group in range(file.num_row_groups)]
        return self._rows

    def __len__(self) -> int:
        return len(self.rows)

    def parameters(self, index: int) -> Tensor:
        """Parameters of a trajectory, shape `(P,)`."""
        return torch.from_numpy(_row(self.rows[index], "parameters").astype(np.float32))

    def read(self, index: int, start: int, stop: int, stride: int = 1) -> Tensor:
        """Latent states of a trajectory, float32, shape `(C, L, *grid)`."""
        latents = _row(self.rows[index], "latents")[start:stop:stride]
        return torch.from_numpy(latents.astype(np.float32)).movedim(0, 1)


def _row(table: pa.Table, column: str) -> np.ndarray:
    return table.column(column).chunk(0).to_numpy_ndarray()[0]


class LatentWindows:
    """Every window of `length` states at a stride, over all trajectories and variants of a split.

    Arguments:
        split: The encoded trajectories.
        length: States per window.
        stride: Simulation steps between states.
    """

    def __init__(self, split: LatentSplit, length: int, stride: int = 1) -> None:
        self.split, self.length, self.stride = split, length, stride
        self.span = (length - 1) * stride + 1
        self.starts = split.steps - self.span + 1
        if self.starts < 1:
            raise DataError(
                f"windows of {length} states at stride {stride} span {self.span} steps, "
                f"the trajectories of {split.folder} have {split.steps}"
            )

    def __len__(self) -> int:
        return len(self.split) * self.starts

    def read(self, index: int, key: Key) -> tuple[Tensor, Tensor]:
        """Latent states `(C, L, *grid)` and parameters `(P,)`; augmentation was drawn when encoding."""
        trajectory, start = divmod(index, self.starts)
        states = self.split.read(trajectory, start, start + self.span, self.stride)
        return states, self.split.parameters(trajectory)
