"""The latent cache: trajectories of latent states in Parquet, readable with pyarrow alone.

A split is a folder of shards `shard-00000.parquet`, one for each simulation file. A row is one variant of
one trajectory, and a row group holds one row, so that any window is read without its neighbours. Rows are
in the order of trajectories, then variants:

    trajectory  string                        <dataset>/<split>/<file>#<index>
    variant     int32                         0 is the trajectory as simulated, others are augmentations
    parameters  fixed_shape_tensor (P,)       float32
    latents     fixed_shape_tensor (L, C, *grid)  float32 or float16

The trajectories of a simulation file, and so of a shard, have the same number of states `L`; other shards may
have others, and the manifest's `shape` has the most.

Shards are written as temporary files and renamed (`lola/data/latent_shards.py`); the cache's manifest comes
last, and alone says which shards belong to it; simulation files that it lists under `skipped` could not be
read.
"""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from lola.core.errors import DataError, LolaError
from lola.core.keys import Key
from lola.data.state import Batch
from lola.data.strides import Strides
from lola.data.window_numbering import WindowNumbering
from lola.storage.integrity import DECODE_ERRORS
from lola.storage.remote import AnyPath, first_line, local_copies, local_copy
from lola.storage.stages import read_manifest


@dataclasses.dataclass(frozen=True)
class LatentTrajectory:
    """One encoded trajectory."""

    id: str  # `<dataset>/<split>/<file>#<index>`
    variant: int  # the augmentation's number; 0 is none
    parameters: np.ndarray  # shape `(P,)`, those of the augmented simulation
    latents: np.ndarray  # shape `(L, C, *grid)`


class LatentSplit:
    """The encoded trajectories of a split. Parquet is decoded by the row group: a trajectory is read whole.

    Shards on an object store are copied to this machine, once for all of its processes, before one is read.

    Arguments:
        folder: The folder of a finished cache, local or remote.
        split: `train`, `valid` or `test`.

    Attributes:
        skipped: Simulation files that are not in the cache, and why.
        steps: The most states of a trajectory of the cache.

    Raises:
        DataError: A shard of the manifest is missing or corrupt.
        StorageError: The cache is not finished.
    """

    def __init__(self, folder: AnyPath, split: str) -> None:
        manifest = read_manifest(folder)
        if split not in manifest["splits"]:
            raise DataError(f"{folder} has no split {split!r}, only {', '.join(manifest['splits'])}")
        self.folder, self.split = folder, split
        self.shape: tuple[int, ...] = tuple(manifest["shape"])
        self.steps = self.shape[0]
        self.parameter_count: int = manifest["parameters"]
        self.skipped: dict[str, str] = manifest["splits"][split].get("skipped", {})
        self.dtype = np.dtype(np.float32)
        self._paths = [folder / split / shard["name"] for shard in manifest["splits"][split]["shards"]]
        if self._paths:
            path = local_copy(self._paths[0])
            with self._reading(path):
                self.dtype = _latent_dtype(pq.read_schema(path))

    @contextlib.contextmanager
    def _reading(self, path: Path) -> Iterator[None]:
        """Turn errors of reading a shard into one that names it."""
        try:
            yield
        except LolaError:
            raise
        except (*DECODE_ERRORS, pa.ArrowException) as error:
            raise DataError(
                f"latent shard {path} is missing or corrupt ({first_line(error)}); remove "
                f"{self.folder}/manifest.json, and run again to encode it again"
            ) from error

    @property
    def index(self) -> list[tuple[Path, int]]:
        """Shard and row group of each trajectory and variant."""
        return self._contents[0]

    @functools.cached_property
    def _contents(self) -> tuple[list[tuple[Path, int]], np.ndarray, np.ndarray]:
        """Shard and row group of each trajectory and variant, its parameters `(rows, P)` and its length."""
        index, lengths = [], [np.empty(0, dtype=np.int64)]
        parameters = [np.empty((0, self.parameter_count), dtype=np.float32)]
        for path in local_copies(self._paths):
            with self._reading(path), _open_shard(path) as file:
                index += [(path, group) for group in range(file.num_row_groups)]
                if _latent_dtype(file.schema_arrow) != self.dtype:
                    raise ValueError(f"it holds {_latent_dtype(file.schema_arrow)}, not {self.dtype}")
                column = file.read(["parameters"]).column("parameters")
                parameters += [_rows(chunk, (self.parameter_count,)) for chunk in column.chunks]
                steps, *shape = file.schema_arrow.field("latents").type.shape
                lengths.append(np.full(file.num_row_groups, steps))
                if tuple(shape) != self.shape[1:]:
                    raise ValueError(f"it holds states of shape {tuple(shape)}, not {self.shape[1:]}")
                if len(column) != file.num_row_groups:
                    raise ValueError(f"it has {len(column)} rows in {file.num_row_groups} row groups")
        return index, np.concatenate(parameters).astype(np.float32), np.concatenate(lengths)

    def __len__(self) -> int:
        return len(self.index)

    @property
    def lengths(self) -> np.ndarray:
        """The number of states of each trajectory and variant."""
        return self._contents[2]

    def parameters(self, index: int | np.ndarray) -> Tensor:
        """Parameters of a trajectory, shape `(P,)`, or of several, `(B, P)`."""
        return torch.from_numpy(self._contents[1][index])

    def latents(self, index: int) -> np.ndarray:
        """All latent states of a trajectory as they are stored, shape `(L, C, *grid)`."""
        path, group = self.index[index]
        with self._reading(path), _open_shard(path, memory_map=True) as file:
            column = file.read_row_group(group, columns=["latents"]).column("latents")
            (latents,) = _rows(column.chunk(0), (int(self.lengths[index]), *self.shape[1:]))
        return latents

    def describe(self, index: int) -> str:
        """Name, variant and shard of a trajectory, for people."""
        path, group = self.index[index]
        with self._reading(path), _open_shard(path) as file:
            row = file.read_row_group(group, columns=["trajectory", "variant"]).to_pylist()[0]
            return f"{row['trajectory']}, variant {row['variant']} ({path}, row group {group})"

    def read(self, index: int, start: int, stop: int, stride: int = 1) -> Tensor:
        """Latent states of a trajectory, float32, shape `(C, L, *grid)`."""
        latents = self.latents(index)[start:stop:stride]
        return torch.from_numpy(latents.astype(np.float32)).movedim(0, 1)


def _open_shard(path: Path, memory_map: bool = False) -> pq.ParquetFile:
    """A shard, whose footer is parsed once: it describes all row groups."""
    status = path.stat()
    footer = _footer(path, status.st_size, status.st_mtime_ns)
    return pq.ParquetFile(path, metadata=footer, memory_map=memory_map, page_checksum_verification=True)


@functools.lru_cache(maxsize=128)
def _footer(path: Path, size: int, modified_ns: int) -> pq.FileMetaData:
    return pq.read_metadata(path)


def _latent_dtype(schema: pa.Schema) -> np.dtype:
    """The dtype of the latents of a shard; `ValueError` if a column has not the type that it is written with.

    No checksum covers the schema.
    """
    for name, expected in (("trajectory", pa.string()), ("variant", pa.int32())):
        if schema.field(name).type != expected:
            raise ValueError(f"its column {name} is {schema.field(name).type}, not {expected}")
    for name, dtypes in (("parameters", (np.float32,)), ("latents", (np.float32, np.float16))):
        column = schema.field(name).type
        dtype = np.dtype(column.value_type.to_pandas_dtype())
        if not isinstance(column, pa.FixedShapeTensorType) or dtype not in dtypes:
            raise ValueError(f"its column {name} is {column}, not tensors of {np.dtype(dtypes[0])}")
    return dtype


def _rows(chunk: pa.ExtensionArray, shape: tuple[int, ...]) -> np.ndarray:
    """The tensors of a column, one per row; `ValueError` if they do not have a shape."""
    values: np.ndarray = chunk.to_numpy_ndarray()
    if values.shape[1:] != shape:
        raise ValueError(f"it holds arrays of shape {values.shape[1:]}, not {shape}")
    return values


class LatentWindows:
    """All windows of `length` states, `stride` simulation steps apart, of all trajectories and variants.

    Each sample draws its own stride of `choices`, if there are any.
    """

    def __init__(
        self, split: LatentSplit, length: int, stride: int = 1, choices: tuple[int, ...] = ()
    ) -> None:
        self.split, self.length, self.strides = split, length, Strides(stride, choices)
        self.span, self.whole_trajectories = self.strides.span(length), True
        if split.steps < self.span or not len(self.numbering):
            raise DataError(
                f"windows of {length} states at stride {stride} span {self.span} steps, "
                f"the {split.split} trajectories of {split.folder} have {split.steps} at most"
            )

    @functools.cached_property
    def numbering(self) -> WindowNumbering:
        """How the windows are numbered."""
        return WindowNumbering(self.split.lengths, self.span)

    def __len__(self) -> int:
        return len(self.numbering)

    def read(self, index: int, key: Key) -> tuple[Tensor, Tensor]:
        """Latent states `(C, L, *grid)` and parameters `(P,)`; augmentation was drawn when encoding."""
        trajectory, start = self.numbering.locate(index)
        (first,), (stride,) = self.strides.draw(self.length, [key])
        stop = start + first + (self.length - 1) * stride + 1
        states = self.split.read(trajectory, start + first, stop, stride)
        parameters = self.split.parameters(trajectory)[None]
        return states, self.strides.label(parameters, np.array([stride]))[0]

    def describe(self, index: int) -> str:
        """Trajectory, variant, shard and states of a window, for people."""
        trajectory, start = self.numbering.locate(index)
        return f"{self.split.describe(trajectory)}, states {start} to {start + self.span - 1}"

    @property
    def state_bytes(self) -> int:
        return self.split.dtype.itemsize * math.prod(self.split.shape[1:])

    def allocate(self, states: int) -> np.ndarray:
        """A buffer for a number of states as they are stored, shape `(states, C, *grid)`."""
        return np.empty((states, *self.split.shape[1:]), dtype=self.split.dtype)

    def load(self, buffer: np.ndarray, at: int, trajectory: int, start: int, stop: int) -> None:
        """Read the states from `start` to `stop` of a trajectory into a buffer, from place `at` on."""
        buffer[at : at + stop - start] = self.split.latents(trajectory)[start:stop]

    def batch(self, buffer: np.ndarray, at: np.ndarray, windows: np.ndarray, keys: list[Key]) -> Batch:
        """The windows whose first states are at some places of a buffer, in one gather."""
        channels, *grid = self.split.shape[1:]
        first, strides = self.strides.draw(self.length, keys)
        places = (at + first)[:, None, None] + strides[:, None, None] * np.arange(self.length)
        rows = places * channels + np.arange(channels)[:, None]  # (B, C, L)
        states = np.take(buffer.reshape(-1, *grid), rows, axis=0).astype(np.float32, copy=False)
        parameters = self.split.parameters(self.numbering.locate(windows)[0])
        return Batch(states=torch.from_numpy(states), parameters=self.strides.label(parameters, strides))
