import dataclasses
import io
import json

import numpy as np
import pytest
from rich.console import Console

from lola.core.config import flatten
from lola.storage.event_log import EventLog
from lola.storage.progress import Progress
from lola.storage.stages import SCHEMA_VERSION, write_json
from lola.storage.views import View
from lola.workflows import sweep_conclusion, sweep_report
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
    assert list(sweep_report.timings(plan)) == ["simulator", *emulators]


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


def test_the_rows_of_an_ensemble_in_the_film_name_their_method(sweep, tmp_path, well, monkeypatch):
    """A title may have commas, as those of arms do."""
    plan = SweepPlan(sweep, tmp_path, well)
    one = next(each for each in plan.emulators if each.kind.stochastic)
    kind = dataclasses.replace(one.kind, title="Diffusion, 2.5 minutes")
    one = dataclasses.replace(one, candidate=dataclasses.replace(one.candidate, kind=kind))
    steps = max(sweep.solver_steps) if one.kind.sampler_steps else None
    folder = plan.evaluation(one, solver_steps=steps).folder
    folder.mkdir(parents=True)
    (folder / sweep_report.MOMENTS).touch()
    monkeypatch.setattr(sweep_report, "read_array", lambda path: np.zeros((2, 1, 1, 4, 4)))
    rows = list(sweep_report._rows_of_one(plan, one))
    assert [row.name.removeprefix("Diffusion, 2.5 minutes, ") for row in rows] == [
        *("mean", "member 1", "member 2", "deviation of members")
    ]
    assert {row.method for row in rows} == {"Diffusion, 2.5 minutes"}


@pytest.mark.parametrize(
    ("context", "window", "start", "expected"),
    [(1, 5, 0, [2, 3]), (2, 5, 0, [3]), (3, 5, 0, []), (1, 3, 0, [2]), (1, 2, 0, []), (1, 5, 10, [2])],
)
def test_contexts_are_advised_that_the_sweep_would_take(
    sweep, tmp_path, well, context, window, start, expected
):
    evaluation = sweep.evaluation.replace(context=context, starts=(start,))
    config = sweep.replace(evaluation=evaluation, window=window)
    plan = SweepPlan(config, tmp_path, well)
    found = sweep_report.further_contexts(plan)
    assert found == expected
    config.replace(contexts=tuple(found)).fit(plan.data)


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
    settings = dict(sweep_report.describe_settings(plan))
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
    Progress(Console(file=output)).show(sweep_conclusion.summarise_sweep(plan))
    shown = [line.split() for line in output.getvalue().splitlines()]
    assert shown[1] == ["1–20"]
    assert shown[-2:] == [["Persistence", "0.250"], ["Climatology", "0.250"]]
    assert [line[:2] for line in shown if line[0] == "Diffusion"] == [["Diffusion", "0.250*"]]
    assert ["Neural", "solver", "unstable"] in shown


def test_the_conclusion_has_the_table_and_figures_that_sort_by_lead_time(sweep, tmp_path, well):
    plan = SweepPlan(sweep, tmp_path, well)
    for trial in plan.evaluations:
        model, space = (trial.steps[0].tags[name] for name in ("model", "space"))
        value = None if model == "neural_solver" else 0.5 if space == "pixel" else 0.25
        scores = {"test/vrmse/1-9": value, "test/vrmse/10-end": value, "test/crps/1-9": 0.0}
        trial.steps[0].stage.commit(metrics=scores)
    conclusion = sweep_conclusion.conclude_sweep(plan, tmp_path / "reports" / "a" / "report.html")
    assert "| Diffusion | 0.250 (" in conclusion.text
    assert "|  | 1–9 | 10–end |" in conclusion.text
    assert "`report/report.html`" in conclusion.text
    assert f"sync_mlflow.py --storage {tmp_path}" in conclusion.text
    assert conclusion.metrics == {
        f"best/vrmse/{name}/{model}": value
        for name in ("01-09", "10-end")
        for model, value in (("diffusion", 0.25), ("persistence", 0.5), ("climatology", 0.5))
    }
    assert sorted(conclusion.metrics)[0].startswith("best/vrmse/01-09/")


def test_views_list_the_runs_that_a_sweep_makes_with_the_metrics_that_they_log(sweep, tmp_path, well):
    plan = SweepPlan(sweep, tmp_path, well)
    views = {view.name: view for view in sweep_conclusion.sweep_views(plan)}
    assert list(views) == ["accuracy against compression", "accuracy against cost", "training curves"]
    assert all(View.of(view.name, json.loads(json.dumps(view.content))) == view for view in views.values())
    evaluated = views["accuracy against compression"]
    first = "-".join(str(end) for end in plan.system.ranges[0])
    assert evaluated.order == f"test/vrmse/{first}"
    for name in ("vrmse", "crps_relative", "spread_skill_ratio"):
        assert ("metrics", f"test/{name}/{first}") in evaluated.columns
    assert ("metrics", f"test/crps/{first}") not in evaluated.columns  # a mean over fields of different units
    logged = {name for trial in plan.evaluations for name in trial.steps[0].tags}
    assert {name for kind, name in evaluated.columns if kind == "params"} <= logged
    assert len(evaluated.points) == len(plan.system.ranges)
    assert evaluated.points[0] == (("params", "compression"), ("metrics", evaluated.order))
    step = plan.trials[0].steps[0]  # a training
    logged = {*step.tags, *flatten(step.stage.config.to_json())}
    assert {name for kind, name in views["training curves"].columns if kind == "params"} <= logged
