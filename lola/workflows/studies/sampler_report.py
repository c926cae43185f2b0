"""The report of a study of samplers, made of its evaluations."""

from collections import Counter

import pandas as pd

from lola.evaluation.page.page import Page
from lola.evaluation.studies.sampler_choice import ratio_table
from lola.evaluation.studies.sampler_page import Study, findings, sections
from lola.evaluation.tables.derived import RATIO
from lola.evaluation.tables.lead_times import lead_time_table
from lola.evaluation.tables.stored import read_table
from lola.evaluation.trajectory import choose_parts
from lola.storage.remote import AnyPath
from lola.workflows.report_stage import commit_report, page_path, report_stage
from lola.workflows.studies.sampler_plan import SamplerPlan, TrainedModel


def report_samplers(plan: SamplerPlan) -> AnyPath:
    """Write the report of a study whose trials are all finished, unless it exists; returns the page."""
    inputs = {"study": plan.fingerprint} | plan.system.scoring
    stage = report_stage(plan.root, plan.system.name, "samplers", inputs)
    if stage.finished:
        return page_path(stage)
    study = make_study(plan)
    page = Page(
        title="Which sampler, and how many network evaluations",
        system=plan.system,
        findings=list(findings(study)),
        sections=sections(study),
        settings=_settings(plan),
        limits=_limits(plan),
    )
    data = {name: getattr(study, name) for name in ("scores", "levels", "chosen", "ratios")}
    return commit_report(stage, page, data)


def make_study(plan: SamplerPlan) -> Study:
    config = plan.config
    valid, test = plan.scores("valid"), plan.scores("test")
    fine = (config.fine.title, config.fine.steps)
    return Study(
        metric=config.metric,
        tolerance=config.tolerance,
        candidates=config.candidates(),
        fine=fine,
        models=name_models(plan.models),
        scores=pd.concat([valid, test], ignore_index=True),
        levels=_levels(plan),
        chosen=plan.chosen,
        ratios=ratio_table(test, plan.chosen, config.present.title, fine),
    )


def name_models(models: tuple[TrainedModel, ...]) -> dict[str, str]:
    """Names for people: the rates where these differ between models, else the stages' names."""
    rates = {
        model.name: "pixel space" if model.compression is None else f"rate {model.compression:.4g}×"
        for model in models
    }
    counts = Counter(rates.values())
    return {name: rate if counts[rate] == 1 else f"{rate}, {name}" for name, rate in rates.items()}


def _levels(plan: SamplerPlan) -> pd.DataFrame:
    parts = []
    for model, stage in plan.stages("test"):
        metrics = read_table(stage.folder / "metrics.parquet")
        for name in ("vrmse", "crps", RATIO):
            table = lead_time_table(metrics, name, plan.system.ranges)
            parts.append(table.assign(emulator=model.name))
    return pd.concat(parts, ignore_index=True)


def _settings(plan: SamplerPlan) -> list[tuple[str, str]]:
    config, scoring = plan.config, plan.config.evaluation
    scored = {
        split: len(choose_parts(plan.splits[split], scoring).trajectories) for split in ("valid", "test")
    }
    return [
        ("System", f"{plan.system.name}: {', '.join(plan.system.channels)}"),
        ("Grid", " x ".join(map(str, plan.splits["test"].grid))),
        ("Models", ", ".join(model.name for model in plan.models)),
        ("Trajectories", f"{scored['valid']} for the choice, {scored['test']} for the results"),
        ("Ensemble", f"{scoring.members} members"),
        ("Context", f"{scoring.context} state from state {' and '.join(map(str, scoring.starts))}"),
        ("Samplers", ", ".join(config.samplers)),
        ("Spacings", ", ".join(config.spacings)),
        ("Evaluations", ", ".join(map(str, config.steps))),
        ("In use", config.present.title),
        ("Fine reference", f"{config.fine.title}, {config.fine.steps} evaluations"),
        ("Study", plan.fingerprint[:8]),
    ]


def _limits(plan: SamplerPlan) -> list[str]:
    count = len(choose_parts(plan.splits["test"], plan.config.evaluation).trajectories)
    members = plan.config.evaluation.members
    return [
        f"{count} test trajectories: intervals of a bootstrap over so few are rather too short than too "
        "long, and describe other trajectories, not other trainings of the model."
        if count < 30
        else "Intervals describe other trajectories, not other trainings of the model.",
        "A sampler that suits a model need not suit one that was trained longer: the better a model, the "
        "more its sampler's error counts in addition to its own.",
        f"All draws of a trajectory start from the same noise, {members} members, so that their ratios vary "
        "less than their errors do.",
        "Evaluations of the network are counted, not seconds: samplers themselves take next to no time.",
    ]
