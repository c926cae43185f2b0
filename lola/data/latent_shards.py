"""Writing, describing and verifying the shards of a latent cache (their schema: `lola/data/latents.py`).

A shard is written row group by row group as its trajectories arrive, so that one trajectory is in memory,
whatever the size of the shard; it is renamed into place when it is whole. Its footer holds the moments of
its values and a checksum of every row group, over what the row says (identifier, variant, parameters,
latents) and not over how Parquet lays it out. The manifest repeats them, and is the one list of what
belongs to a cache.

Latents are stored uncompressed and plain, each row's values as one run of bytes. Zstandard after byte-stream
split saves 17 % of a trained autoencoder's float32 latents and slows reading by a fifth; without the split,
or for float16, it saves 10 % and slows reading by two fifths. Mantissas are mostly noise. Every page
has a CRC-32, so that a changed byte is found when it is read.
"""

import contextlib
import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lola.core.errors import DataError
from lola.core.strict_json import dumps, loads
from lola.data.casting import cast_checked
from lola.data.latents import LatentTrajectory
from lola.storage.integrity import DECODE_ERRORS
from lola.storage.remote import AnyPath, first_line, local_copy
from lola.storage.stages import atomic_path, read_manifest

LAYOUT: dict[str, Any] = {
    "compression": "none",
    "use_dictionary": False,
    "write_statistics": False,
    "data_page_size": 2**30,  # a row's values are one page
    "write_page_checksum": True,
}


def shard_path(folder: AnyPath, split: str, number: int) -> AnyPath:
    return folder / split / f"shard-{number:05d}.parquet"


def write_shard(path: AnyPath, trajectories: Iterable[LatentTrajectory]) -> None:
    """Write a shard atomically, each trajectory as it arrives.

    Raises:
        DataError: A value is not finite; nothing is left behind.
        StorageError: The storage is full or read-only; nothing is left behind.
    """
    moments = _Moments()
    with atomic_path(path) as tmp_path:
        writer: pq.ParquetWriter | None = None
        try:
            for trajectory in trajectories:
                for name in ("parameters", "latents"):
                    values = getattr(trajectory, name)
                    cast_checked(
                        values, values.dtype, f"{trajectory.id}, variant {trajectory.variant}: {name}"
                    )
                row = _row(trajectory)
                if writer is None:
                    writer = pq.ParquetWriter(tmp_path, row.schema, **LAYOUT)
                writer.write_table(row)
                moments.add(trajectory, checksum(row))
            if writer is None:
                raise ValueError(f"a shard needs at least one trajectory: {path}")
            writer.add_key_value_metadata({"lola": dumps(moments.values())})
        except BaseException:
            with contextlib.suppress(OSError, pa.ArrowException):  # report the first error
                if writer is not None:
                    writer.close()
            raise
        writer.close()


def tensor_column(arrays: Sequence[np.ndarray]) -> pa.Array:
    """Arrays of one shape as a column of canonical Arrow tensors; a single one in C order is not copied."""
    if len(arrays) == 1:
        whole = np.ascontiguousarray(arrays[0])
        return pa.FixedShapeTensorArray.from_numpy_ndarray(whole.reshape(1, *whole.shape))
    # In C order, whatever the inputs are.
    tensors = np.empty((len(arrays), *arrays[0].shape), arrays[0].dtype)
    tensors[:] = arrays
    return pa.FixedShapeTensorArray.from_numpy_ndarray(tensors)


def checksum(row: pa.Table) -> str:
    """The SHA-256 of a row: identifier, variant, and the bytes of parameters and latents."""
    digest = hashlib.sha256()
    for name in ("trajectory", "variant"):
        digest.update(f"{row[name][0].as_py()}\n".encode())
    for name in ("parameters", "latents"):
        digest.update(np.ascontiguousarray(row[name].chunk(0).to_numpy_ndarray()).data)
    return digest.hexdigest()


def shapes(path: AnyPath) -> tuple[tuple[int, ...], int]:
    """The shape `(L, C, *grid)` of a shard's trajectories, and the number of their parameters."""
    with path.open("rb") as file:
        schema = pq.read_schema(file)
    return tuple(schema.field("latents").type.shape), schema.field("parameters").type.shape[0]


def describe_shards(paths: Sequence[AnyPath]) -> dict[str, Any]:
    """Counts, checksums and statistics of a split's shards, for the manifest; only footers are read."""
    shards, moments = [], []
    for path in paths:
        with path.open("rb") as file:
            footer = loads(pq.read_metadata(file).metadata[b"lola"])
        shards.append(
            {"name": path.name, "bytes": path.stat().st_size, "row_groups": footer.pop("row_groups")}
        )
        moments.append(footer)
    count = sum(shard["count"] for shard in moments)
    mean = math.fsum(shard["sum"] for shard in moments) / count
    square = math.fsum(shard["squares"] for shard in moments) / count
    return {
        "shards": shards,
        "trajectories": sum(len(shard["row_groups"]) for shard in shards),
        "statistics": {
            "mean": mean,
            "std": max(square - mean**2, 0.0) ** 0.5,
            "min": min(shard["min"] for shard in moments),
            "max": max(shard["max"] for shard in moments),
        },
    }


def shard_error(path: AnyPath) -> str:
    """What is wrong with a shard by its footer; empty if nothing is."""
    try:
        describe_shards([path])
    except (*DECODE_ERRORS, pa.ArrowException) as error:
        return f"latent shard {path} is corrupt ({first_line(error)})"
    return ""


def verify(folder: AnyPath) -> Iterator[str]:
    """What is wrong with the shards of a finished cache: a line for each that names shard and row group.

    Raises:
        StorageError: The cache is not finished.
        DataError: Its manifest has no checksums of row groups.
    """
    for split, described in read_manifest(folder).get("splits", {}).items():
        for shard in described["shards"]:
            if "row_groups" not in shard:
                raise DataError(f"{folder} has no checksums of row groups; encode it again to have them")
            yield from _verify_shard(folder / split / shard["name"], shard)


def _verify_shard(path: AnyPath, described: dict[str, Any]) -> Iterator[str]:
    expected = described["row_groups"]
    try:
        copy = local_copy(path)
        size = copy.stat().st_size
        file = pq.ParquetFile(copy)
    except (*DECODE_ERRORS, pa.ArrowException) as error:
        yield f"{path} is missing or corrupt: {first_line(error)}"
        return
    with file:
        if size != described["bytes"] or file.num_row_groups != len(expected):
            yield (
                f"{path} has {size} bytes and {file.num_row_groups} row groups, "
                f"not {described['bytes']} and {len(expected)}"
            )
        for group in range(min(file.num_row_groups, len(expected))):
            try:
                found = checksum(file.read_row_group(group))
            except (*DECODE_ERRORS, pa.ArrowException) as error:
                yield f"{path}: row group {group} is corrupt: {first_line(error)}"
                continue
            if found != expected[group]:
                yield f"{path}: row group {group} is corrupt: checksum {found[:8]}, not {expected[group][:8]}"


def _row(trajectory: LatentTrajectory) -> pa.Table:
    return pa.table(
        {
            "trajectory": pa.array([trajectory.id], pa.string()),
            "variant": pa.array([trajectory.variant], pa.int32()),
            "parameters": tensor_column([trajectory.parameters]),
            "latents": tensor_column([trajectory.latents]),
        }
    )


class _Moments:
    """What a shard's footer says, of the trajectories that were added."""

    def __init__(self) -> None:
        self.row_groups: list[str] = []
        self.count, self.sum, self.squares = 0, 0.0, 0.0
        self.min, self.max = math.inf, -math.inf

    def add(self, trajectory: LatentTrajectory, digest: str) -> None:
        values = trajectory.latents.astype(np.float64)
        self.row_groups.append(digest)
        self.count += values.size
        self.sum += float(values.sum())
        self.squares += float(np.vdot(values, values))
        self.min, self.max = min(self.min, float(values.min())), max(self.max, float(values.max()))

    def values(self) -> dict[str, Any]:
        return dict(vars(self))
