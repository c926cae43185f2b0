"""A whole sweep in this process, without a cluster: statistics, trainings, caches, evaluations, report."""

import dataclasses
import functools
import warnings
from pathlib import Path

import pytest
from inline import run_inline
from small_run import train_here

from lola.data.well.scan import ScannedFile
from lola.data.well.simulation_files import simulation_files
from lola.distributed.jobs import compute_statistics
from lola.distributed.jobs.datasource import WellDatasource
from lola.distributed.jobs.train import run_training
from lola.distributed.trials import make
from lola.storage.remote import AnyPath
from lola.workflows import presets
from lola.workflows.plan import SweepPlan
from lola.workflows.sweep import SweepConfig
from lola.workflows.sweep_report import report_sweep


def brief_sweep(folder: Path, storage: Path, steps: int = 2) -> SweepConfig:
    """The smoke preset for the dataset in a folder, with trainings of a few steps."""
    config = presets.smoke(str(folder), storage=str(storage))
    brief = {"steps": steps, "report_every": steps, "batch_size": 2, "valid_samples": 2, "warmup": 0}
    return config.replace(
        autoencoder_training=config.autoencoder_training.replace(**brief),
        emulator_training=config.emulator_training.replace(**brief),
        pixel_training=config.pixel_training.replace(**brief),
        solver_steps=(2,),
        evaluation=config.evaluation.replace(trajectories=1, starts=config.evaluation.starts[:1]),
    )


def statistics_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let statistics be computed in this process."""
    monkeypatch.setattr(compute_statistics, "_stream", _found)


def _found(splits, block, *_):
    """What is found in each trajectory of some splits."""
    shards = [file for split in splits for file in simulation_files(split)]
    files = {n: ScannedFile(file.split, file.members) for n, file in enumerate(shards)}
    tasks = WellDatasource(files, block).get_read_tasks(parallelism=1)
    return [row for task in tasks for table in task() for row in table.to_pylist()]


def sweep_here(plan: SweepPlan, monkeypatch: pytest.MonkeyPatch, stills: bool = True) -> AnyPath:
    """Make all stages of a sweep and its report, with or without pictures of its charts; returns the page."""
    run_inline(monkeypatch)
    if not stills:
        monkeypatch.setattr("lola.evaluation.page.stills.vega_lite", lambda chart: {"vconcat": []})
    statistics_here(monkeypatch)
    for trial in plan.trials:
        for step in trial.steps:
            if getattr(step.run, "func", None) is run_training:
                step = dataclasses.replace(step, run=functools.partial(train_here, *step.run.args))
            with step.stage.lease(), warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Learning rate changed")  # by heavyball, in workers too
                make(step)
    return report_sweep(plan)
