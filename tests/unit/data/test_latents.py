import dataclasses
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from lola.core.errors import DataError
from lola.data.latent_shards import describe_shards, shard_path, tensor_column, write_shard
from lola.data.latents import LatentSplit, LatentTrajectory, LatentWindows
from lola.storage.stages import SCHEMA_VERSION


def trajectory(index, variant=0, dtype="float32"):
    rng = np.random.default_rng((index, variant))
    return LatentTrajectory(
        f"set/train/file.hdf5#{index}",
        variant,
        rng.normal(size=3).astype("float32"),
        rng.normal(size=(10, 2, 4, 5)).astype(dtype),
    )


@pytest.fixture
def cache(tmp_path):
    paths = [shard_path(tmp_path, "train", number) for number in range(2)]
    write_shard(paths[0], [trajectory(0), trajectory(1)])
    write_shard(paths[1], [trajectory(2, 1)])
    manifest = {
        "schema": SCHEMA_VERSION,
        "shape": [10, 2, 4, 5],
        "parameters": 3,
        "splits": {"train": describe_shards(paths)},
    }
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    return tmp_path


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_plain_pyarrow_reads_a_shard(tmp_path, dtype):
    path = shard_path(tmp_path, "train", 0)
    write_shard(path, [trajectory(0, dtype=dtype), trajectory(1, dtype=dtype)])
    table = pq.read_table(path)
    assert table.schema.field("variant").type == "int32"
    assert table.schema.field("latents").type.shape == [10, 2, 4, 5]
    latents = table.column("latents").combine_chunks().to_numpy_ndarray()
    assert latents.dtype == dtype
    np.testing.assert_array_equal(latents[1], trajectory(1, dtype=dtype).latents)
    assert table.column("trajectory").to_pylist() == ["set/train/file.hdf5#0", "set/train/file.hdf5#1"]


def test_windows_are_slices_of_trajectories(cache):
    windows = LatentWindows(LatentSplit(cache, "train"), length=3, stride=2)
    assert len(windows) == 3 * 6
    states, parameters = windows.read(2 * 6 + 4, (0,))
    expected = trajectory(2, 1)
    np.testing.assert_array_equal(states.movedim(0, 1), expected.latents[4:9:2])
    np.testing.assert_array_equal(parameters, expected.parameters)
    assert states.dtype == torch.float32


def test_a_footer_is_parsed_once_until_its_shard_is_written_again(cache, monkeypatch):
    parsed, read_metadata = [], pq.read_metadata
    monkeypatch.setattr(pq, "read_metadata", lambda path: parsed.append(path) or read_metadata(path))
    split = LatentSplit(cache, "train")
    for index in (0, 1, 2, 0, 1, 2):
        split.latents(index)
        split.describe(index)
    path = shard_path(cache, "train", 0)
    assert sorted(parsed) == [path, shard_path(cache, "train", 1)]
    write_shard(path, [trajectory(1), trajectory(0, variant=7)])
    np.testing.assert_array_equal(split.latents(1), trajectory(0, variant=7).latents)
    assert len(parsed) == 3


def test_statistics_are_those_of_all_values(cache):
    values = np.concatenate([trajectory(0).latents, trajectory(1).latents, trajectory(2, 1).latents])
    statistics = json.loads((cache / "manifest.json").read_text())["splits"]["train"]["statistics"]
    assert statistics["mean"] == pytest.approx(values.mean(), abs=1e-6)
    assert statistics["std"] == pytest.approx(values.std(), rel=1e-6)
    assert statistics["max"] == pytest.approx(values.max())


def test_writing_twice_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_shard(tmp_path / name, [trajectory(0), trajectory(1)])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_corrupt_shard_is_named(cache):
    path = shard_path(cache, "train", 1)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"shard-00001\.parquet"):
        len(LatentSplit(cache, "train"))


def test_windows_longer_than_a_trajectory_are_refused(cache):
    with pytest.raises(DataError, match="span 13 steps"):
        LatentWindows(LatentSplit(cache, "train"), length=4, stride=4)


def test_an_unknown_split_is_refused(cache):
    with pytest.raises(DataError, match="test"):
        LatentSplit(cache, "test")


def test_the_order_of_memory_does_not_matter(tmp_path):
    plain = trajectory(0)
    turned = dataclasses.replace(plain, latents=np.asfortranarray(plain.latents))
    for name, each in (("plain", plain), ("turned", turned)):
        write_shard(tmp_path / name, [each])
    assert (tmp_path / "plain").read_bytes() == (tmp_path / "turned").read_bytes()
    turned_type = tensor_column([plain.latents[:1].transpose(0, 2, 3, 1)]).type
    assert turned_type.permutation in (None, [0, 1, 2, 3])
    assert turned_type.shape == [1, 4, 5, 2]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_buffer_gives_the_windows_that_reading_gives(tmp_path, dtype):
    path = shard_path(tmp_path, "train", 0)
    write_shard(path, [trajectory(i, dtype=dtype) for i in range(3)])
    manifest = {"schema": SCHEMA_VERSION, "shape": [10, 2, 4, 5], "parameters": 3}
    manifest["splits"] = {"train": describe_shards([path])}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    windows = LatentWindows(LatentSplit(tmp_path, "train"), length=3, stride=2)
    buffer = windows.allocate(12)
    assert buffer.dtype == dtype
    assert buffer.nbytes == 12 * windows.state_bytes
    windows.load(buffer, 0, 2, 3, 9)
    windows.load(buffer, 6, 0, 1, 7)
    numbers = np.array([2 * 6 + 3, 0 * 6 + 2, 2 * 6 + 4])
    batch = windows.batch(buffer, np.array([0, 7, 1]), numbers, [(i,) for i in range(3)])
    assert batch.states.dtype == torch.float32
    for row, number in enumerate(numbers):
        states, parameters = windows.read(int(number), ())
        assert torch.equal(batch.states[row], states)
        assert torch.equal(batch.parameters[row], parameters)


def test_a_shard_that_is_corrupted_later_is_named(cache):
    split = LatentSplit(cache, "train")
    assert len(split) == 3
    path = shard_path(cache, "train", 1)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"shard-00001\.parquet"):
        LatentWindows(split, length=3).load(np.empty((10, 2, 4, 5)), 0, 2, 0, 10)
