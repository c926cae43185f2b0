"""Live metrics of a plan that runs, for Prometheus: a view of the stages' records, as MLflow's is.

The driver follows the records and emits through `ray.util.metrics`; Ray's agent on its node serves them. One
process emits all, so that a series does not change its origin with a worker that starts again. Ray forgets a
gauge that is not set again within twice its report interval (20 s): those of stages that run are set again at
every poll, whatever the stage does; the others' series end. Ray drops values that are not finite: those are
counted by `lola_train_nonfinite`.

The time to finish is that of list scheduling (`makespan`) of what is left on as many trials at once as the
cluster runs. A stage that runs goes on at its rate; one that waits takes the mean of those like it, by kind
and model, else by kind, else of all that have a rate. Before any has, none is emitted.
"""

import collections
import contextlib
import dataclasses
import math
import shutil
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.util import metrics as ray_metrics

from lola.core.makespan import Task, makespan
from lola.core.waiting import format_duration
from lola.distributed.trials import Step, Trial
from lola.storage.event_log import end_offset
from lola.storage.follow import Events
from lola.storage.live_metrics import METRICS
from lola.storage.progress import StageProgress
from lola.storage.remote import AnyPath

Emit = Callable[[str, float, Mapping[str, str]], None]
STATES = ("waiting", "running", "finished", "failed")
BOUNDARIES = [10.0, 60.0, 600.0, 3600.0, 6 * 3600.0, 86400.0, 7 * 86400.0]
SKIPPED = "lola_train_skipped_steps_total"
LEFT = {"latents": "lola_encode_shards_left", "evaluations": "lola_evaluate_trajectories_left"}


class RayMetrics:
    """Emits values as metrics of the Ray cluster that this process is connected to."""

    def __init__(self) -> None:
        self.metrics: dict[str, Any] = {}

    def __call__(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        """Set a gauge, add to a counter, or observe a value of a histogram; nothing without a cluster."""
        if not ray.is_initialized():
            return
        described = METRICS[name]
        if name not in self.metrics:
            kind = getattr(ray_metrics, described.kind.capitalize())
            more = {"boundaries": BOUNDARIES} if described.kind == "histogram" else {}
            self.metrics[name] = kind(name, described.description, tag_keys=described.labels, **more)
        record = {"gauge": "set", "counter": "inc", "histogram": "observe"}[described.kind]
        getattr(self.metrics[name], record)(value, tags=dict(labels))


@dataclasses.dataclass
class StageState:
    """What a stage's log holds after its offset `start`, and whether the last poll found more."""

    step: Step
    start: int
    finished: bool
    progress: StageProgress
    has_news: bool = False
    totals: dict[str, float] = dataclasses.field(default_factory=dict)
    gauges: dict[str, float] = dataclasses.field(default_factory=dict)


class LiveMetricsSink:
    """Emits the live metrics of trials; a sink of event logs.

    Arguments:
        trials: What runs, or has run.
        sweep: The fingerprint of what they are part of.
        slots: Returns how many trials run at once.
        emit: Takes a name, a value and labels.
    """

    name = "live metrics"

    def __init__(
        self,
        trials: Iterable[Trial],
        sweep: str,
        slots: Callable[[], int] = lambda: 1,
        emit: Emit | None = None,
    ) -> None:
        self.trials, self.slots, self.emit = tuple(trials), slots, emit or RayMetrics()
        steps = [step for trial in self.trials for step in trial.steps]
        self.labels = {"sweep": sweep[:8], "system": steps[0].stage.system if steps else ""}
        self.root: AnyPath = steps[0].stage.root if steps else Path()
        makers = {step.stage.fingerprint: trial.name for trial in self.trials for step in trial.steps}
        self.needs = {
            trial.name: frozenset(makers[s.fingerprint] for s in trial.needs if s.fingerprint in makers)
            for trial in self.trials
        }
        self.stages = {step.stage.folder: _follow(step) for step in steps}
        self.left: float | None = None  # expected seconds until all trials are done, at the last poll

    def start_offset(self, folder: AnyPath) -> int:
        """What an earlier call did is no news."""
        return self.stages[folder].start

    def consume(self, folder: AnyPath, offset: int, events: Events) -> int:
        """Emit what is new of counters, and keep the rest for the end of the poll."""
        for _, event in events:
            self._read(self.stages[folder], event)
        self.stages[folder].has_news = True
        return events[-1][0]

    def end_poll(self) -> None:
        """Emit gauges, which are forgotten if they are not set again."""
        for state in self.stages.values():
            if state.progress.status == "RUNNING" or state.has_news:
                for name, value in state.gauges.items():
                    self.emit(name, value, self._labels(state))
            state.has_news = False
        self._sweep()

    def _read(self, state: StageState, event: Mapping[str, Any]) -> None:
        if event["kind"] not in ("status", "metrics"):
            return
        state.progress.read(event)
        if event["kind"] == "metrics":
            self._report(state, event["values"])
        elif event["status"] == "FINISHED":
            state.finished = True
            self._progress(state)
            if state.progress.began:
                labels = {k: v for k, v in self._labels(state).items() if k != "run"}
                self.emit("lola_stage_seconds", event["time"] / 1000 - state.progress.began, labels)
        state.gauges["lola_stage_running"] = float(state.progress.status == "RUNNING")
        state.gauges["lola_stage_reported_timestamp_seconds"] = event["time"] / 1000

    def _report(self, state: StageState, values: Mapping[str, float]) -> None:
        before = state.totals.get(SKIPPED, 0.0)
        for name, metric in METRICS.items():
            value = values.get(metric.record, math.nan)
            if not math.isfinite(value):
                continue
            if metric.kind == "gauge":
                state.gauges[name] = value
            elif value > state.totals.get(name, 0.0):
                self.emit(name, value - state.totals.get(name, 0.0), self._labels(state))
                state.totals[name] = value
        judged = [values[name] for name in ("train/loss", "train/gradient_norm") if name in values]
        skipped = state.totals.get(SKIPPED, 0.0) > before
        if judged or skipped:
            state.gauges["lola_train_nonfinite"] = float(skipped or not all(map(math.isfinite, judged)))
        self._progress(state)

    def _progress(self, state: StageState) -> None:
        step = state.step
        state.gauges["lola_stage_progress_ratio"] = state.progress.done / step.total
        if step.stage.kind in LEFT:
            state.gauges[LEFT[step.stage.kind]] = step.total - state.progress.done

    def _labels(self, state: StageState) -> dict[str, str]:
        tags, stage = state.step.tags, state.step.stage
        return self.labels | {"stage": tags["stage"], "model": tags["model"], "run": stage.name}

    def _sweep(self) -> None:
        states = collections.Counter(self._state(trial) for trial in self.trials)
        for state in STATES:
            self.emit("lola_sweep_trials", states[state], self.labels | {"state": state})
        self.left = self._remaining()
        if self.left is not None:
            self.emit("lola_sweep_remaining_seconds", self.left, self.labels)
        if not isinstance(self.root, Path):  # a bucket has no size
            return
        with contextlib.suppress(OSError):  # a storage that is away for a moment
            disk = shutil.disk_usage(self.root)
            self.emit("lola_storage_free_bytes", disk.free, self.labels)
            self.emit("lola_storage_size_bytes", disk.total, self.labels)

    def _state(self, trial: Trial) -> str:
        stages = self._of(trial)
        if all(state.finished for state in stages):
            return "finished"
        status = {state.progress.status for state in stages if not state.finished}
        return "failed" if "FAILED" in status else "running" if "RUNNING" in status else "waiting"

    def summary(self) -> str:
        """How many trials are in which state, and about how long the rest takes."""
        states = collections.Counter(map(self._state, self.trials))
        counts = [f"{states[state]} {state}" for state in STATES if states[state]]
        about = f", about {format_duration(self.left)} left" if self.left else ""
        return f"{len(self.trials)} trials: {', '.join(counts)}{about}"

    def _of(self, trial: Trial) -> list[StageState]:
        return [self.stages[step.stage.folder] for step in trial.steps]

    def _remaining(self) -> float | None:
        """Expected seconds until all trials are done."""
        rates: dict[tuple[str, ...], list[float]] = collections.defaultdict(list)
        for state in self.stages.values():
            if state.progress.seconds is not None:
                for key in _similar(state):
                    rates[key].append(state.progress.seconds)
        means = {key: statistics.fmean(seconds) for key, seconds in rates.items()}
        unfinished = [trial for trial in self.trials if self._state(trial) != "finished"]
        if unfinished and not means:
            return None
        tasks = []
        for trial in unfinished:
            stages = [state for state in self._of(trial) if not state.finished]
            if any(state.progress.status == "FAILED" for state in stages):
                continue
            seconds = sum(_seconds_left(state, means) for state in stages)
            tasks.append(Task(trial.name, seconds, self.needs[trial.name], {"slots": 1}))
        return makespan(tasks, {"slots": self.slots()})


def _follow(step: Step) -> StageState:
    """A log from its end on."""
    offset, finished = end_offset(step.stage.folder), step.stage.finished
    progress = StageProgress(step.total, resumed=offset > 0, done=step.total if finished else 0)
    return StageState(step, offset, finished, progress)


def _seconds_left(state: StageState, means: Mapping[tuple[str, ...], float]) -> float:
    """Expected seconds until a stage is done, else from the mean seconds of similar ones."""
    progress = state.progress
    if progress.seconds_left is not None:
        return progress.seconds_left
    expected = next(means[key] for key in _similar(state) if key in means)
    return max(0.0, expected - (time.time() - progress.began if progress.status == "RUNNING" else 0.0))


def _similar(state: StageState) -> Sequence[tuple[str, ...]]:
    """Keys that a stage shares with similar ones, the most similar first."""
    tags = state.step.tags
    return (tags["stage"], tags["model"]), (tags["stage"],), ()
