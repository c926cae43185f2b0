import pickle

import pytest
import ray.train

from lola.distributed import train
from lola.distributed.train import SpoolCallback, TrainingRun, run_training
from lola.errors import ConfigError, DataError, DivergedError, LolaError, StorageError
from lola.storage import Stage
from lola.training.loop import TrainingConfig


@pytest.mark.parametrize("kind", [DivergedError, DataError, ConfigError])
def test_errors_that_another_start_does_not_mend_are_final(tmp_path, kind):
    with pytest.raises(kind, match="window 3"):
        SpoolCallback(tmp_path).after_exception(None, {1: kind("window 3"), 0: RuntimeError("gloo: closed")})


def test_lost_workers_and_storage_are_tried_again(tmp_path):
    lost = {0: RuntimeError("gloo: closed"), 1: StorageError("no space left")}
    SpoolCallback(tmp_path).after_exception(None, lost)


@pytest.mark.parametrize("inner", [DivergedError("training diverged: window 3"), RuntimeError("a fault")])
def test_a_final_error_is_that_of_the_training(tmp_path, monkeypatch, inner):
    class Trainer:
        def __init__(self, *positional, **named):
            pass

        def fit(self):
            raise pickle.loads(pickle.dumps(ray.train.ControllerError(inner)))

    monkeypatch.setattr(train, "TorchTrainer", Trainer)
    config = TrainingConfig(steps=1)
    stage = Stage(root=tmp_path, kind="emulators", system="euler", what="test", config=config, inputs={})
    with pytest.raises(LolaError) as error:
        run_training(TrainingRun(stage, config, setup=lambda: None, model=config, sizes={}))
    if isinstance(inner, LolaError):
        assert repr(error.value) == repr(inner)
    else:
        assert str(error.value).startswith("training euler-test-")
    assert not stage.finished
