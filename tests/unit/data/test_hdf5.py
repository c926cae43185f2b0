"""Datasets on object stores, against a real server, and on other filesystems."""

import errno
import fcntl
import io
import os
import pickle
from pathlib import Path

import fsspec
import h5py
import numpy as np
import pytest
import torch
from objectstore import SECRET, credentials, free_port

from lola.core.errors import ConfigError, DataError, StorageError
from lola.data.description import EULER
from lola.data.hdf5 import BLOCK_BYTES, RemoteFile, list_files, open_cached, open_hdf5
from lola.data.well.datasets import Datasets
from lola.data.well.splits import open_split
from lola.storage.stages import well_folder


@pytest.fixture
def environment(monkeypatch, object_store):
    credentials(monkeypatch, object_store)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    yield monkeypatch
    fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.fixture
def bucket(environment, well):
    system = fsspec.filesystem("s3")
    if not system.exists("simulations"):
        system.mkdir("simulations")
        for path in sorted(well.rglob("*.hdf5")):
            system.put(str(path), f"simulations/the-well/{path.relative_to(well)}")
    return "s3://simulations/the-well"


@pytest.fixture
def traffic(monkeypatch):
    """The byte ranges that were fetched."""
    ranges = []

    def spy(kind):
        original = kind._fetch_range

        def fetch(self, start, end):
            ranges.append((start, end))
            return original(self, start, end)

        monkeypatch.setattr(kind, "_fetch_range", fetch)

    spy(pytest.importorskip("s3fs").core.S3File)
    return ranges


def test_an_object_store_holds_the_same_dataset(bucket, well):
    here, there = open_split(well, EULER, "train"), open_split(bucket, EULER, "train")
    assert there.fingerprint == here.fingerprint
    assert [ref.id for ref in there.trajectories] == [ref.id for ref in here.trajectories]
    there = pickle.loads(pickle.dumps(there))
    for i in range(len(here.trajectories)):
        assert torch.equal(there.parameters(i), here.parameters(i))
        assert torch.equal(there.read(i, 3, here.steps, 4), here.read(i, 3, here.steps, 4))
    assert SECRET not in repr(there) + pickle.dumps(there).decode("latin-1")


def test_filters_and_inference(bucket):
    datasets = Datasets(bucket, exclude=("openBC",))
    assert len(datasets.open(EULER, "train").trajectories) == 2
    system = datasets.infer("euler_multi_quadrants_periodicBC")
    assert (system.channels, system.mean) == (EULER.channels, ())


def test_a_slice_does_not_fetch_the_file(bucket, traffic):
    """Of an array of 32 MB only the rows asked for are fetched, in one request; metadata in few blocks."""
    system = fsspec.filesystem("s3")
    values = np.random.default_rng(0).normal(size=(8, 1024, 1024)).astype(np.float32)
    whole = io.BytesIO()
    with h5py.File(whole, "w") as file:
        file["values"] = values
    system.pipe_file("simulations/large.hdf5", whole.getvalue())
    with open_hdf5("s3://simulations/large.hdf5") as file:
        array = file["values"]
        metadata = sum(end - start for start, end in traffic)
        assert metadata <= 4 * BLOCK_BYTES
        traffic.clear()
        np.testing.assert_array_equal(array[3], values[3])
        assert sum(end - start for start, end in traffic) == values[3].nbytes
        assert len(traffic) == 1
        traffic.clear()
        np.testing.assert_array_equal(array[5, 7, :10], values[5, 7, :10])
        np.testing.assert_array_equal(array[5, 7, 10:20], values[5, 7, 10:20])
        assert sum(end - start for start, end in traffic) <= 2 * BLOCK_BYTES


def test_a_bucket_that_does_not_exist(bucket):
    with pytest.raises(DataError, match=r"s3://nowhere/the-well does not exist; .*--well") as error:
        open_split("s3://nowhere/the-well", EULER, "train")
    assert "\n" not in str(error.value)


def test_a_split_that_does_not_exist(bucket):
    with pytest.raises(DataError, match=r"the-well has no HDF5 files in .*openBC/data/tune"):
        open_split(bucket, EULER, "tune")


def test_an_endpoint_that_does_not_answer(environment):
    environment.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(StorageError, match=r"s3://simulations/the-well/.* cannot be reached") as error:
        open_split("s3://simulations/the-well", EULER, "train")
    assert "\n" not in str(error.value)
    assert SECRET not in str(error.value)


def test_missing_credentials(environment, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        environment.delenv(name)
    environment.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    environment.setenv("AWS_EC2_METADATA_DISABLED", "true")
    environment.setenv("HOME", str(tmp_path))
    with pytest.raises(StorageError, match="Unable to locate credentials"):
        open_split("s3://simulations/the-well", EULER, "train")


def test_an_endpoint_that_dies_while_a_file_is_read(bucket, monkeypatch):
    split = open_split(bucket, EULER, "valid")

    def fail(self, start, end):
        raise ConnectionResetError("reset by peer")

    monkeypatch.setattr(pytest.importorskip("s3fs").core.S3File, "_fetch_range", fail)
    with pytest.raises(StorageError, match=r"valid.*hdf5.*cannot be reached \(reset by peer\)") as error:
        split.read(0, 0, split.steps)
    assert "\n" not in str(error.value)
    with pytest.raises(StorageError, match=r"s3://simulations.*cannot be reached \(reset by peer\)"):
        open_split(bucket, EULER, "train")


@pytest.fixture
def memory(well):
    system = fsspec.filesystem("memory")
    for path in well.rglob("*.hdf5"):
        system.pipe_file(f"/well/{path.relative_to(well)}", path.read_bytes())
    yield "memory://well"
    system.rm("/well", recursive=True)


def test_any_filesystem(memory, well):
    here, there = open_split(well, EULER, "test"), open_split(memory, EULER, "test")
    assert there.fingerprint == here.fingerprint
    assert torch.equal(there.read(1, 2, 9), here.read(1, 2, 9))


def test_corrupt_and_unrecognised_remote_files(memory):
    folder = f"{memory}/euler_multi_quadrants_openBC/data/train"
    system, path = fsspec.url_to_fs(list_files(folder)[0])
    whole = system.cat_file(path)
    for data in (whole[:-2000], b"no HDF5 at all"):
        system.pipe_file(path, data)
        with pytest.raises(DataError, match=r"memory://well.*cannot be opened as HDF5"):
            open_split(memory, EULER, "train")


def test_an_unknown_filesystem():
    with pytest.raises(StorageError, match=r"nothing://here.*Protocol not known"):
        open_split("nothing://here", EULER, "train")
    with pytest.raises(DataError, match="memory://nothing is missing"):
        RemoteFile("memory://nothing")


@pytest.mark.parametrize("url", [f"s3://me:{SECRET}@bucket/well", f"https://host/well?signature={SECRET}"])
def test_credentials_in_a_url_are_refused(url, tmp_path):
    with pytest.raises(StorageError, match="in the environment") as error:
        well_folder(tmp_path, url)
    assert SECRET not in str(error.value)


def test_folders_of_datasets(tmp_path, monkeypatch):
    assert well_folder(tmp_path, "well") == tmp_path / "well"
    assert well_folder(tmp_path, f"file://{tmp_path}") == Path(tmp_path)
    assert well_folder(tmp_path, "hf://datasets/polymathic-ai/") == "hf://datasets/polymathic-ai"
    with pytest.raises(StorageError, match="/nowhere/well is no folder; name the folder"):
        well_folder(tmp_path, "/nowhere/well")
    (tmp_path / "datasets").mkdir()
    with pytest.raises(StorageError, match=rf"is no folder \(did you mean {tmp_path}/datasets\?\)"):
        well_folder(tmp_path, f"{tmp_path}/dataset")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine").mkdir()
    assert well_folder(tmp_path / "storage", "~/mine") == tmp_path / "mine"


def test_a_file_that_another_process_writes_is_not_read(well, tmp_path):
    path = (
        tmp_path / "locked.hdf5"
    )  # a new file: tests that have read the others in this process hold their locks
    path.write_bytes(next(well.glob("*/data/train/*.hdf5")).read_bytes())
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(OSError, match="unable to lock file, errno = 11,"):
            h5py.File(path, "r")
        with pytest.raises(StorageError, match=rf"{path} is being written by another process; run again"):
            open_hdf5(path)
    with open_hdf5(path) as file:
        assert file.attrs["n_trajectories"] > 0


def test_a_file_that_may_not_be_read_is_not_called_missing(tmp_path, monkeypatch):
    def refusing(*arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied")

    path = tmp_path / "file.hdf5"
    path.write_bytes(b"x")
    monkeypatch.setattr(h5py, "File", refusing)
    with pytest.raises(StorageError, match=rf"cannot read {path} \(Permission denied\)"):
        open_hdf5(path)
    monkeypatch.setattr(os, "stat", refusing)
    with pytest.raises(StorageError, match="Permission denied"):
        open_cached(path)


def test_siblings_of_a_folder_that_lacks_the_data_are_named(well, tmp_path, monkeypatch):
    """Those of the smoke sweep, say, for a command that looks for the demo's."""
    (tmp_path / "well-smoke").symlink_to(well)
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match=r"simulate them \(--simulate\), or name \S+/well-smoke with --well$"):
        open_split(tmp_path / "well", EULER, "train")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "mine").symlink_to(well)
    monkeypatch.chdir(tmp_path / "here")  # a relative --well is under the storage root
    with pytest.raises(DataError, match=r"mine has no .*, or name \S+/here/mine with --well$"):
        open_split(tmp_path / "storage" / "mine", EULER, "train")
    with pytest.raises(ConfigError, match=r"--include nothing matches no file in \S+/well-smoke"):
        open_split(tmp_path / "well-smoke", EULER, "train", include=("nothing",))
