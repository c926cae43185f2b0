import json
import logging

import pytest
from any_stage import stage

from lola.core.errors import CorruptError, StorageError
from lola.storage import stages as storage
from lola.storage.integrity import result_sizes
from lola.storage.stages import read_manifest, read_manifests, write_json


@pytest.fixture
def whole(tmp_path):
    made = stage(tmp_path)
    (made.folder / "inner").mkdir(parents=True)
    (made.folder / "parts").mkdir()
    for name in ("model.safetensors", "inner/shard", "parts/part", ".hidden", "events.jsonl", "error.txt"):
        (made.folder / name).write_text(f"contents of {name}")
    made.commit(rows=3)
    assert made.finished
    storage._verified.clear()
    return made


@pytest.fixture(autouse=True)
def _forget(monkeypatch):
    """Look as a process does that has not looked yet."""
    monkeypatch.setattr(storage, "_warned", set())


def test_a_manifest_lists_only_results(whole):
    expected = {"inner/shard": 23, "model.safetensors": 29}
    assert whole.manifest()["files"] == result_sizes(whole.folder) == expected


def test_an_object_store_lists_the_same(memory_root):
    made = stage(memory_root)
    for name in ("model.safetensors", "inner/shard", "parts/part", ".hidden", "events.jsonl"):
        (made.folder / name).write_bytes(b"1234567")
    made.commit()
    assert made.manifest()["files"] == {"inner/shard": 7, "model.safetensors": 7}


@pytest.mark.parametrize("name", ["manifest.json", "model.safetensors", "inner/shard"])
@pytest.mark.parametrize("kept", [0, 11, None, "zeros"])
def test_a_stage_with_a_truncated_file_is_not_finished_and_logs_it(whole, name, kept, caplog):
    path = whole.folder / name
    if kept is None:
        path.unlink()
    elif kept == "zeros" and name != "manifest.json":
        pytest.skip("of the same size: detected when it is read")
    else:
        whole_bytes = path.read_bytes()
        path.write_bytes(b"\0" * len(whole_bytes) if kept == "zeros" else whole_bytes[:kept])
    with caplog.at_level(logging.WARNING):
        assert [whole.finished for _ in range(3)] == [False] * 3
    if name == "manifest.json" and kept is None:
        assert not caplog.records  # nothing tells that it was there
    else:
        (record,) = caplog.records
        assert str(path) in record.getMessage()
        assert "made again" in record.getMessage()
    path.parent.mkdir(exist_ok=True)
    (whole.folder / "model.safetensors").write_text("contents of model.safetensors")
    (whole.folder / "inner/shard").write_text("contents of inner/shard")
    whole.commit(rows=3)
    assert whole.finished


def test_a_folder_of_another_stage_is_not_taken_for_it(whole):
    manifest = whole.manifest()
    other = manifest["fingerprint"][:8] + "0" * 56
    write_json(whole.folder / "manifest.json", manifest | {"fingerprint": other})
    with pytest.raises(StorageError, match=rf"its fingerprint is {other}, not {whole.fingerprint}.*move"):
        _ = whole.finished


def test_a_manifest_is_read_once_until_it_changes(whole, monkeypatch):
    reads, genuine = [], storage.read_bytes
    monkeypatch.setattr(storage, "read_bytes", lambda path: reads.append(path) or genuine(path))
    assert all(stage(whole.root).finished for _ in range(1000))
    assert len(reads) <= 1
    whole.commit(rows=4)
    assert whole.finished
    assert len(reads) <= 2


def test_earlier_manifests_without_files_are_finished(whole):
    manifest = {key: value for key, value in whole.manifest().items() if key != "files"}
    write_json(whole.folder / "manifest.json", manifest)
    assert stage(whole.root).finished


def test_one_corrupt_manifest_hides_no_other_stage(whole, caplog):
    other = stage(whole.root, depth=2)
    other.folder.mkdir(parents=True)
    other.commit()
    (whole.folder / "manifest.json").write_text(json.dumps(whole.manifest())[:40])
    with caplog.at_level(logging.WARNING):
        found = [folder for folder, _ in read_manifests(whole.root, "emulators")]
    assert found == [other.folder]
    assert str(whole.folder) in caplog.text
    with pytest.raises(CorruptError, match="remove it and run again"):
        read_manifest(whole.folder)
