import dataclasses
import math

import pandas as pd
import pytest

from lola.core.errors import ConfigError, DataError, DivergedError
from lola.storage.event_log import EventLog
from lola.training.config import OptimizerConfig
from lola.workflows import presets
from lola.workflows.studies.optimizer_plan import OptimizerPlan, train_or_diverge
from lola.workflows.studies.optimizer_report import read_curve, report_optimizers, study_curves
from lola.workflows.studies.optimizers import ArmConfig


@pytest.fixture
def config():
    return presets.study_smoke()


def fingerprints(config, tmp_path, well):
    plan = OptimizerPlan(config, tmp_path, well)
    return {run.trial.name: run.trial.steps[0].stage.fingerprint for run in plan.runs}


def test_every_run_is_a_stage_of_its_own(config, tmp_path, well):
    arms = (config.arms[0].replace(learning_rates=(1e-3, 1e-2)), *config.arms[1:])
    plan = OptimizerPlan(config.replace(arms=arms, seeds=(0, 1, 2)), tmp_path, well)
    trials = plan.trials
    assert len({trial.steps[0].stage.folder for trial in trials}) == len(trials) == (2 + 3) * 3
    assert len({trial.name for trial in trials}) == len(trials)
    assert not any(trial.needs for trial in trials)


def test_runs_differ_in_what_is_compared_alone(config, tmp_path, well):
    for run in OptimizerPlan(config, tmp_path, well).runs:
        recipe = run.trial.steps[0].stage.config
        assert recipe.model.identity_init == run.arm.identity_init
        assert recipe.training.optimizer.learning_rate == run.learning_rate
        assert recipe.training.seed == run.seed
        common = recipe.training.replace(optimizer=config.training.optimizer, seed=config.training.seed)
        assert common == config.training
        assert recipe.model.replace(identity_init=True) == config.autoencoder
        tags = run.trial.steps[0].tags
        assert (tags["optimizer"], tags["identity_init"]) == (run.arm.optimizer.name, run.arm.identity_init)


def test_more_seeds_or_rates_leave_finished_runs_alone(config, tmp_path, well):
    before = fingerprints(config, tmp_path, well)
    arms = (config.arms[0].replace(learning_rates=(*config.arms[0].learning_rates, 1e-2)), *config.arms[1:])
    after = fingerprints(config.replace(arms=arms, seeds=(0, 1, 7)), tmp_path, well)
    assert before.items() <= after.items()
    assert len(after) == 5 * 3


def test_impossible_studies_are_refused(config, tmp_path, well):
    adam = OptimizerConfig(name="adam")
    with pytest.raises(ConfigError, match=r"--learning-rates contains 0.001 more than once"):
        ArmConfig(optimizer=adam, learning_rates=(1e-3, 1e-3))
    with pytest.raises(ConfigError, match="--learning-rates must name at least one"):
        ArmConfig(optimizer=adam, identity_init=False, learning_rates=())
    with pytest.raises(ConfigError, match=r"contains .* more than once"):
        config.replace(arms=(config.arms[0], config.arms[0]))
    with pytest.raises(ConfigError, match="seeds"):
        config.replace(seeds=(1, 1))
    with pytest.raises(ConfigError, match="16"):
        OptimizerPlan(config.replace(autoencoder=config.autoencoder.replace(patch_size=32)), tmp_path, well)


def test_presets_are_complete():
    for preset in presets.STUDIES.values():
        config = preset()
        assert type(config).from_json(config.to_json()).to_json() == config.to_json()


def record(folder, step, loss, seconds):
    values = {"train/loss": 2 * loss, "valid/loss": loss, "train/seconds_per_step": seconds}
    EventLog(folder).metrics(step, values)


def test_a_curve_counts_steps_that_were_done_twice_once(tmp_path):
    EventLog(tmp_path).metrics(0, {"progress/trajectories": 1.0})
    record(tmp_path, 5, 0.9, 1.0)
    record(tmp_path, 10, 0.8, 2.0)
    record(tmp_path, 10, 0.7, 3.0)  # after a restart from step 5
    record(tmp_path, 12, 0.6, 1.0)
    curve = read_curve(tmp_path)
    assert list(curve["step"]) == [5, 10, 12]
    assert list(curve["seconds"]) == [5.0, 20.0, 22.0]
    assert list(curve["valid_loss"]) == [0.9, 0.7, 0.6]
    assert list(curve["train_loss"]) == [1.8, 1.4, 1.2]


def test_the_report_is_made_of_the_runs_records(config, tmp_path, well):
    plan = OptimizerPlan(config, tmp_path, well)
    for number, run in enumerate(plan.runs):
        stage = run.trial.steps[0].stage
        for step in (5, 10, 20):
            record(stage.folder, step, 0.5 + number / step, 0.1)
        stage.commit()
    page = report_optimizers(plan)
    curves = pd.read_parquet(page.parent / "curves.parquet")
    assert len(curves) == 3 * len(plan.runs)
    assert list(curves["arm"].unique()) == ["Adam, no identity init", "Adam", "PSGD", "SOAP"]
    text = page.read_text("utf-8")
    assert "paper, epoch 1000" in text
    assert "Each optimiser has one rate, which was given" in text
    assert "After 20 steps Adam, no identity init has a validation loss of 0.6000." in text
    written = page.stat().st_mtime_ns
    assert report_optimizers(plan) == page
    assert page.stat().st_mtime_ns == written


def test_a_training_that_diverges_is_a_result_of_a_study(config, tmp_path, well):
    """Its stage is finished without weights, and its loss at the end is infinite."""
    plan = OptimizerPlan(config, tmp_path, well)
    for number, run in enumerate(plan.runs):
        stage = run.trial.steps[0].stage
        record(stage.folder, 5, 0.5, 0.1)
        if number:
            record(stage.folder, 20, 0.5 + number / 20, 0.1)
            stage.commit()
            continue

        def diverge():
            raise DivergedError("training diverged: 10 of 15 steps were skipped")

        (stage.folder / "checkpoints").mkdir()
        train_or_diverge(dataclasses.replace(run.trial.steps[0], run=diverge))
        assert stage.finished
        assert not (stage.folder / "checkpoints").exists()
    curves = study_curves(plan)
    first = curves[curves["seed"].eq(plan.runs[0].seed) & curves["arm"].eq("Adam, no identity init")]
    assert list(first["valid_loss"]) == [0.5, math.inf]
    assert list(first["step"]) == [5, 20]
    assert "a validation loss of inf" in report_optimizers(plan).read_text("utf-8")


def test_other_faults_are_none(config, tmp_path, well):
    step = OptimizerPlan(config, tmp_path, well).runs[0].trial.steps[0]

    def fail():
        raise DataError("a file is corrupt")

    with pytest.raises(DataError):
        train_or_diverge(dataclasses.replace(step, run=fail))
    assert not step.stage.finished
