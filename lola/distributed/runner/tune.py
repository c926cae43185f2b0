"""Running a plan, such as a sweep: a Ray Tune experiment over the trials that are not finished.

A trial takes no CPU itself: what it starts does. It is a loop over the stages that it makes, each under its
lease, so that two sweeps that share a stage make it once. A trial that fails stops no other one but those
that need what it makes.
"""

import contextlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import ray
from ray import tune
from ray.exceptions import OutOfMemoryError

from lola.core.errors import LolaError
from lola.core.waiting import Log
from lola.distributed.cluster.causes import failure_reason
from lola.distributed.cluster.connection import HEAD
from lola.distributed.cluster.resources import cluster_resources, count_on_gpus
from lola.distributed.runner.queue import TrialQueue
from lola.distributed.runner.telemetry import LiveMetricsSink
from lola.distributed.trials import Trial, complete_event_log, run_trial
from lola.storage.follow import LogReader, poll_in_threads
from lola.storage.progress import Progress
from lola.storage.tracking import Tracker

INPUT_MISSING = "an input is missing"
MAX_STARTS = 4  # times that trials are started, if nodes run out of memory


@contextlib.contextmanager
def following_stages(
    trials: Sequence[Trial], tracker: Tracker, progress: Progress, slots: Callable[[], int] = lambda: 1
) -> Iterator[None]:
    """Copy the logs of stages to MLflow, show them on the console and emit live metrics meanwhile."""
    steps = [step for trial in trials for step in trial.steps]
    for step in steps:
        complete_event_log(step)
        tracker.follow(step.stage.folder, step.stage.fingerprint)
        progress.follow(step.stage.folder, step.title, step.total)
    folders = [step.stage.folder for step in steps]
    live_metrics = LiveMetricsSink(trials, tracker.sweep, slots)
    sinks = (progress, live_metrics)
    followers = [*(LogReader(sink, folders) for sink in sinks), tracker.follower]
    with poll_in_threads(followers, progress.log), progress.reporting(live_metrics.summary):
        yield


def run_trials(
    trials: Sequence[Trial], folder: Path, limit: int = 0, log: Log = lambda _: None
) -> dict[str, str]:
    """Run trials, as many at once as fit the cluster; returns why trials failed, by name.

    Arguments:
        folder: Where Ray Tune keeps its files meanwhile.
        limit: Maximum number of concurrent trials; 0 is no limit.

    Raises:
        LolaError: Nodes ran out of memory again and again.
    """
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # an interrupt ends the program; stages are resumable
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # stages have records; these grow with every trial
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = "16"  # processes of trials that start at once; else one
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = "1e9"  # nothing reads the experiment's snapshots
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # failures are reported once, at the end
    for _ in range(MAX_STARTS):
        try:
            reasons = _fit([trial for trial in trials if not trial.finished], folder, limit, log)
        except OutOfMemoryError:
            continue
        return {
            trial.name: _reason(trial) or (reasons[0] if reasons else "its process died")
            for trial in trials
            if not trial.finished
        }
    raise LolaError(
        f"trials were started {MAX_STARTS} times, and each time a node ran out of memory and killed one; run "
        "again with fewer at once (--concurrency): what is finished is kept"
    )


def _fit(trials: Sequence[Trial], folder: Path, limit: int, log: Log) -> list[str]:
    """Run trials as one experiment of Ray Tune; returns why trials failed.

    Raises:
        OutOfMemoryError: A node killed the process of a trial, which ends the experiment.
    """
    # In a list: a bare reference would be resolved again for every trial
    trials_ref = [ray.put({trial.name: trial for trial in trials})]
    shutil.rmtree(folder, ignore_errors=True)
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(run_trial, trials_ref=trials_ref), {"CPU": 0, HEAD: 0.001}),
        tune_config=tune.TuneConfig(
            search_alg=TrialQueue(trials, cluster_resources, limit, log),
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
    return [failure_reason(error) for error in results.errors]


def concurrency(trials: Sequence[Trial]) -> int:
    """How many of these trials, if all were as large as the largest, the cluster can run at once."""
    cpus = max((trial.cpus for trial in trials), default=1)
    accelerators = max((trial.gpus for trial in trials), default=0)
    cluster = cluster_resources()
    fit = [int(cluster.cpus // cpus)] if cpus else []
    fit += [count_on_gpus(cluster.gpus, accelerators)] if accelerators else []
    return max(1, min(fit, default=1))


def _reason(trial: Trial) -> str:
    """The last line of a failed trial's error, or what kept it from starting."""
    if not trial.ready:
        return INPUT_MISSING
    for step in trial.steps:
        path = step.stage.folder / "error.txt"
        if not step.stage.finished and path.exists():
            last = path.read_text("utf-8", "replace").strip().splitlines()[-1]
            return last.removeprefix(f"{LolaError.__module__}.")
    return ""


def describe_failures(failures: Mapping[str, str], trials: int) -> str:
    """One line of what failed and why, and of the trials that were not run since they need what that makes.

    Arguments:
        failures: Reasons by the names of trials.
    """
    waiting = [name for name, reason in failures.items() if reason == INPUT_MISSING]
    own = [f"{name} ({reason})" for name, reason in failures.items() if reason != INPUT_MISSING]
    failed = f"{len(own)} of {trials} trials failed: {'; '.join(own)}"
    if not waiting:
        return failed
    return f"{failed}; {len(waiting)} that need what is missing were not run: {', '.join(waiting)}"
