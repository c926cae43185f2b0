"""What a training process does where Ray Train calls it, with Ray Train's functions played by others."""

import dataclasses
import functools
from types import SimpleNamespace

import pytest
import ray.train
import ray.train.torch
import torch
from ray.train import Checkpoint
from stages import small_sweep
from upath import UPath

from lola.core.errors import CorruptError, DataError, LolaError
from lola.distributed.jobs import train as training
from lola.models.autoencoder_config import AutoencoderConfig
from lola.storage.event_log import EventLog
from lola.workflows.plan import SweepPlan


class Bad:
    """Windows whose file cannot be read."""

    def __len__(self):
        return 8

    def read(self, index, key):
        raise DataError("file a.hdf5 holds -3; simulate or fetch it again")


@dataclasses.dataclass(frozen=True)
class Played:
    """The arguments of a worker, and what it reported."""

    run: training.TrainingRun
    reports: list


@pytest.fixture
def played(tmp_path, well, monkeypatch):
    plan = SweepPlan(small_sweep(), tmp_path, well)
    stage, config = plan.autoencoder(16), plan.config.autoencoder_training.replace(steps=2, report_every=2)
    reports = []
    context = SimpleNamespace(
        get_world_rank=lambda: 0,
        get_world_size=lambda: 1,
        get_storage=lambda: SimpleNamespace(persist_current_checkpoint=lambda checkpoint, name: checkpoint),
    )
    monkeypatch.setattr(ray.train, "get_context", lambda: context)
    monkeypatch.setattr(ray.train, "get_checkpoint", lambda: None)
    monkeypatch.setattr(ray.train, "report", lambda metrics, **options: reports.append((metrics, options)))
    monkeypatch.setattr(ray.train.torch, "get_device", lambda: torch.device("cpu"))
    model = stage.config.model
    assert isinstance(model, AutoencoderConfig)
    sizes = {"channels": 5, "spatial": 2}
    setup = functools.partial(training.Setup, torch.nn.Linear(1, 1), Bad(), Bad())
    return Played(training.TrainingRun(stage, config, setup, model, sizes), reports)


def test_a_bad_first_file_ends_the_run_at_once(played):
    with pytest.raises(DataError, match=r"file a\.hdf5 holds -3") as error:
        training._worker({"run": played.run})
    with pytest.raises(DataError, match=r"file a\.hdf5 holds -3"):  # in the run's controller
        training.EventLogCallback(played.run.stage.folder).after_exception(None, {0: error.value})
    assert played.reports == []


def test_a_worker_reports_the_curve_once(played, monkeypatch):
    def train(model, config, *sources, report, curve, **options):
        for step in (2, 4):
            curve([(step - 1, 1.0), (step, 0.5)])
            report(step, {"train/loss": 0.75, "train/seconds_per_step": 1.0}, lambda folder: None)

    numbering = SimpleNamespace(short=0, starts=[0], span=1)
    monkeypatch.setattr(Bad, "numbering", numbering, raising=False)
    monkeypatch.setattr(training, "train", train)
    monkeypatch.setattr(training, "ModelFlopsUtilization", lambda *arguments: lambda seconds: 0.5)
    training._worker({"run": played.run})
    assert [metrics["curve"] for metrics, _ in played.reports] == [[(1, 1.0), (2, 0.5)], [(3, 1.0), (4, 0.5)]]


def test_a_corrupt_file_is_not_tried_again(tmp_path):
    with pytest.raises(CorruptError, match="remove it"):
        training.EventLogCallback(tmp_path).after_exception(None, {0: CorruptError("manifest: remove it")})


@pytest.mark.parametrize("metrics", [None, {}, {"step": 1}])
def test_a_run_that_ended_early_is_not_committed(played, monkeypatch, tmp_path, metrics):
    result = SimpleNamespace(checkpoint=Checkpoint(str(tmp_path)), metrics=metrics)
    monkeypatch.setattr(training, "TorchTrainer", lambda *a, **o: SimpleNamespace(fit=lambda: result))
    with pytest.raises(LolaError, match=r"ended at step \d of 2; run again"):
        training.run_training(played.run)
    assert not played.run.stage.finished


def test_what_was_corrupt_is_in_the_event_log(played, monkeypatch):
    notices, lines = [], ["step 4 is corrupt", "starts again"]
    monkeypatch.setattr(training.CheckpointStore, "repair", lambda self: lines)
    monkeypatch.setattr(EventLog, "notice", lambda self, text: notices.append(text))
    result = SimpleNamespace(checkpoint=None, metrics=None)
    monkeypatch.setattr(training, "TorchTrainer", lambda *a, **o: SimpleNamespace(fit=lambda: result))
    with pytest.raises(LolaError):
        training.run_training(played.run)
    assert notices == lines


def test_checkpoints_on_an_object_store_are_not_looked_through(memory_root):
    store = training.CheckpointStore(str(memory_root))
    assert isinstance(memory_root, UPath)
    assert store.repair() == []
