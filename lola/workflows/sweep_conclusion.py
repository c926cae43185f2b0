"""What the console and MLflow show of a sweep: its best emulators, and views of its runs."""

import math
import shlex
from collections.abc import Iterator

import pandas as pd
from rich.table import Table

from lola.evaluation.evaluation_config import EvaluationConfig
from lola.evaluation.tables.best import best_of_kinds, best_table
from lola.evaluation.tables.derived import RATIO
from lola.evaluation.tables.formats import plain_markdown
from lola.evaluation.tables.lead_times import UNTRAINED, name_range
from lola.models.kinds import shown_with
from lola.storage.remote import AnyPath
from lola.storage.views import Axis, Conclusion, View
from lola.workflows.plan import SweepPlan
from lola.workflows.sweep_report import shown_arms

SUBJECT = ("system", "model", "space", "compression", "solver_steps", "training_seed")


def summarise_sweep(plan: SweepPlan) -> Table:
    """The best emulator of each kind and arm of a finished sweep, at its least context, without observations.

    Of several training seeds it shows the mean.
    """
    rows = list(_rows(plan))
    means = _means(rows)
    with shown_with(shown_arms(plan)):
        shown = best_table(means)
    if len(means) < len(rows):
        shown.title = f"{shown.title}, means over training seeds"
    return shown


def conclude_sweep(plan: SweepPlan, page: AnyPath) -> Conclusion:
    """The description and the headline figures of a finished sweep's run.

    Arguments:
        page: The page of its report.
    """
    table = summarise_sweep(plan)
    cells = pd.DataFrame({str(column.header): list(column.cells) for column in table.columns})
    rates = ", ".join(f"{plan.compression(n):g}" for n in plan.config.latent_channels)
    first = plan.emulator(plan.emulators[0]).name
    sync = shlex.join(["python", "experiments/sync_mlflow.py", "--storage", str(plan.root)])
    text = f"""A sweep of {plan.system.name}: what compression ({rates}) costs.

{table.title}:

{plain_markdown(cells)}
- The report is the artifact `report/{page.name}`, and `{page}`.
- The same command resumes this sweep, and reuses what is finished where options are changed.
- `lola.load_emulator("{first}")` loads an emulator; the child runs have the names of all.
- `{sync}` sends what is missing here.
"""
    return Conclusion(text, dict(_headline(plan)))


def _headline(plan: SweepPlan) -> Iterator[tuple[str, float]]:
    """The least VRMSE of each kind, and what it compares with, by range: `best/vrmse/01-20/diffusion`."""
    means = _means(list(_rows(plan)))
    ranges = _sortable(list(dict.fromkeys(means["range"])))
    with shown_with(shown_arms(plan)):
        for kind, space, best in best_of_kinds(means):
            for name, value in best["value"].items():
                if math.isfinite(value):  # else it is unstable
                    yield f"best/vrmse/{ranges[name]}/{kind}{'_pixel' if space == 'pixel' else ''}", value
    for row in means[means["model"].isin(UNTRAINED)].itertuples():
        if math.isfinite(row.value):
            yield f"best/vrmse/{ranges[row.range]}/{row.model}", row.value


def _sortable(names: list[str]) -> dict[str, str]:
    """Names of ranges, such as `1-20`, with digits so many that they sort by lead time."""
    digits = max(len(part) for name in names for part in name.split("-") if part.isdigit())
    return {name: "-".join(part.zfill(digits) for part in name.split("-")) for name in names}


def _means(rows: list[dict]) -> pd.DataFrame:
    """The means over training seeds."""
    table = pd.DataFrame(rows)
    return table.groupby([*table.columns.drop("value")], sort=False, as_index=False)["value"].mean()


def _rows(plan: SweepPlan) -> Iterator[dict]:
    """VRMSE by range of every evaluation at its least context, without observations."""
    for trial in plan.evaluations:
        (step,) = trial.steps
        config, tags = step.stage.config, step.tags
        assert isinstance(config, EvaluationConfig)
        if config.guided or config.context > min((plan.config.evaluation.context, *plan.config.contexts)):
            continue
        key = {name: tags[name] for name in ("model", "space", "solver_steps")}
        key["compression"] = float(tags["compression"])
        for name, value in step.stage.manifest()["metrics"].items():
            if name.startswith(f"{config.split}/vrmse/"):
                value = math.inf if value is None else value  # a rollout that did not stay finite
                yield {**key, "range": name.rsplit("/", 1)[1], "value": value}


def sweep_views(plan: SweepPlan) -> list[View]:
    """Views of a sweep's runs, the first of which is what a person looks for."""
    split = plan.config.evaluation.split
    ranges = [name_range(one) for one in plan.system.ranges]
    scores = [f"{split}/{metric}/{name}" for metric in ("vrmse", "crps_relative", RATIO) for name in ranges]
    errors = scores[: len(ranges)]
    seconds: Axis = ("metrics", f"{split}/ensemble_seconds_per_state")
    columns = (*_axes("params", *SUBJECT), *_axes("metrics", *scores), seconds)
    evaluated = "tags.`lola.stage` = 'evaluation'"

    def against(name: str, across: Axis) -> View:
        points = tuple((across, ("metrics", error)) for error in errors)
        return View(f"accuracy against {name}", evaluated, errors[0], columns, points)

    curves = ("train/loss", "valid/loss", "valid/loss_ema")
    return [
        against("compression", ("params", "compression")),
        against("cost", seconds),
        View(
            name="training curves",
            condition="metrics.`train/samples` > 0",
            order="valid/loss",
            columns=(
                *_axes("params", *SUBJECT[:4], "training.seed"),
                *_axes("metrics", *curves, "train/seconds_per_step"),
            ),
            curves=curves,
        ),
    ]


def _axes(kind: str, *names: str) -> tuple[Axis, ...]:
    return tuple((kind, name) for name in names)
