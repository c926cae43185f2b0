import dataclasses
import io

import pytest
from rich.console import Console

from lola.storage.event_log import EventLog
from lola.storage.progress import Progress
from lola.storage.stages import SCHEMA_VERSION, write_json
from lola.workflows import sweep_report
from lola.workflows.plan import SweepPlan
from lola.workflows.training_time import PER_STEP


@pytest.mark.parametrize("contexts", [(), (2, 3)])
def test_an_emulator_is_timed_once_whatever_the_contexts(sweep, tmp_path, well, monkeypatch, contexts):
    plan = SweepPlan(sweep.replace(contexts=contexts), tmp_path, well)
    monkeypatch.setattr(sweep_report, "_timing", lambda trial: trial.name)
    monkeypatch.setattr(sweep_report, "_simulator", lambda plan: ["simulator"])
    one = SweepPlan(sweep, tmp_path, well)
    emulators = [trial.name for trial in one.evaluations if trial.steps[0].stage.config.subject == "emulator"]
    assert len(emulators) > 1
    assert list(sweep_report._timings(plan)) == ["simulator", *emulators]


def test_a_timing_has_its_members_and_how_long_its_models_were_trained(sweep, tmp_path, well, monkeypatch):
    plan = SweepPlan(sweep, tmp_path, well)
    trial = next(one for one in plan.evaluations if "emulators" in {stage.kind for stage in one.needs})
    for stage in (trial.steps[0].stage, *trial.needs):
        stage.folder.mkdir(parents=True)
        EventLog(stage.folder).metrics(10, {PER_STEP: 2.0 if stage.kind == "emulators" else 1.0})
        stage.commit(seconds_per_state=0.5)
    key = {"model": "diffusion", "guidance": "", "space": "latent", "compression": 4.0, "solver_steps": 8}
    monkeypatch.setattr(sweep_report, "read_subject", lambda path: key | {"members": 4})
    timing = sweep_report._timing(trial)
    assert (timing.seconds, timing.ensemble, timing.training) == (0.5, 2.0, 20.0)
    latent = any(stage.kind == "autoencoders" for stage in trial.needs)
    assert timing.autoencoder == (10.0 if latent else None)


def test_a_description_says_how_long_the_simulator_takes(sweep, tmp_path, well):
    plan = SweepPlan(sweep, tmp_path, well)
    assert sweep_report._simulator(plan) == []
    plan.system = dataclasses.replace(plan.system, seconds_per_state=0.5)
    (timing,) = sweep_report._simulator(plan)
    assert (timing.model, timing.seconds) == ("simulator", 0.5 * plan.config.evaluation.stride)


@pytest.mark.parametrize(("skipped", "text"), [(0.0, "none"), (3.0, "autoencoder-f8c16 3 of 40")])
def test_skipped_steps_are_reported(sweep, tmp_path, well, skipped, text):
    training = sweep.autoencoder_training.replace(steps=40)
    plan = SweepPlan(sweep.replace(autoencoder_training=training), tmp_path, well)
    for stage in (step.stage for trial in plan.trials for step in trial.steps):
        stage.folder.mkdir(parents=True, exist_ok=True)
        stage.commit(metrics={"train/skipped": skipped * (stage.kind == "autoencoders")})
    assert sweep_report._skipped(plan) == text


def test_what_was_scored_and_what_was_left_out_are_counted(sweep, tmp_path, well):
    plan = SweepPlan(sweep.replace(evaluation=sweep.evaluation.replace(trajectories=64)), tmp_path, well)
    splits = {"train": {"shards": [{}], "skipped": {"b": "corrupt"}}, "test": {"shards": [{}, {}]}}
    for stage in (step.stage for trial in plan.trials for step in trial.steps):
        stage.folder.mkdir(parents=True, exist_ok=True)
        parts = {"evaluations": {"trajectories": ["a", "b", "c"]}, "latents": {"splits": splits}}
        write_json(stage.folder / "manifest.json", {"schema": SCHEMA_VERSION} | parts.get(stage.kind, {}))
    settings = dict(sweep_report._settings(plan))
    assert settings["Trajectories"] == "4 for training, 3 scored"
    assert settings["Files left out of latent caches"] == "latents-f8c16 1 of 4"


def test_the_last_lines_show_the_scores_of_the_evaluations(sweep, tmp_path, well):
    """Those of emulators with more context than the least, and of further metrics, are left out."""
    context = sweep.evaluation.context
    plan = SweepPlan(sweep.replace(contexts=(context + 1,)), tmp_path, well)
    for trial in plan.evaluations:
        stage = trial.steps[0].stage
        better = stage.config.context > context
        value = None if trial.steps[0].tags["model"] == "neural_solver" else 0.25 - 0.125 * better
        stage.commit(metrics={"test/vrmse/1-20": value, "test/crps/1-20": 0.0})
    output = io.StringIO()
    Progress(Console(file=output)).show(sweep_report.summarise_sweep(plan))
    shown = [line.split() for line in output.getvalue().splitlines()]
    assert shown[1] == ["1–20"]
    assert shown[-2:] == [["Persistence", "0.250"], ["Climatology", "0.250"]]
    assert [line[:2] for line in shown if line[0] == "Diffusion"] == [["Diffusion", "0.250*"]]
    assert ["Neural", "solver", "unstable"] in shown
