import json
import math
import pickle
from types import SimpleNamespace

import pytest
import ray.train
from ray.train._internal.checkpoint_manager import _CheckpointManager as CheckpointManager

from lola.core.errors import ConfigError, DataError, DivergedError, LolaError, StorageError
from lola.core.strict_json import loads
from lola.distributed.jobs import checkpoints, train_workers
from lola.distributed.jobs.checkpoints import LIST_FILE, SCORE_METRIC, CheckpointStore
from lola.distributed.jobs.train_workers import EventLogCallback, train_by_workers
from lola.distributed.jobs.worker import TrainingRun
from lola.distributed.runner.tune import INPUT_MISSING, describe_failures
from lola.storage.event_log import read_events
from lola.storage.stages import Stage
from lola.training.checkpoint import Position
from lola.training.config import TrainingConfig


@pytest.mark.parametrize("kind", [DivergedError, DataError, ConfigError])
def test_errors_that_another_start_does_not_fix_are_final(tmp_path, kind):
    with pytest.raises(kind, match="window 3"):
        EventLogCallback(tmp_path).after_exception(
            None, {1: kind("window 3"), 0: RuntimeError("gloo: closed")}
        )


def test_lost_workers_and_storage_are_tried_again(tmp_path):
    lost = {0: RuntimeError("gloo: closed"), 1: StorageError("no space left")}
    EventLogCallback(tmp_path).after_exception(None, lost)


@pytest.mark.parametrize("inner", [DivergedError("training diverged: window 3"), RuntimeError("a fault")])
def test_a_final_error_is_that_of_the_training(tmp_path, monkeypatch, inner):
    class Trainer:
        def __init__(self, *positional, **named):
            pass

        def fit(self):
            raise pickle.loads(pickle.dumps(ray.train.ControllerError(inner)))

    monkeypatch.setattr(train_workers, "TorchTrainer", Trainer)
    config = TrainingConfig(steps=1)
    stage = Stage(root=tmp_path, kind="emulators", system="euler", what="test", config=config, inputs={})
    with pytest.raises(LolaError) as error:
        train_by_workers(TrainingRun(stage, config, setup=lambda: None, model=config, sizes={}))
    if isinstance(inner, LolaError):
        assert repr(error.value) == repr(inner)
    else:
        assert str(error.value).startswith("training euler-test-")
    assert not stage.finished


def test_the_line_of_failed_trials_tells_dependent_ones_apart():
    failures = {"autoencoder": "DivergedError: too fast", "diffusion": INPUT_MISSING, "solver": INPUT_MISSING}
    assert describe_failures(failures, 5) == (
        "1 of 5 trials failed: autoencoder (DivergedError: too fast); "
        "2 that need what is missing were not run: diffusion, solver"
    )
    assert describe_failures({"autoencoder": "a"}, 5) == "1 of 5 trials failed: autoencoder (a)"


def listing(loss):
    """Ray Train's list of two checkpoints."""
    entries = [
        {"checkpoint_dir_name": name, "metrics": {"step": step, "valid/loss": value}}
        for name, step, value in (("step-1", 1, 0.5), ("step-2", 2, loss))
    ]
    return {"checkpoint_results": entries, "latest_checkpoint_result": entries[1], "current_report_index": 2}


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize("loss", [None, math.nan])
def test_a_validation_loss_that_ray_wrote_as_null_is_the_worst(tmp_path, monkeypatch, loss, remote):
    """Ray Train orders checkpoints by it, and cannot order null."""
    store = CheckpointStore(f"memory://{tmp_path.name}" if remote else str(tmp_path))
    path = f"{store.parent}/checkpoints/{LIST_FILE}"
    for name in ("step-1", "step-2"):
        store.filesystem.makedirs(f"{store.parent}/checkpoints/{name}")
    store.filesystem.pipe_file(path, json.dumps(listing(loss)).encode())
    monkeypatch.setattr(checkpoints, "read_position", lambda folder: Position(int(folder.name[-1])))
    assert "the validation loss of checkpoint step-2 was not finite" in store.repair()
    found = loads(store.filesystem.cat_file(path))
    manager = CheckpointManager.__new__(CheckpointManager)
    manager._checkpoint_config = ray.train.CheckpointConfig(
        checkpoint_score_attribute=SCORE_METRIC, checkpoint_score_order="min"
    )
    scores = [
        manager._get_checkpoint_score(SimpleNamespace(metrics=each["metrics"]))
        for each in [*found["checkpoint_results"], found["latest_checkpoint_result"]]
    ]
    assert scores[0] > scores[1] == scores[2]
    assert store.repair() == []


def test_notices_of_the_workers_are_recorded(tmp_path):
    EventLogCallback(tmp_path).after_report(None, 2 * [{"step": 4, "notices": ["step 3 was skipped"]}], None)
    (_, event), (_, progress) = read_events(tmp_path)
    assert (event["kind"], event["text"]) == ("notice", "step 3 was skipped")
    assert (progress["kind"], progress["step"]) == ("progress", 4)


def test_the_curve_of_the_workers_is_recorded_before_their_report(tmp_path):
    report = {"step": 4, "curve": [(2, 0.5), (4, 0.25)], "train/loss": 0.375, "notices": []}
    EventLogCallback(tmp_path).after_report(None, 2 * [report], None)
    (_, curve), (_, metrics) = read_events(tmp_path)
    assert (curve["kind"], curve["name"]) == ("curve", "train/loss")
    assert curve["points"] == [(2, 0.5), (4, 0.25)]
    assert (metrics["step"], metrics["values"]) == (4, {"train/loss": 0.375})
