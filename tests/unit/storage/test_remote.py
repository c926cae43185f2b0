"""Storage roots in memory and on a server of the S3 protocol: whole objects, copies, errors of one line."""

import dataclasses
import os
import pickle
import threading
from pathlib import Path

import filelock
import fsspec
import pytest
from objectstore import credentials, free_port
from upath import UPath

from lola.core.config import Config
from lola.core.errors import DataError, StorageError
from lola.emulation import ensembles as ensemble
from lola.storage.inventory import unknown_files
from lola.storage.remote import (
    _remove_abandoned,
    cache_folder,
    find_files,
    find_relative_paths,
    local_copies,
    local_copy,
    local_folder_copy,
    temporary_folder,
    translate_fs_errors,
)
from lola.storage.stages import (
    Stage,
    atomic_path,
    manifests,
    output_folder,
    read_manifest,
    resolve_storage,
    well_folder,
    write_json,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Depth(Config):
    depth: int = 1


def stage(root):
    return Stage(root=root, kind="emulators", system="euler", what="solver", config=Depth(), inputs={})


@pytest.fixture
def s3(object_store, monkeypatch):
    credentials(monkeypatch, object_store)
    system = fsspec.filesystem("s3", use_listings_cache=False)
    if not system.exists("results"):
        system.mkdir("results")
    yield f"s3://results/{free_port()}"
    fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.fixture(params=["memory", "s3"])
def root(request, tmp_path, monkeypatch) -> UPath:
    monkeypatch.setenv("LOLA_CACHE", str(tmp_path / "cache"))
    url = request.getfixturevalue("s3") if request.param == "s3" else f"memory://{tmp_path.name}/lola"
    yield resolve_storage(url)
    if request.param == "memory":
        fsspec.filesystem("memory").store.clear()


@pytest.fixture
def downloads(root, monkeypatch):
    """The names of the objects that were fetched."""
    names, original = [], root.fs.get_file

    def spy(path, *arguments):
        names.append(path.rpartition("/")[2])
        return original(path, *arguments)

    monkeypatch.setattr(root.fs, "get_file", spy)
    return names


def partials(tmp_path):
    folder = tmp_path / "cache" / "tmp"
    return list(folder.iterdir()) if folder.exists() else []


def test_a_stage_is_finished_by_its_manifest(root):
    first: Stage = stage(root)
    assert not first.finished
    with pytest.raises(StorageError, match="no finished stage"):
        first.manifest()
    with atomic_path(first.folder / "model.safetensors") as partial:
        partial.write_bytes(b"weights")
    assert not first.finished
    first.commit(rows=3)
    assert first.finished
    assert pickle.loads(pickle.dumps(first)).manifest()["rows"] == 3
    assert manifests(root, "emulators") == [first.folder / "manifest.json"]
    assert find_relative_paths(first.folder) == ["manifest.json", "model.safetensors"]
    assert read_manifest(first.folder)["fingerprint"] == first.fingerprint
    (root / "stray.txt").write_text("")
    assert unknown_files(root) == [root / "stray.txt"]


def test_an_unfinished_write_leaves_nothing(root, tmp_path):
    with pytest.raises(ZeroDivisionError), atomic_path(root / "deep" / "file") as partial:
        assert partial.write_text("half") / 0
    assert find_files(root) == []
    assert partials(tmp_path) == []


def test_a_folder_comes_with_its_last_file_at_the_end(root, monkeypatch):
    order, original = [], root.fs.put_file

    def put(source, target):
        order.append(target.rpartition("/")[2])
        return original(source, target)

    monkeypatch.setattr(root.fs, "put_file", put)
    with atomic_path(root / "parts" / "0", last="b") as partial:
        partial.mkdir()
        for name in "abc":
            (partial / name).write_text(name)
    assert order == ["a", "c", "b"]
    with output_folder(root / "report") as folder:
        (folder / "pictures").mkdir()
        (folder / "pictures" / "a.png").write_bytes(b"a")
    assert find_relative_paths(root / "report") == ["pictures/a.png"]
    with local_folder_copy(root / "report") as folder:
        assert (folder / "pictures" / "a.png").read_bytes() == b"a"


def test_an_object_is_copied_once_and_again_when_it_was_replaced(root, tmp_path, downloads):
    path = root / "deep" / "model.safetensors"
    for text in ("first", "other"):  # of one size
        path.write_text(text)
        copies = set(local_copies([path] * 6)) | {local_copy(path)}
        assert [copy.read_text() for copy in copies] == [text]
        assert copies.pop().name == path.name
    assert downloads == [path.name] * 2
    assert partials(tmp_path) == []
    assert (tmp_path / "cache").stat().st_mode & 0o077 == 0
    with pytest.raises(DataError, match=r"nothing is missing; remove"):
        local_copy(root / "nothing")


def test_what_another_process_writes_is_seen(root):
    """Nothing is taken from a listing that was made before."""
    (root / "emulators" / "a").mkdir(parents=True, exist_ok=True)
    assert manifests(root, "emulators") == []
    assert not (root / "emulators" / "a" / "manifest.json").exists()
    other = fsspec.filesystem(root.protocol, skip_instance_cache=True)
    other.pipe_file(f"{root.path}/emulators/a/manifest.json", b"{}")
    assert (root / "emulators" / "a" / "manifest.json").exists()
    assert len(manifests(root, "emulators")) == 1


def test_a_local_path_is_its_own_copy(tmp_path):
    write_json(tmp_path / "a.json", 1)
    assert local_copy(tmp_path / "a.json") == tmp_path / "a.json"
    with local_folder_copy(tmp_path) as folder, output_folder(tmp_path) as same:
        assert folder == same == tmp_path


def test_temporary_files_of_killed_processes_are_removed(memory_root, tmp_path):
    folder = tmp_path / "cache" / "tmp"
    with filelock.FileLock(folder.parent / "alive.lock") as alive, temporary_folder() as own:
        for name in ("dead", "alive"):
            (folder / name).mkdir()
            (folder / name / "half").write_bytes(b"half")
        (folder / "dead.lock").touch()
        os.link(alive.lock_file, folder / "alive.lock")
        _remove_abandoned.cache_clear()
        with temporary_folder():
            left = {path.name for path in folder.iterdir() if path.is_dir()}
        assert "dead" not in left
        assert {"alive", own.name} <= left
    assert sorted(path.name for path in folder.iterdir()) == ["alive", "alive.lock"]


def test_copies_need_space(root, monkeypatch, tmp_path):
    (root / "file").write_text("x")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LOLA_CACHE", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="LOLA_CACHE"):
        local_copy(root / "file")


def describe_os_error(url):
    with pytest.raises(StorageError) as caught:
        resolve_storage(url)
    (line,) = str(caught.value).splitlines()
    return line


def test_roots_that_cannot_be_are_refused_in_one_line(s3, monkeypatch):
    assert "storage s3://nowhere/lola has no bucket yet" in describe_os_error("s3://nowhere/lola")
    assert "cannot be reached" in describe_os_error("unheard-of://bucket/lola")
    assert "chain" in describe_os_error("simplecache::s3://bucket/lola")
    assert "cannot be" in describe_os_error("s3://")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    assert "s3://results/lola cannot be reached" in describe_os_error("s3://results/lola")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    assert "credentials" in describe_os_error("s3://results/lola")


def test_a_root_that_refuses_writes_is_named(root, monkeypatch):
    def forbid(*arguments, **options):
        raise PermissionError("Access Denied")

    monkeypatch.setattr(type(root), "write_bytes", forbid)
    assert describe_os_error(str(root)) == (
        f"{root} refuses access (Access Denied); set its credentials in the environment"
    )


def test_a_download_that_is_cut_off_is_no_copy(root, tmp_path, monkeypatch):
    (root / "file").write_bytes(b"whole")
    original = root.fs.get_file

    def cut(path, target):
        with open(target, "wb") as file:
            file.write(b"who")

    monkeypatch.setattr(root.fs, "get_file", cut)
    with pytest.raises(StorageError, match="replaced while it was read"):
        local_copy(root / "file")
    monkeypatch.setattr(root.fs, "get_file", original)
    assert local_copy(root / "file").read_bytes() == b"whole"
    assert partials(tmp_path) == []


def test_processes_that_want_the_same_wait_for_one_download(root, downloads, monkeypatch):
    (root / "file").write_bytes(b"x" * 1000)
    found = []
    threads = [threading.Thread(target=lambda: found.append(local_copy(root / "file"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(found) == 4
    assert downloads == ["file"]


def test_a_folder_that_is_renamed_while_it_is_listed_is_no_error(tmp_path, monkeypatch):
    partial, kept = tmp_path / "parts" / ".0001.0123abcd", tmp_path / "parts" / "0000" / "seconds"
    partial.mkdir(parents=True)
    kept.parent.mkdir()
    kept.touch()
    scan = os.scandir

    def rename(folder):
        if Path(folder) == partial:
            partial.rename(tmp_path / "renamed")
        return scan(folder)

    monkeypatch.setattr(os, "scandir", rename)
    assert find_files(tmp_path / "parts") == [kept]
    assert not partial.exists()


def test_nothing_is_drawn_for_a_bucket_that_does_not_exist(s3, monkeypatch):
    monkeypatch.setattr(ensemble, "open_ensemble", lambda config: pytest.fail("it is drawn"))
    config = ensemble.EnsembleConfig(emulator="any", initial="any.hdf5")
    with pytest.raises(StorageError, match=r"output s3://nowhere/drawn has no bucket yet.*--output"):
        ensemble.write_ensemble(config, "s3://nowhere/drawn/a.hdf5")


def test_errors_of_programs_are_not_taken_for_those_of_filesystems(tmp_path):
    for error in (TypeError("a program's"), KeyError("key"), AssertionError("claim"), ValueError("value")):
        with pytest.raises(type(error)), translate_fs_errors("s3://bucket/file"):
            raise error


class ClientError(Exception):
    """Named and placed as the errors of a client of object stores."""

    __module__ = "botocore.exceptions"


@pytest.mark.parametrize(
    "error", [OSError("hung up"), TimeoutError("late"), ClientError("denied"), EOFError()]
)
def test_what_filesystems_raise_is_one_line_with_its_cause(error):
    with (
        pytest.raises(StorageError, match=r"s3://bucket/file cannot be reached") as caught,
        translate_fs_errors("s3://bucket/file"),
    ):
        raise error
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    ("given", "meant"), [("s3:/bucket/lola", "s3://bucket/lola"), ("gs:bucket", "gs://bucket")]
)
def test_a_url_with_a_slash_too_few_is_no_folder(given, meant, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StorageError, match=rf"--storage {given} is no folder; did you mean {meant}\?"):
        resolve_storage(given)
    with pytest.raises(StorageError, match=rf"--well {given} is no folder"):
        well_folder(tmp_path, given)
    assert list(tmp_path.iterdir()) == []


def test_stages_of_a_root_with_brackets_are_listed(memory_root):
    root = memory_root / "a [x] b*"
    (root / "emulators" / "euler-a-01234567" / "manifest.json").write_bytes(b"{}")
    (root / "emulators" / "euler-a-01234567" / "parts" / "manifest.json").write_bytes(b"{}")
    assert manifests(root, "emulators") == [root / "emulators" / "euler-a-01234567" / "manifest.json"]


def test_a_copy_that_a_power_cut_has_cut_is_fetched_again(memory_root, caplog):
    path = memory_root / "file"
    path.write_bytes(b"whole")
    copy = local_copy(path)
    for contents in (b"", b"who"):
        copy.write_bytes(contents)
        assert local_copy(path).read_bytes() == b"whole"
    assert caplog.text.count("is corrupt") >= 2


@pytest.mark.parametrize("home", [None, Path("/proc/1")])
def test_the_cache_folder_of_a_user_without_a_home(home, tmp_path, monkeypatch):
    monkeypatch.delenv("LOLA_CACHE", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("lola.storage.remote.home", lambda: home)
    assert cache_folder() == tmp_path / f"lola-cache-{os.getuid()}"
