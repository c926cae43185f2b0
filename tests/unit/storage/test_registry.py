import shutil

import pytest
import torch

from lola.core.errors import DataError, StorageError, TrackingError
from lola.models.autoencoder_config import AutoencoderConfig
from lola.models.neural_solver_config import NeuralSolverConfig
from lola.models.transformer_config import TransformerConfig
from lola.storage.event_log import EventLog
from lola.storage.registry import find_emulator, find_stage
from lola.storage.stages import WEIGHTS, Stage
from lola.storage.tracking import Tracker
from lola.training.checkpoint import save_weights

SIZES = {"channels": 4, "parameters": 3, "spatial": 2, "window": 5}


@pytest.fixture(autouse=True)
def no_server(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def commit(root, kind, what, config, sizes, **details):
    inputs = details.pop("inputs", {})
    stage = Stage(root=root, kind=kind, system="euler", what=what, config=config, inputs=inputs)
    stage.folder.mkdir(parents=True)
    save_weights(stage.folder / WEIGHTS, config.build(**sizes))
    stage.commit(model={"type": type(config).__name__, **config.to_json()}, sizes=sizes, **details)
    return stage


@pytest.fixture
def stages(tmp_path):
    torch.manual_seed(0)
    config = AutoencoderConfig(latent_channels=4, channels=(8, 8), blocks=(1, 1))
    codec = commit(tmp_path, "autoencoders", "autoencoder-f2c4", config, {"channels": 2, "spatial": 2})
    solver = NeuralSolverConfig(network=TransformerConfig(features=16, blocks=1, heads=2, modulation=8))
    inputs = {"autoencoder": codec.fingerprint}
    model = commit(tmp_path, "emulators", "solver-f2c4", solver, SIZES, inputs=inputs, autoencoder=codec.name)
    return codec, model


def test_an_emulator_is_found_by_folder_name_and_fingerprint(tmp_path, stages):
    _, model = stages
    for reference in (str(model.folder), model.name, model.fingerprint, model.fingerprint[:8]):
        assert find_emulator(tmp_path, reference) == model.folder


def test_a_model_of_another_kind_is_refused(tmp_path, stages):
    codec, model = stages
    with pytest.raises(DataError, match="not an emulator"):
        find_stage(tmp_path, str(codec.folder), "emulators")
    with pytest.raises(DataError, match="not an autoencoder"):
        find_stage(tmp_path, str(model.folder), "autoencoders")


def test_an_unknown_name_is_refused_with_what_may_be_named(tmp_path):
    with pytest.raises(TrackingError, match="name a stage's folder"):
        find_emulator(tmp_path, "unknown")
    with pytest.raises(StorageError, match="no finished stage"):
        find_emulator(tmp_path, str(tmp_path))


@pytest.mark.filterwarnings("ignore")
def test_a_registered_emulator_brings_its_autoencoder(tmp_path, stages):
    tracker = Tracker(tmp_path, "euler")
    tracker.start_sweep("sweep", "f" * 64, {})
    for stage, name in zip(stages, ("euler-autoencoder-f2c4", "euler-solver-f2c4"), strict=True):
        tracker.follow(stage.folder, stage.fingerprint)
        event_log = EventLog(stage.folder)
        event_log.describe(name=name, tags={}, parameters={})
        event_log.model(stage.folder / WEIGHTS, name)
    tracker.finish_sweep(None, "FINISHED")
    weights = [(stage.folder / WEIGHTS).read_bytes() for stage in stages]
    for stage in stages:
        shutil.rmtree(stage.folder)
    assert find_emulator(tmp_path, "euler-solver-f2c4") == stages[1].folder
    assert all(stage.finished for stage in stages)
    assert [(stage.folder / WEIGHTS).read_bytes() for stage in stages] == weights
    shutil.rmtree(stages[0].folder)
    shutil.rmtree(tmp_path / "mlflow")
    with pytest.raises(TrackingError):
        find_emulator(tmp_path, stages[1].name)
