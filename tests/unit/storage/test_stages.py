import multiprocessing
import os
import signal
import stat
import time

import pytest
from any_stage import stage

from lola.core.errors import StorageError
from lola.storage.cleaning import CleanConfig, clean
from lola.storage.remote import redact_url
from lola.storage.stages import atomic_path, read_manifest, resolve_storage, well_folder


def test_the_folder_is_named_by_content(tmp_path):
    first = stage(tmp_path)
    assert first.folder == tmp_path / "emulators" / f"euler-diffusion-f16c64-{first.fingerprint[:8]}"
    assert first.fingerprint != stage(tmp_path, depth=2).fingerprint
    assert first.fingerprint != stage(tmp_path, latents="x").fingerprint
    assert first.fingerprint == stage(tmp_path / "elsewhere").fingerprint


def test_only_the_manifest_finishes_a_stage(tmp_path):
    first = stage(tmp_path)
    first.folder.mkdir(parents=True)
    (first.folder / "model.safetensors").write_bytes(b"weights")
    assert not first.finished
    first.commit(rows=3)
    assert first.finished
    assert first.manifest()["rows"] == 3
    assert first.manifest()["fingerprint"] == first.fingerprint
    assert "torch" in first.manifest()["software"]


@pytest.mark.parametrize(("text", "message"), [("{", "not JSON"), ('{"schema": 99}', "schema 99")])
def test_a_corrupt_or_unrecognised_manifest_is_refused(tmp_path, text, message):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(StorageError, match=message):
        read_manifest(tmp_path)


def test_an_unfinished_write_leaves_nothing(tmp_path):
    path = tmp_path / "deep" / "file"
    with pytest.raises(ZeroDivisionError), atomic_path(path) as partial:
        assert partial.write_text("half") / 0
    assert list(path.parent.iterdir()) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_named_in_one_line(tmp_path):
    with (
        pytest.raises(StorageError, match=r"No space left.*--storage"),
        atomic_path(tmp_path / "file"),
        open("/dev/full", "w") as file,
    ):
        file.write("x" * 100)


def test_storage_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"file.*--storage"):
        resolve_storage(str(tmp_path / "file" / "below"))


def test_the_storage_root_is_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve_storage("results") == tmp_path / "results"
    monkeypatch.setenv("LOLA_STORAGE", str(tmp_path / "other"))
    assert resolve_storage(None) == tmp_path / "other"
    assert stat.S_ISDIR(os.stat(tmp_path / "other").st_mode)


def test_a_root_that_only_something_is_looked_for_in_is_not_made(tmp_path):
    with pytest.raises(StorageError, match="mistyped does not exist; give another --storage"):
        resolve_storage(str(tmp_path / "mistyped"), create=False)
    with pytest.raises(StorageError, match="does not exist"):
        clean(CleanConfig(storage=str(tmp_path / "mistyped")), print)
    assert not list(tmp_path.iterdir())


def hold(root, held):
    with stage(root).lease():
        held.set()
        time.sleep(60)


def test_a_lease_ends_with_its_holder(tmp_path):
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    holder = context.Process(target=hold, args=(tmp_path, held))
    holder.start()
    assert held.wait(60)
    lease = stage(tmp_path).lease()
    with pytest.raises(TimeoutError):
        lease.acquire(timeout=0.2)
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    with lease.acquire(timeout=5):
        pass


@pytest.mark.parametrize("url", ["s3://me:planted@bucket/lola", "https://host/lola?token=planted"])
def test_urls_that_are_refused_are_not_shown_with_their_credentials(tmp_path, url):
    for use in (lambda: resolve_storage(url), lambda: well_folder(tmp_path, url)):
        with pytest.raises(StorageError) as refusal:
            use()
        assert "planted" not in str(refusal.value)
        assert redact_url(url) in str(refusal.value)
