"""Running a workflow, such as a sweep, to its end: storage, data, cluster, trials, report, MLflow."""

import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from rich.console import Console, RenderableType

from lola.core.config import flat
from lola.core.errors import LolaError
from lola.distributed.cluster.connection import connect, disconnect, require_shared
from lola.distributed.jobs.simulate import needs_simulation, simulate
from lola.distributed.runner.tune import concurrency, describe_failures, following_stages, run_trials
from lola.distributed.trials import Trial
from lola.simulate.simulators import Simulation
from lola.storage.progress import Progress
from lola.storage.remote import AnyPath, is_url, temporary_folder
from lola.storage.stages import Location, Stage, resolve_storage, well_folder
from lola.storage.tracking import Tracker
from lola.training.peak import emulates_bfloat16
from lola.workflows.fitting import Data
from lola.workflows.plan import Plan
from lola.workflows.resource_requests import refuse_parts, refuse_stages
from lola.workflows.sweep import SweepConfig
from lola.workflows.sweep_report import report_sweep, summarise_sweep


class Settings(Protocol):
    """What the configuration of every plan says."""

    @property
    def system(self) -> str:
        """The physical system."""

    @property
    def simulation(self) -> Simulation | None:
        """What to simulate where the datasets are missing."""

    @property
    def well(self) -> str:
        """The folder of Well datasets."""

    @property
    def storage(self) -> str | None:
        """The storage root."""

    @property
    def concurrency(self) -> int:
        """The most trials at once; 0 is as many as the cluster has room for, one more where it may grow."""

    def what(self) -> dict[str, Any]:
        """The fingerprinted fields."""

    def fit(self, data: Data) -> None:
        """Raise `ConfigError` unless the options fit the data."""


class AnyPlan(Protocol):
    """A plan: trials, of which each needs only stages of trials before it.

    What trials find may call for more: a plan is run until it has no trial that is not finished.
    """

    @property
    def config(self) -> Settings:
        """What is planned."""

    @property
    def root(self) -> AnyPath:
        """The storage root."""

    @property
    def fingerprint(self) -> str:
        """The plan's own fingerprint."""

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All trials."""


P = TypeVar("P", bound=AnyPlan)


def run_sweep(config: SweepConfig) -> AnyPath:
    """Run a sweep to its end, from wherever an earlier call left it; returns the report.

    Raises:
        LolaError: Options, data, storage or tracking are at fault, or trials failed.
    """
    build = functools.partial(Plan, config)
    return run_reported(config, f"sweep {config.system}", build, report_sweep, summarise_sweep)


def run_reported(
    config: Settings,
    title: str,
    build: Callable[[AnyPath, Location], P],
    report: Callable[[P], AnyPath],
    summarise: Callable[[P], RenderableType] | None = None,
) -> AnyPath:
    """Run a plan to its end, from wherever an earlier call left it; returns its report.

    Arguments:
        config: Where data and results are.
        title: A name for people.
        build: Makes the plan of the storage root and the folder of Well datasets.
        report: Writes the report of a plan whose trials are all finished.
        summarise: Returns what the console shows of it.

    Raises:
        LolaError: Options, data, storage or tracking are at fault, or trials failed.
    """
    plan, tracker, progress = _prepare(config, build)
    page = _complete(plan, title, tracker, progress, report, summarise)
    assert page is not None
    _log_missing(tracker, progress)
    return page


def run_stages(
    config: SweepConfig,
    title: str,
    choose: Callable[[Plan], Iterable[Stage]],
    parts: Sequence[str] = (),
) -> tuple[Stage, ...]:
    """Make some stages of a sweep, and what they need, from wherever an earlier call left them.

    Arguments:
        config: The sweep that they belong to.
        title: A name for people.
        choose: Tells the stages of the sweep's plan.
        parts: The parts of the configuration that they follow from; all if none is named.

    Raises:
        LolaError: Options, data, storage or tracking are at fault, or trials failed.
    """
    plan, tracker, progress = _prepare(config, functools.partial(Plan, config), parts)
    stages = tuple(choose(plan))
    _complete(plan.towards(*stages), title, tracker, progress)
    for stage in stages:
        progress.log(f"{stage.what}: {stage.folder}")
    _log_missing(tracker, progress)
    return stages


def _log_missing(tracker: Tracker, progress: Progress) -> None:
    """Say, as the last line, what MLflow lacks and which command sends it."""
    if tracker.missing:
        progress.log(tracker.missing)


def _prepare(
    config: Settings, build: Callable[[AnyPath, Location], P], parts: Sequence[str] = ()
) -> tuple[P, Tracker, Progress]:
    """Open storage and tracking, see to the data, and connect to a cluster that sees the storage."""
    progress = Progress(Console())
    with progress.reporting(lambda: f"opening storage {config.storage or ''} and MLflow"):
        storage = resolve_storage(config.storage)
        well = well_folder(storage, config.well)
        simulation = None if is_url(config.well) else config.simulation
        if simulation is not None and needs_simulation(simulation, well):
            config.fit(Data.of_simulation(simulation))
        tracker = Tracker(storage, config.system, progress.log)
    if simulation is not None:
        simulate(simulation, well, progress.log, functools.partial(refuse_parts, config, parts))
    with progress.reporting(lambda: f"reading the headers of the datasets in {well}"):
        plan = build(storage, well)
    connect(progress.log)
    with progress.reporting(lambda: f"asking the nodes whether they see {storage}"):
        require_shared(storage)
    for option in emulated_options(config):
        progress.log(f"{option} bfloat16 will be slow: this processor emulates it; float32 is faster here")
    return plan, tracker, progress


def emulated_options(config: Settings) -> list[str]:
    """The options that ask a processor for bfloat16, if this one emulates it."""
    stages = {name: value for name, value in vars(config).items() if hasattr(value, "precision")}
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
    summarise: Callable[[P], RenderableType] | None = None,
) -> AnyPath | None:
    """Run a plan to its end under a parent run; returns the page of its report, if it has one."""
    refuse_stages(plan.config, plan.trials)
    tracker.start_sweep(title, plan.fingerprint, flat(plan.config.what()))
    with tracker.finish_on_error():
        try:
            failures = _make(plan, tracker, progress)
        except KeyboardInterrupt:
            disconnect()  # the processes of trials end, and release what they hold
            raise
        with progress.reporting(lambda: "writing the report"):
            page = report(plan) if report and not failures else None
    with progress.reporting(lambda: f"copying what is left to MLflow at {tracker.uri}"):
        tracker.finish_sweep(page.parent if page else None, "FAILED" if failures else "FINISHED")
    if page and summarise:
        progress.show(summarise(plan))
    if page:
        progress.log(f"report: {page}")
    progress.log(f"runs: {tracker.command}")
    if failures:
        missing = f"; {tracker.missing}" if tracker.missing else ""
        raise LolaError(f"{describe_failures(failures, len(plan.trials))}{missing}")
    return page


def _make(plan: AnyPlan, tracker: Tracker, progress: Progress) -> dict[str, str]:
    """Run a plan until it has no trial that is not finished, or trials failed; returns why, by name."""
    while True:
        trials = plan.trials
        stages = [step.stage for trial in trials for step in trial.steps]
        finished = sum(trial.finished for trial in trials), sum(stage.finished for stage in stages)
        progress.log(
            f"{len(trials)} trials of {len(stages)} stages: {finished[0]} trials and {finished[1]} stages "
            "are finished already"
        )
        failures = run_plan(plan, tracker, progress)
        if failures or all(trial.finished for trial in plan.trials):
            return failures


def run_plan(plan: AnyPlan, tracker: Tracker, progress: Progress) -> dict[str, str]:
    """Run every trial of a plan that is not finished; returns why trials failed, by name.

    Arguments:
        plan: What to run.
        tracker: Copies the stages' records to MLflow meanwhile.
        progress: Shows them on the console.
    """
    pending = [trial for trial in plan.trials if not trial.finished]
    limit = plan.config.concurrency
    with following_stages(plan.trials, tracker, progress, lambda: limit or concurrency(pending)):
        if not pending:
            return {}
        name = f".tune-{plan.fingerprint[:8]}"
        if isinstance(plan.root, Path):
            return run_trials(pending, plan.root / "reports" / name, limit, progress.log)
        with temporary_folder() as folder:  # nothing of it is needed again
            return run_trials(pending, folder / name, limit, progress.log)
