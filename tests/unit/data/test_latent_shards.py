import json
import resource
import weakref

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lola.core.errors import DataError, StorageError
from lola.data.latent_shards import describe_shards, shard_path, tensor_column, verify, write_shard
from lola.data.latents import LatentSplit, LatentTrajectory
from lola.storage.stages import SCHEMA_VERSION


def trajectory(index, variant=0, steps=10):
    rng = np.random.default_rng((index, variant))
    return LatentTrajectory(
        f"set/train/file.hdf5#{index}",
        variant,
        rng.normal(size=3).astype("float32"),
        rng.normal(size=(steps, 2, 4, 5)).astype("float32"),
    )


@pytest.fixture
def cache(tmp_path):
    paths = [shard_path(tmp_path, "train", number) for number in (0, 2)]
    write_shard(paths[0], [trajectory(0), trajectory(1), trajectory(2)])
    write_shard(paths[1], [trajectory(3)])
    write_shard(shard_path(tmp_path, "train", 1), [trajectory(9)])  # no part of the cache
    manifest = {
        "schema": SCHEMA_VERSION,
        "shape": [10, 2, 4, 5],
        "parameters": 3,
        "splits": {
            "train": describe_shards(paths) | {"skipped": {"set/train/corrupt.hdf5": "it is corrupt"}}
        },
    }
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    return tmp_path


def damage(path, find, change=1):
    """Change one byte of the last occurrence of some bytes."""
    content = bytearray(path.read_bytes())
    place = content.rindex(find)
    content[place] ^= change
    path.write_bytes(content)


def test_a_whole_cache_has_no_faults(cache):
    assert list(verify(cache)) == []


def test_a_changed_value_is_found_in_its_row_group(cache):
    path = shard_path(cache, "train", 0)
    damage(path, trajectory(1).latents[4].tobytes())
    (fault,) = verify(cache)
    assert str(path) in fault
    assert "row group 1 is corrupt" in fault


@pytest.mark.parametrize("column", ["parameters", "latents"])
def test_a_changed_bit_of_any_column_is_found(cache, column):
    damage(shard_path(cache, "train", 2), getattr(trajectory(3), column).tobytes(), 0x40)
    assert ["row group 0" in fault for fault in verify(cache)] == [True]


def test_corrupt_and_missing_shards_are_found(cache):
    first, second = (shard_path(cache, "train", number) for number in (0, 2))
    first.write_bytes(first.read_bytes()[:-20])
    second.unlink()
    faults = list(verify(cache))
    assert [str(path) in fault for path, fault in zip((first, second), faults, strict=True)] == [True, True]


def test_a_shard_of_other_trajectories_is_found(cache):
    write_shard(shard_path(cache, "train", 2), [trajectory(4)])
    assert "row group 0 is corrupt: checksum" in list(verify(cache))[-1]


def test_a_cache_without_checksums_cannot_be_verified(cache):
    manifest = json.loads((cache / "manifest.json").read_text())
    del manifest["splits"]["train"]["shards"][0]["row_groups"]
    (cache / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="encode it again"):
        list(verify(cache))


def test_readers_see_the_shards_of_the_manifest_and_no_others(cache):
    split = LatentSplit(cache, "train")
    assert len(split) == 4
    np.testing.assert_array_equal(split.parameters(3), trajectory(3).parameters)
    assert split.skipped == {"set/train/corrupt.hdf5": "it is corrupt"}


def test_a_shard_holds_one_trajectory_in_memory(tmp_path):
    made = []

    def arriving():
        for index in range(20):
            each = trajectory(index)
            made.append(weakref.ref(each))
            yield each
            assert sum(one() is not None for one in made) <= 2

    write_shard(tmp_path / "shard", arriving())
    assert pq.ParquetFile(tmp_path / "shard").num_row_groups == 20


def test_a_row_is_one_run_of_bytes(tmp_path):
    whole = [trajectory(index, steps=20_000) for index in range(2)]
    write_shard(tmp_path / "shard", whole)
    content = (tmp_path / "shard").read_bytes()
    assert all(content.count(each.latents.tobytes()) == 1 for each in whole)


def test_a_shard_that_fails_leaves_nothing(tmp_path):
    def failing():
        yield trajectory(0)
        raise DataError("the file is corrupt")

    with pytest.raises(DataError, match="corrupt"):
        write_shard(tmp_path / "train" / "shard", failing())
    assert list((tmp_path / "train").iterdir()) == []


def test_full_storage_is_reported_and_keeps_what_existed(tmp_path):
    write_shard(tmp_path / "train" / "shard-0", [trajectory(0)])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, hard))
    try:
        with pytest.raises(StorageError, match=r"cannot write .*shard-1 \(.*--storage") as error:
            write_shard(tmp_path / "train" / "shard-1", [trajectory(i, steps=1000) for i in range(9)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(str(error.value).splitlines()) == 1
    assert [path.name for path in (tmp_path / "train").iterdir()] == ["shard-0"]


def test_the_order_of_memory_does_not_matter():
    turned = np.asfortranarray(trajectory(0).latents)
    for arrays in ([turned], [turned, turned]):
        column = tensor_column(arrays)
        assert column.type.permutation in (None, [0, 1, 2, 3])
        assert isinstance(column, pa.FixedShapeTensorArray)
        np.testing.assert_array_equal(column.to_numpy_ndarray()[0], turned)
