"""What a training process does, and what is made of what it reports."""

import dataclasses
import functools
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ray.train import Checkpoint, PreemptionInfo
from ray.train.v2._internal.execution.training_report import _TrainingReport
from stages import small_sweep
from upath import UPath

from lola.core.errors import ClusterError, CorruptError, DataError, LolaError, StorageError
from lola.distributed.cluster import preemption
from lola.distributed.jobs import train, worker
from lola.distributed.jobs.checkpoints import CheckpointStore
from lola.distributed.jobs.train_workers import EventLogCallback
from lola.distributed.jobs.worker import Session, Setup, TrainingRun
from lola.emulation.emulator import trained_system
from lola.models.autoencoder_config import AutoencoderConfig
from lola.storage.event_log import EventLog
from lola.storage.stages import WEIGHTS
from lola.workflows.plan import SweepPlan

NUMBERING = SimpleNamespace(short=0, starts=[0], span=1)


class Bad:
    """Windows whose file cannot be read."""

    numbering = NUMBERING

    def __len__(self):
        return 8

    def read(self, index, key):
        raise DataError("file a.hdf5 holds -3; simulate or fetch it again")


@dataclasses.dataclass(frozen=True)
class Played:
    """The arguments of a worker, and what it reported."""

    run: TrainingRun
    session: Session
    reports: list


@pytest.fixture
def played(tmp_path, well):
    plan = SweepPlan(small_sweep(), tmp_path, well)
    stage, config = plan.autoencoder(16), plan.config.autoencoder_training.replace(steps=2, report_every=2)
    model = stage.config.model
    assert isinstance(model, AutoencoderConfig)
    setup = functools.partial(Setup, torch.nn.Linear(1, 1), Bad(), Bad())
    reports = []

    def report(reported, folder, name, wait):
        reports.append(reported)
        shutil.rmtree(folder)

    session = Session(0, 1, torch.device("cpu"), None, lambda: False, report)
    return Played(TrainingRun(stage, config, setup, model, {"channels": 5, "spatial": 2}), session, reports)


def test_a_bad_first_file_ends_the_run_at_once(played):
    with pytest.raises(DataError, match=r"file a\.hdf5 holds -3") as error:
        worker.work(played.run, played.session)
    with pytest.raises(DataError, match=r"file a\.hdf5 holds -3"):  # in the run's controller
        EventLogCallback(played.run.stage.folder).after_exception(None, {0: error.value})
    assert played.reports == []


def test_a_worker_reports_the_curve_once(played, monkeypatch):
    def train(model, config, *sources, report, curve, **options):
        for step in (2, 4):
            curve([(step - 1, 1.0), (step, 0.5)])
            report(step, {"train/loss": 0.75, "train/seconds_per_step": 1.0}, lambda folder: None)

    monkeypatch.setattr(worker, "train", train)
    monkeypatch.setattr(worker, "ModelFlopsUtilization", lambda *arguments: lambda seconds: 0.5)
    worker.work(played.run, played.session)
    assert [reported["curve"] for reported in played.reports] == [[(1, 1.0), (2, 0.5)], [(3, 1.0), (4, 0.5)]]


def test_a_corrupt_file_is_not_tried_again(tmp_path):
    with pytest.raises(CorruptError, match="remove it"):
        EventLogCallback(tmp_path).after_exception(None, {0: CorruptError("manifest: remove it")})


@pytest.mark.parametrize("step", [None, 1])
def test_a_run_that_ended_early_is_not_committed(played, monkeypatch, tmp_path, step):
    def stop(run):
        manager = CheckpointStore.of(run.stage, run.training).manager(1)
        if step is not None:
            path = manager._storage_context.build_checkpoint_path_from_name("step-1")
            Path(path).mkdir()
            checkpoint = Checkpoint(path, manager._storage_context.storage_filesystem)
            report = _TrainingReport(metrics={"step": step}, checkpoint=checkpoint, validation=False)
            manager.register_checkpoint(report)

    monkeypatch.setattr(train, "train_by_one", stop)
    with pytest.raises(LolaError, match=rf"ended at step {step or 0} of 2; run again"):
        train.run_training(played.run)
    assert not played.run.stage.finished


def test_a_model_brings_the_statistics_that_were_computed_for_it(played, monkeypatch, tmp_path, well):
    plan = SweepPlan(small_sweep().replace(statistics="computed"), tmp_path, well)
    run = dataclasses.replace(played.run, stage=plan.autoencoder(16))
    (statistics,) = plan.first
    with pytest.raises(StorageError, match="statistics"):  # before anything is trained
        train.run_training(run)
    statistics.folder.mkdir(parents=True)
    mean, std = [1.0, 0.1, 2.0, 3.0, 4.0], [0.3, 2.0, 1.0, 1e-6, 0.0]
    statistics.commit(mean=mean, std=std)

    def finish(run):
        metrics = {"step": 2, "train/skipped": 0, "train/seconds_per_step": 1.0, "workers": 1, "device": "x"}
        manager = CheckpointStore.of(run.stage, run.training).manager(1)
        path = Path(manager._storage_context.build_checkpoint_path_from_name("step-2"))
        path.mkdir()
        (path / WEIGHTS).write_bytes(b"weights")
        checkpoint = Checkpoint(str(path), manager._storage_context.storage_filesystem)
        manager.register_checkpoint(_TrainingReport(metrics=metrics, checkpoint=checkpoint, validation=False))

    monkeypatch.setattr(train, "train_by_one", finish)
    train.run_training(run)
    shutil.rmtree(statistics.folder)
    system = trained_system(run.stage.folder)
    assert system.mean == tuple(mean)
    assert system.std == (0.3, 2.0, 1.0, 1e-6, 1.0)


def test_what_was_corrupt_is_in_the_event_log(played, monkeypatch):
    notices, lines = [], ["step 4 is corrupt", "starts again"]
    monkeypatch.setattr(CheckpointStore, "repair", lambda self: lines)
    monkeypatch.setattr(EventLog, "notice", lambda self, text: notices.append(text))
    monkeypatch.setattr(train, "train_by_one", lambda run: None)
    with pytest.raises(LolaError):
        train.run_training(played.run)
    assert notices == lines


def test_checkpoints_on_an_object_store_are_not_looked_through(memory_root):
    store = CheckpointStore(str(memory_root))
    assert isinstance(memory_root, UPath)
    assert store.repair() == []


def test_a_notice_of_the_own_node_asks_for_a_checkpoint(monkeypatch):
    monkeypatch.setattr(preemption, "draining_nodes", lambda: {"other": 5, "mine": 0})
    info = preemption.preemption_of("mine")
    assert info == PreemptionInfo(deadline_ms=None, preempted_node_to_ranks={"mine": [0]})
    assert preemption.PreemptionMonitor(torch.device("cpu"), lambda: preemption.preemption_of("mine"))()
    assert preemption.preemption_of("third") is None


def test_a_folder_that_is_not_shared_is_refused(tmp_path):
    here, elsewhere = (CheckpointStore(str(tmp_path / name)) for name in ("here", "elsewhere"))
    here.mark()
    here.require_mark()
    with pytest.raises(ClusterError, match=r"elsewhere is not the same folder on all nodes"):
        elsewhere.require_mark()
    here.remove()
    assert not (tmp_path / "here" / "checkpoints").exists()
