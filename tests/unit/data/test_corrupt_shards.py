"""Latent shards that are damaged anywhere: an error of ours, or the numbers that were written."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corruption import damaged_copies

from lola.core.errors import DataError, LolaError
from lola.data.latent_shards import (
    describe_shards,
    shard_error,
    shard_path,
    tensor_column,
    verify,
    write_shard,
)
from lola.data.latents import LatentSplit, LatentTrajectory
from lola.storage.stages import SCHEMA_VERSION


def trajectory(index):
    rng = np.random.default_rng(index)
    return LatentTrajectory(
        f"set/train/file.hdf5#{index}",
        index,
        rng.normal(size=3).astype("float32"),
        rng.normal(size=(4, 2, 3, 3)).astype("float32"),
    )


def read(folder):
    split = LatentSplit(folder, "train")
    indices = range(len(split))
    latents = [split.latents(index).tolist() for index in indices]
    return split.parameters(np.arange(len(split))).tolist(), latents, [split.describe(i) for i in indices]


def store(tmp_path, change=None):
    """A cache of a shard of two trajectories; `change` maps the table to another one."""
    path = shard_path(tmp_path, "train", 0)
    write_shard(path, [trajectory(0), trajectory(1)])
    manifest = {"schema": SCHEMA_VERSION, "shape": [4, 2, 3, 3], "parameters": 3}
    manifest["splits"] = {"train": describe_shards([path])}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    if change:
        pq.write_table(change(pq.read_table(path)), path, row_group_size=1)
    return path


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("trajectory", pa.array([b"a", b"b"])),
        ("variant", pa.array([0.0, 1.0])),
        ("parameters", tensor_column([np.zeros(3), np.ones(3)])),
        ("parameters", pa.array([[0.0] * 3] * 2, pa.list_(pa.float32(), 3))),
        ("latents", tensor_column([np.zeros((4, 2, 3, 3), "int32")] * 2)),
    ],
)
def test_a_column_of_another_type_is_refused(tmp_path, name, found):
    def change(table):
        return table.set_column(table.column_names.index(name), name, found)

    path = store(tmp_path, change)
    with pytest.raises(DataError, match=rf"{path} is missing or corrupt \(its column {name} is "):
        read(tmp_path)


@pytest.mark.parametrize("count", [200, pytest.param(20_000, marks=[pytest.mark.slow, pytest.mark.long])])
def test_a_damaged_shard_is_an_error_or_as_written(tmp_path, count):
    path = store(tmp_path)
    whole, content, refused = read(tmp_path), path.read_bytes(), 0
    for what, copy in damaged_copies(content, count):
        path.write_bytes(copy)
        refusal = ""
        try:
            assert read(tmp_path) == whole, what
        except LolaError as error:
            refusal = str(error)
        refused += bool(refusal)
        assert not refusal or (str(path) in refusal and "\n" not in refusal), what
        faults = list(verify(tmp_path))
        assert all(str(path) in fault for fault in faults), what
        assert shard_error(path) == "" or str(path) in shard_error(path), what
    assert refused > count / 2
