"""Running a plan, such as a sweep: a Ray Tune experiment over the trials that are not finished.

A trial takes no CPU itself: what it starts does. It is a loop over the stages that it makes, each under its
lease, so that two sweeps that share a stage make it once. A trial that fails stops no other one but those
that need what it makes.
"""

import contextlib
import functools
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import ray
from ray import tune
from ray.exceptions import OutOfMemoryError
from rich.console import Console

from lola.config import flat
from lola.distributed.cluster import HEAD, connect, require_shared, room
from lola.distributed.demands import refuse_parts, refuse_stages
from lola.distributed.fitting import Data
from lola.distributed.plan import Plan
from lola.distributed.queue import TrialQueue
from lola.distributed.simulate import is_needed, simulate
from lola.distributed.sweep import SweepConfig, Trial
from lola.distributed.sweep_report import report_sweep
from lola.distributed.telemetry import Telemetry
from lola.distributed.trial import complete_record, reason_of, run_trial
from lola.errors import LolaError
from lola.follow import Follower, polling
from lola.peak import emulates_bfloat16
from lola.progress import Progress
from lola.remote import AnyPath, is_url, scratch
from lola.simulate.systems import Simulation
from lola.storage import Location, Stage, resolve_storage, well_folder
from lola.tracking import Tracker
from lola.waiting import Say

INPUT_MISSING = "an input is missing"
STARTS = 4  # times that trials are started, if nodes run out of memory


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
    return run_reported(config, f"sweep {config.system}", functools.partial(Plan, config), report_sweep)


def run_reported(
    config: Settings, title: str, build: Callable[[AnyPath, Location], P], report: Callable[[P], AnyPath]
) -> AnyPath:
    """Run a plan to its end, from wherever an earlier call left it; returns its report.

    Arguments:
        config: Where data and results are.
        title: A name for people.
        build: Makes the plan of the storage root and the folder of Well datasets.
        report: Writes the report of a plan whose trials are all finished.

    Raises:
        LolaError: Options, data, storage or tracking are at fault, or trials failed.
    """
    plan, tracker, progress = _prepare(config, build)
    page = _complete(plan, title, tracker, progress, report)
    assert page is not None
    progress.say(f"report: {page}")
    _say_missing(tracker, progress)
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
        progress.say(f"{stage.what}: {stage.folder}")
    _say_missing(tracker, progress)
    return stages


def _say_missing(tracker: Tracker, progress: Progress) -> None:
    """Say, as the last line, what MLflow lacks and which command sends it."""
    if tracker.missing:
        progress.say(tracker.missing)


def _prepare(
    config: Settings, build: Callable[[AnyPath, Location], P], parts: Sequence[str] = ()
) -> tuple[P, Tracker, Progress]:
    """Open storage and tracking, see to the data, and connect to a cluster that sees the storage."""
    progress = Progress(Console())
    with progress.speaking(lambda: f"opening storage {config.storage or ''} and MLflow"):
        storage = resolve_storage(config.storage)
        well = well_folder(storage, config.well)
        simulation = None if is_url(config.well) else config.simulation
        if simulation is not None and is_needed(simulation, well):
            config.fit(Data.of_simulation(simulation))
        tracker = Tracker(storage, config.system, progress.say)
    if simulation is not None:
        simulate(simulation, well, progress.say, functools.partial(refuse_parts, config, parts))
    with progress.speaking(lambda: f"reading the headers of the datasets in {well}"):
        plan = build(storage, well)
    connect(progress.say)
    with progress.speaking(lambda: f"asking the nodes whether they see {storage}"):
        require_shared(storage)
    for option in emulated_options(config):
        progress.say(f"{option} bfloat16 will be slow: this processor emulates it; float32 is faster here")
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
) -> AnyPath | None:
    """Run a plan to its end under a parent run; returns the page of its report, if it has one."""
    refuse_stages(plan.config, plan.trials)
    tracker.start_sweep(title, plan.fingerprint, flat(plan.config.what()))
    with tracker.ending_early():
        try:
            failures = _make(plan, tracker, progress)
        except KeyboardInterrupt:
            ray.shutdown()  # the processes of trials end, and release what they hold
            raise
        with progress.speaking(lambda: "writing the report"):
            page = report(plan) if report and not failures else None
    with progress.speaking(lambda: f"copying what is left to MLflow at {tracker.uri}"):
        tracker.finish_sweep(page.parent if page else None, "FAILED" if failures else "FINISHED")
    progress.say(f"runs: {tracker.command}")
    if failures:
        missing = f"; {tracker.missing}" if tracker.missing else ""
        raise LolaError(f"{describe_failures(failures, len(plan.trials))}{missing}")
    return page


def describe_failures(failures: Mapping[str, str], trials: int) -> str:
    """One line of what failed and why, and of the trials that were not run since they need what that makes.

    Arguments:
        failures: Reasons by the names of trials.
        trials: How many there are in all.
    """
    waiting = [name for name, reason in failures.items() if reason == INPUT_MISSING]
    own = [f"{name} ({reason})" for name, reason in failures.items() if reason != INPUT_MISSING]
    failed = f"{len(own)} of {trials} trials failed: {'; '.join(own)}"
    if not waiting:
        return failed
    return f"{failed}; {len(waiting)} that need what is missing were not run: {', '.join(waiting)}"


def _make(plan: AnyPlan, tracker: Tracker, progress: Progress) -> dict[str, str]:
    """Run a plan until it has no trial that is not finished, or trials failed; returns why, by name."""
    while True:
        trials = plan.trials
        stages = [step.stage for trial in trials for step in trial.steps]
        finished = sum(trial.finished for trial in trials), sum(stage.finished for stage in stages)
        progress.say(
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
    with watching(plan.trials, tracker, progress, lambda: limit or concurrency(pending)):
        if not pending:
            return {}
        name = f".tune-{plan.fingerprint[:8]}"
        if isinstance(plan.root, Path):
            return run_trials(pending, plan.root / "reports" / name, limit, progress.say)
        with scratch() as folder:  # nothing of it is needed again
            return run_trials(pending, folder / name, limit, progress.say)


@contextlib.contextmanager
def watching(
    trials: Sequence[Trial], tracker: Tracker, progress: Progress, slots: Callable[[], int] = lambda: 1
) -> Iterator[None]:
    """Copy the logs of stages to MLflow, show them on the console and emit live metrics meanwhile."""
    steps = [step for trial in trials for step in trial.steps]
    for step in steps:
        complete_record(step)
        tracker.follow(step.stage.folder, step.stage.fingerprint)
        progress.follow(step.stage.folder, step.title, step.total)
    folders = [step.stage.folder for step in steps]
    telemetry = Telemetry(trials, tracker.sweep, slots)
    sinks = (progress, telemetry)
    followers = [*(Follower(sink, folders) for sink in sinks), tracker.follower]
    with polling(followers, progress.say), progress.speaking(telemetry.at_work):
        yield


def run_trials(
    trials: Sequence[Trial], folder: Path, limit: int = 0, say: Say = lambda _: None
) -> dict[str, str]:
    """Run trials, as many at once as there is room for; returns why trials failed, by name.

    Arguments:
        trials: What to run.
        folder: Where Ray Tune keeps its files meanwhile.
        limit: The most trials at once; 0 is no limit.
        say: Told what trials wait for.

    Raises:
        LolaError: Nodes ran out of memory again and again.
    """
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # an interrupt ends the program; stages are resumable
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # stages have records; these grow with every trial
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # failures are told once, at the end
    for _ in range(STARTS):
        try:
            reasons = _fit([trial for trial in trials if not trial.finished], folder, limit, say)
        except OutOfMemoryError:
            continue
        return {
            trial.name: _reason(trial) or (reasons[0] if reasons else "its process died")
            for trial in trials
            if not trial.finished
        }
    raise LolaError(
        f"trials were started {STARTS} times, and each time a node ran out of memory and killed one; run "
        "again with fewer at once (--concurrency): what is finished is kept"
    )


def _fit(trials: Sequence[Trial], folder: Path, limit: int, say: Say) -> list[str]:
    """Run trials as one experiment of Ray Tune; returns why trials failed.

    Raises:
        OutOfMemoryError: A node killed the process of a trial, which ends the experiment.
    """
    # In a list, since a reference by itself would be read anew for every trial
    told = [ray.put({trial.name: trial for trial in trials})]
    shutil.rmtree(folder, ignore_errors=True)
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(run_trial, told=told), {"CPU": 0, HEAD: 0.001}),
        tune_config=tune.TuneConfig(
            search_alg=TrialQueue(trials, room, limit, say),
            num_samples=len(trials),
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(name=folder.name, storage_path=str(folder.parent), verbose=0),
    )
    try:
        results = tuner.fit()
    except RuntimeError as error:
        if isinstance(error.__cause__, OutOfMemoryError):
            raise error.__cause__ from None
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return [reason_of(error) for error in results.errors]


def concurrency(trials: Sequence[Trial]) -> int:
    """How many of these trials, if all were as large as the largest, the cluster has room for."""
    cpus = max((trial.cpus for trial in trials), default=1)
    accelerators = max((trial.gpus for trial in trials), default=0)
    there = room()
    fit = [int(there.cpus // cpus)] + ([int(there.gpus // accelerators)] if accelerators else [])
    return max(1, min(fit))


def _reason(trial: Trial) -> str:
    """The last line of a failed trial's error, or what kept it from starting."""
    if not trial.ready:
        return INPUT_MISSING
    for step in trial.steps:
        path = step.stage.folder / "error.txt"
        if not step.stage.finished and path.exists():
            return path.read_text("utf-8", "replace").strip().splitlines()[-1].removeprefix("lola.errors.")
    return ""
