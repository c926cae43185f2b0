"""Running a workflow, such as a sweep, to its end: storage, data, cluster, trials, report, MLflow."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from rich.console import Console, RenderableType

from lola.core.config import flatten, option_name, require
from lola.core.errors import LolaError
from lola.data.well.datasets import Datasets
from lola.data.well.find import find_system
from lola.distributed.cluster.connection import (
    connect,
    disconnect,
    require_shared,
    stop_ray,
    stopping_ray,
)
from lola.distributed.jobs.simulate import needs_simulation, simulate
from lola.distributed.runner.tune import concurrency, describe_failures, following_stages, run_trials
from lola.distributed.trials import Trial
from lola.storage.event_log import Status
from lola.storage.progress import Progress
from lola.storage.remote import AnyPath, temporary_folder
from lola.storage.stages import Stage, resolve_storage, well_folder
from lola.storage.tracking import Tracker
from lola.storage.views import Conclusion, View
from lola.training.config import TrainingConfig
from lola.training.peak import emulates_bfloat16
from lola.training.throughput import Throughput
from lola.workflows.base_plan import BasePlan
from lola.workflows.dataset_info import DatasetInfo
from lola.workflows.kept_results import keep_results, open_results
from lola.workflows.plan import SweepPlan
from lola.workflows.resource_requests import check_resources, parts_of
from lola.workflows.sweep import SweepConfig
from lola.workflows.sweep_conclusion import conclude_sweep, summarise_sweep, sweep_views
from lola.workflows.sweep_report import report_sweep
from lola.workflows.wall_clock import Find, TimedTraining, WallClock, describe_steps, with_steps
from lola.workflows.workflow_config import WorkflowConfig

P = TypeVar("P", bound=BasePlan)


@dataclasses.dataclass(frozen=True)
class Shown(Generic[P]):
    """What is shown of a plan besides its report.

    Arguments:
        views: How its runs are best viewed.
        conclude: Returns the conclusion of its run in MLflow, given the page of the report.
        summarise: Returns what the console shows of it when it is finished.
    """

    views: Callable[[P], Sequence[View]]
    conclude: Callable[[P, AnyPath], Conclusion]
    summarise: Callable[[P], RenderableType]


def run_sweep(config: SweepConfig) -> AnyPath:
    """Run a sweep to its end, from wherever an earlier call left it; returns the page of its report.

    Raises:
        LolaError: Options, data, storage or tracking are at fault, or trials failed.
    """

    folder = open_results(config.results) if config.results else None

    def report(plan: SweepPlan) -> AnyPath:
        page = report_sweep(plan)
        if folder is not None:
            keep_results(plan, page.parent, folder)
        return page

    return run_reported(config, SweepPlan, report, Shown(sweep_views, conclude_sweep, summarise_sweep))


def run_reported(
    config: WorkflowConfig,
    kind: type[P],
    report: Callable[[P], AnyPath],
    shown: Shown[P] | None = None,
) -> AnyPath:
    """Run a plan to its end, from wherever an earlier call left it; returns the page of its report.

    Arguments:
        report: Writes the report of a plan whose trials are all finished.
        shown: What the console and MLflow show of it.

    Raises:
        LolaError: Options, data, storage or tracking are at fault, or trials failed.
    """
    progress = Progress(Console())
    with stopping_ray(progress.log):
        plan, tracker = _prepare(config, kind, progress)
        page = _complete(plan, f"{kind.title} {plan.system.name}", tracker, progress, report, shown)
    assert page is not None
    _log_missing(tracker, progress)
    return page


def run_stages(
    config: SweepConfig,
    title: str,
    choose: Callable[[SweepPlan], Iterable[Stage]],
) -> tuple[Stage, ...]:
    """Make some stages of a sweep, and what they need, from wherever an earlier call left them.

    Arguments:
        title: What is made, for MLflow; the name of the system follows.
        choose: Chooses the stages of the sweep's plan.

    Raises:
        LolaError: Options, data, storage or tracking are at fault, or trials failed.
    """
    require(config.results is None, "--results are those of a whole sweep; leave it out here")
    progress = Progress(Console())
    with stopping_ray(progress.log):
        plan, tracker = _prepare(config, SweepPlan, progress, lambda plan: plan.towards(*choose(plan)))
        _complete(plan, f"{title} {plan.system.name}", tracker, progress)
    stages = tuple(choose(plan))
    for stage in stages:
        progress.log(f"{stage.what}: {stage.folder}")
    _log_missing(tracker, progress)
    return stages


def _log_missing(tracker: Tracker, progress: Progress) -> None:
    """Log, as the last line, what MLflow lacks and which command sends it."""
    if tracker.missing:
        progress.log(tracker.missing)


def _prepare(
    config: WorkflowConfig, kind: type[P], progress: Progress, part: Callable[[P], P] = lambda plan: plan
) -> tuple[P, Tracker]:
    """Open storage and tracking, simulate missing data, and connect to a cluster that sees the storage if
    any trial is to be run."""
    with progress.reporting(lambda: f"opening storage {config.storage or ''} and MLflow"):
        storage = resolve_storage(config.storage)
        well = well_folder(storage, config.well)
        simulation = config.simulation if config.simulates else None
        expected: tuple[Trial, ...] = ()
        if simulation is not None and needs_simulation(simulation, well):
            data = DatasetInfo.of_simulation(simulation, config.include, config.exclude)
            planned = kind(config, storage, well, data)
            planned.clock = WallClock(storage, provisional=True)
            expected = part(planned).trials
        system, datasets = find_system(config.system, Datasets(well, config.include, config.exclude))
        tracker = Tracker(storage, system.name, progress.log)
    if simulation is not None:
        with progress.reporting(lambda: f"simulating {system.name}"):
            simulate(simulation, well, progress.log, lambda: check_resources(config, expected))
    doing = [f"reading the headers of the datasets in {datasets.root}"]
    with progress.reporting(lambda: doing[-1]):
        plan = with_steps(lambda: kind(config, storage, well), part, _measuring(storage, progress, doing))
    for line in describe_steps(plan):
        progress.log(line)
    if _pending(plan):
        connect(progress.log)
        with progress.reporting(lambda: f"asking the nodes whether they see {storage}"):
            require_shared(storage)
    for option in emulated_options(config):
        progress.log(f"{option} bfloat16 will be slow: this processor emulates it; float32 is faster here")
    return plan, tracker


def _measuring(storage: AnyPath, progress: Progress, doing: list[str]) -> Find:
    """Measures the throughput of trainings, and says so, also at the end of what is being done."""

    def find(timed: TimedTraining, copies: int) -> Throughput:
        model = type(timed.shape.model).__name__
        doing.append(f"timing steps of {model} for {option_name(timed.option)}.minutes")
        progress.log(doing[-1])
        return timed.measure(storage, copies)

    return find


def emulated_options(config: WorkflowConfig) -> list[str]:
    """The options that ask a processor for bfloat16, if this one emulates it."""
    stages: dict[str, Any] = {name: part for name, part in parts_of(config) if hasattr(part, "precision")}
    chosen = [name for name, value in stages.items() if value.precision == "bfloat16" and not value.gpus]
    return (
        [f"--{name.replace('_', '-')}.precision" for name in chosen] if chosen and emulates_bfloat16() else []
    )


def _complete(
    plan: P,
    title: str,
    tracker: Tracker,
    progress: Progress,
    report: Callable[[P], AnyPath] | None = None,
    shown: Shown[P] | None = None,
) -> AnyPath | None:
    """Run a plan to its end under a parent run; returns the page of its report, if it has one."""
    if _pending(plan):
        check_resources(plan.config, plan.trials)
    parameters = flatten(plan.config.replace(system=plan.system.name).to_json())
    parameters |= {
        f"{name}.steps": f"those of {part.minutes:g} minutes"
        for name, part in parts_of(plan.config)
        if isinstance(part, TrainingConfig) and part.minutes is not None
    }
    tracker.start_sweep(title, plan.fingerprint, parameters, shown.views(plan) if shown else ())
    with tracker.finish_on_error():
        try:
            failures = _make(plan, tracker, progress)
        except KeyboardInterrupt:
            disconnect()  # the processes of trials end, and release what they hold
            raise
        with progress.reporting(lambda: "writing the report"):
            page = report(plan) if report and not failures else None
            conclusion = shown.conclude(plan, page) if shown and page else None
    with progress.reporting(lambda: f"copying remaining records to MLflow at {tracker.uri}"):
        status: Status = "FAILED" if failures else "FINISHED"
        tracker.finish_sweep(page.parent if page else None, status, conclusion)
    stop_ray(progress.log)  # before the last lines, after which the program ends at once
    if page and shown:
        progress.show(shown.summarise(plan))
    if page:
        progress.log(f"report: {page}")
    for line in tracker.directions:
        progress.log(line)
    if failures:
        missing = f"; {tracker.missing}" if tracker.missing else ""
        raise LolaError(f"{describe_failures(failures, len(plan.trials))}{missing}")
    return page


def _make(plan: BasePlan, tracker: Tracker, progress: Progress) -> dict[str, str]:
    """Run a plan until it has no trial that is not finished, or trials failed; returns why, by name."""
    while True:
        trials = plan.trials
        stages = [step.stage for step in plan.steps]
        finished = sum(trial.finished for trial in trials), sum(stage.finished for stage in stages)
        progress.log(
            f"{len(trials)} trials of {len(stages)} stages: {finished[0]} trials and {finished[1]} stages "
            "are finished already"
        )
        failures = run_plan(plan, tracker, progress)
        if failures or all(trial.finished for trial in plan.trials):
            return failures


def _pending(plan: BasePlan) -> list[Trial]:
    """The trials of a plan that are not finished."""
    return [trial for trial in plan.trials if not trial.finished]


def run_plan(plan: BasePlan, tracker: Tracker, progress: Progress) -> dict[str, str]:
    """Run every trial of a plan that is not finished; returns why trials failed, by name.

    Arguments:
        tracker: Copies the stages' records to MLflow meanwhile.
    """
    pending = _pending(plan)
    limit = plan.config.concurrency

    def at_once() -> int:
        return limit or (concurrency(pending) if pending else 1)

    with following_stages(plan.trials, tracker, progress, at_once):
        if not pending:
            return {}
        name = f".tune-{plan.fingerprint[:8]}"
        if isinstance(plan.root, Path):
            return run_trials(pending, plan.root / "reports" / name, limit, progress.log)
        with temporary_folder() as folder:  # its files are temporary
            return run_trials(pending, folder / name, limit, progress.log)
