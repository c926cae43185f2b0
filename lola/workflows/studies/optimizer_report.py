"""The report of a study of optimisers, made of its runs' records."""

import math
from typing import Any

import pandas as pd

from lola.core.config import fingerprint
from lola.evaluation.page.page import Page
from lola.evaluation.studies.optimizer_page import findings, name_arm, sections
from lola.storage.event_log import read_events
from lola.storage.remote import AnyPath
from lola.workflows.report_stage import commit_report, page_path, report_stage
from lola.workflows.studies.optimizer_plan import OptimizerPlan


def report_optimizers(plan: OptimizerPlan) -> AnyPath:
    """Write the report of a study whose trials are all finished, unless it exists; returns the page."""
    stages = [run.trial.steps[0].stage for run in plan.runs]
    inputs = {"autoencoders": fingerprint([stage.fingerprint for stage in stages])}
    stage = report_stage(plan.root, plan.system.name, "optimizers", inputs)
    if stage.finished:
        return page_path(stage)
    curves = study_curves(plan)
    page = Page(
        title="What optimisers make of an autoencoder",
        system=plan.system,
        findings=list(findings(curves)),
        sections=sections(curves),
        settings=_settings(plan),
        limits=_limits(plan),
    )
    return commit_report(stage, page, {"curves": curves}, study=plan.fingerprint)


def study_curves(plan: OptimizerPlan) -> pd.DataFrame:
    """The curves of all runs, from stages' records (columns as in `evaluation/studies/optimizer_page.py`)."""
    parts = []
    for run in plan.runs:
        key: dict[str, Any] = {
            "arm": name_arm(run.arm.optimizer.name, run.arm.identity_init),
            "optimizer": run.arm.optimizer.name,
            "identity_init": run.arm.identity_init,
            "learning_rate": run.learning_rate,
            "seed": run.seed,
        }
        stage = run.trial.steps[0].stage
        curve = read_curve(stage.folder)
        if "diverged" in stage.manifest():  # ended early: its last loss counts as infinite
            last = {"step": plan.config.training.steps, "seconds": math.nan, "train_loss": math.nan}
            curve = pd.concat([curve, pd.DataFrame([last | {"valid_loss": math.inf}])], ignore_index=True)
        parts.append(curve.assign(**key))
    return pd.concat(parts, ignore_index=True)


def read_curve(folder: AnyPath) -> pd.DataFrame:
    """Losses and seconds of training by step, from a stage's record; of steps done twice the last counts."""
    values = {}
    for _, event in read_events(folder):
        if event["kind"] == "metrics" and "valid/loss" in event["values"]:
            values[event["step"]] = event["values"]
    steps = sorted(values)
    rows, seconds = [], 0.0
    for before, step in zip([0, *steps], steps, strict=False):
        seconds += values[step]["train/seconds_per_step"] * (step - before)
        train_loss = values[step].get("train/loss", math.nan)  # none where all steps since were skipped
        losses = {"train_loss": train_loss, "valid_loss": values[step]["valid/loss"]}
        rows.append({"step": step, "seconds": seconds, **losses})
    return pd.DataFrame(rows)


def _settings(plan: OptimizerPlan) -> list[tuple[str, str]]:
    config, training = plan.config, plan.config.training
    return [
        ("System", f"{plan.system.name}: {', '.join(plan.system.channels)}"),
        ("Grid", " x ".join(map(str, plan.splits["train"].grid))),
        ("Trajectories", f"{len(plan.splits['train'].trajectories)} for training"),
        ("Autoencoder", f"channels {config.autoencoder.channels}, loss {config.autoencoder.loss}"),
        ("Training", f"{training.steps} steps of {training.batch_size} states, cosine to 0"),
        ("Warm-up", f"{training.warmup} steps"),
        ("Validation", f"{training.valid_samples} states every {training.report_every} steps"),
        ("Seeds", ", ".join(map(str, config.seeds))),
        ("Study", plan.fingerprint[:8]),
    ]


def _limits(plan: OptimizerPlan) -> list[str]:
    steps = plan.config.training.steps
    rates = (
        "The rate of each optimiser was chosen on the validation set that it is shown on, out of a grid; "
        "other options, such as the momenta, were not."
        if any(len(arm.learning_rates) > 1 for arm in plan.config.arms)
        else "Each optimiser has one rate, which was given; another may suit it better, with or without "
        "identity initialisation."
    )
    return [
        f"{steps:,} steps, where the paper took 262,144: an order of optimisers early in training need not "
        "be that at its end. The learning rate falls to zero within these steps.",
        rates,
        f"{len(plan.config.seeds)} seeds: their range is no confidence interval.",
        "Seconds depend on the machine: a small network on a CPU spends another share of a step in the "
        "optimiser than a large one on a GPU.",
    ]
