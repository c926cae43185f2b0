"""Checkpoints after a power cut: Ray Train resumes from the newest one that is whole."""

import json
import logging
import shutil
from types import SimpleNamespace

import pytest
import torch
from ray.train import Checkpoint, CheckpointConfig
from ray.train.v2._internal.execution.checkpoint.checkpoint_manager import CheckpointManager
from ray.train.v2._internal.execution.storage import StorageContext
from ray.train.v2._internal.execution.training_report import _TrainingReport
from torch import nn

from lola.distributed.jobs.checkpoints import LIST_FILE, CheckpointStore
from lola.training.checkpoint import Position, save_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:The `:DeprecationWarning")  # Ray's own
FILES = ("model.safetensors", "optimizer.pt", "position.json")


def manager(store):
    """What a run of Ray Train knows of its checkpoints when it starts."""
    storage = StorageContext(store.parent, store.NAME)
    config = CheckpointConfig(
        num_to_keep=2, checkpoint_score_attribute="valid/loss", checkpoint_score_order="min"
    )
    return CheckpointManager(config, storage)


def report(store, kept, step, tmp_path):
    """Save, upload and register a checkpoint as a worker and its controller do."""
    model = nn.Linear(2, 2)
    folder = store.tmp_path() / f".tmp-{step}"
    folder.mkdir()
    save_checkpoint(folder, model, torch.optim.Adam(model.parameters()), Position(step=step))
    checkpoint = store.persist(kept._storage_context, Checkpoint.from_directory(folder), f"step-{step:08d}")
    shutil.rmtree(folder)
    kept._notify = lambda: None  # there is no event loop
    kept.register_checkpoint(
        _TrainingReport(
            checkpoint=checkpoint, metrics={"step": step, "valid/loss": 1 / step}, validation=False
        )
    )


@pytest.fixture
def store(tmp_path):
    store = CheckpointStore(str(tmp_path / "stage [x] a::b 50%"))
    folder = tmp_path / "stage [x] a::b 50%" / store.NAME
    folder.mkdir(parents=True)
    (folder / ".validate_storage_marker").touch()
    kept = manager(store)
    for step in (10, 20):
        report(store, kept, step, tmp_path)
    return store, folder


def latest(store):
    result = manager(store).latest_checkpoint_result
    return result and result.metrics["step"]


def test_nothing_is_done_to_what_is_whole(store):
    store, folder = store
    before = (folder / LIST_FILE).read_bytes()
    assert store.repair() == []
    assert (folder / LIST_FILE).read_bytes() == before
    assert latest(store) == 20


@pytest.mark.parametrize("kept", [0, 40, None])
@pytest.mark.parametrize("name", FILES)
def test_a_run_resumes_from_the_checkpoint_before_a_corrupt_one(store, name, kept):
    store, folder = store
    path = folder / "step-00000020" / name
    path.unlink() if kept is None else path.write_bytes(path.read_bytes()[:kept])
    fault, resumed = store.repair()
    assert str(folder / "step-00000020") in fault
    assert resumed == "training resumes from step 10"
    assert latest(store) == 10
    kept = manager(store)
    report(store, kept, 20, folder)  # under the name of the one that was corrupt
    report(store, kept, 30, folder)
    assert latest(store) == 30
    assert sorted(path.name for path in folder.glob("step-*")) == ["step-00000020", "step-00000030"]


def test_a_run_whose_checkpoints_are_all_corrupt_starts_again(store):
    store, folder = store
    for path in folder.glob("step-*/model.safetensors"):
        path.write_bytes(b"")
    assert store.repair()[-1] == "training starts again"
    assert latest(store) is None


@pytest.mark.parametrize("contents", ["", '{"ray_version"', "[]", "{}"])
def test_a_corrupt_list_is_rebuilt_from_the_checkpoints(store, contents):
    store, folder = store
    (folder / LIST_FILE).write_text(contents)
    (folder / "step-00000010" / "optimizer.pt").write_bytes(b"")
    fault, resumed = store.repair()
    assert f"{folder / LIST_FILE} is corrupt" in fault
    assert resumed == "training resumes from step 20"
    assert latest(store) == 20


def test_a_checkpoint_that_was_never_listed_is_removed_silently(store):
    store, folder = store
    shutil.copytree(folder / "step-00000020", folder / "step-00000030")
    (folder / "step-00000030" / "position.json").unlink()
    (folder / ".tmp-left").mkdir()
    assert store.repair() == []
    assert latest(store) == 20
    assert not (folder / ".tmp-left").exists()


def test_a_store_of_a_folder_with_two_colons_is_that_folder(store):
    store, folder = store
    assert store.parent == str(folder.parent)
    store.remove()
    assert not folder.exists()
    assert folder.parent.exists()


def test_a_checkpoint_is_on_the_disk_before_it_is_listed(store, monkeypatch):
    store, folder = store
    synced = []
    monkeypatch.setattr("lola.distributed.jobs.checkpoints.fsync_path", synced.append)
    monkeypatch.setattr("lola.distributed.jobs.checkpoints.fsync_folder", synced.append)
    storage = SimpleNamespace(
        persist_current_checkpoint=lambda checkpoint, name: Checkpoint.from_directory(folder / name)
    )
    store.persist(storage, None, "step-00000020")
    assert synced == [folder / "step-00000020", folder]


def test_a_list_is_json_that_ray_train_reads(store):
    logging.disable(logging.NOTSET)
    store, folder = store
    listed = json.loads((folder / LIST_FILE).read_text())
    assert [each["checkpoint_dir_name"] for each in listed["checkpoint_results"]] == [
        "step-00000010",
        "step-00000020",
    ]
