import functools
import math

import pytest

from lola.core.config import Config
from lola.distributed.runner.telemetry import LiveMetricsSink, RayMetrics
from lola.distributed.trials import Step, Trial
from lola.storage.event_log import EventLog
from lola.storage.follow import LogReader
from lola.storage.live_metrics import METRICS
from lola.storage.stages import Stage


def trial(root, name, kind="emulators", total=100, needs=()):
    stage = Stage(root=root, kind=kind, system="euler", what=name, config=Config(), inputs={"name": name})
    tags = {"stage": kind.removesuffix("s"), "model": "diffusion"}
    return Trial(
        name, (Step(stage, stage.commit, tags, total),), tuple(each.steps[0].stage for each in needs)
    )


class Emitted:
    """What was emitted: the last value of gauges, the sums of counters."""

    def __init__(self):
        self.values = {}

    def __call__(self, name, value, labels):
        assert set(labels) == set(METRICS[name].labels)
        assert math.isfinite(value)
        key = (name, labels.get("run", labels.get("state", "")))
        before = self.values.get(key, 0.0) if METRICS[name].kind == "counter" else 0.0
        assert METRICS[name].kind != "counter" or value > 0
        self.values[key] = before + value

    def of(self, name, key=""):
        return self.values.get((name, key))


@pytest.fixture
def clock(monkeypatch):
    """The time in records."""
    now = [1000.0]
    monkeypatch.setattr("time.time", lambda: now[0])
    return now


def event_log_of(trial):
    return EventLog(trial.steps[0].stage.folder)


def following(trials, *arguments, **options):
    """Reads the logs of trials for live metrics."""
    telemetry = LiveMetricsSink(trials, *arguments, **options)
    return LogReader(telemetry, telemetry.stages)


def test_a_training_is_followed_from_start_to_end(tmp_path, clock):
    one = trial(tmp_path, "diffusion-f8c16")
    run, emitted = one.steps[0].stage.name, Emitted()
    telemetry = following([one], "s" * 64, emit=emitted)
    telemetry.poll()
    assert emitted.of("lola_sweep_trials", "waiting") == 1
    assert emitted.of("lola_sweep_remaining_seconds") is None  # not known yet
    event_log = event_log_of(one)
    event_log.status("RUNNING")
    clock[0] += 100
    event_log.metrics(
        25,
        {
            "train/loss": 0.5,
            "train/gradient_norm": 2.0,
            "train/samples": 400.0,
            "train/skipped": 0.0,
            "train/data_wait": 0.125,
        },
    )
    telemetry.poll()
    assert emitted.of("lola_stage_running", run) == 1
    assert emitted.of("lola_train_loss", run) == 0.5
    assert emitted.of("lola_train_data_wait_ratio", run) == 0.125
    assert emitted.of("lola_train_nonfinite", run) == 0
    assert emitted.of("lola_stage_progress_ratio", run) == 0.25
    assert emitted.of("lola_stage_reported_timestamp_seconds", run) == 1100
    assert emitted.of("lola_sweep_remaining_seconds") == pytest.approx(300)
    clock[0] += 100
    event_log.metrics(50, {"train/samples": 800.0, "train/skipped": 3.0})  # no step since was applied
    telemetry.poll()
    assert emitted.of("lola_train_nonfinite", run) == 1
    assert emitted.of("lola_train_loss", run) == 0.5  # the last that was finite
    event_log.metrics(75, {"train/loss": 0.25, "train/samples": 800.0, "train/skipped": 3.0})
    telemetry.poll()
    assert emitted.of("lola_train_nonfinite", run) == 0
    event_log.metrics(75, {"train/loss": math.nan, "train/samples": 800.0, "train/skipped": 3.0})
    telemetry.poll()
    assert emitted.of("lola_train_nonfinite", run) == 1
    assert emitted.of("lola_train_loss", run) == 0.25
    assert emitted.of("lola_train_samples_total", run) == 800
    assert emitted.of("lola_train_skipped_steps_total", run) == 3
    one.steps[0].run()
    clock[0] += 50
    event_log.status("FINISHED")
    telemetry.poll()
    assert emitted.of("lola_stage_running", run) == 0
    assert emitted.of("lola_stage_seconds") == 250
    assert emitted.of("lola_sweep_trials", "finished") == 1
    assert emitted.of("lola_sweep_trials", "running") == 0
    assert emitted.of("lola_sweep_remaining_seconds") == 0


def test_gauges_of_stages_that_run_are_set_again_at_every_look(tmp_path):
    quiet, ended = trial(tmp_path, "quiet"), trial(tmp_path, "ended")
    emitted = Emitted()
    telemetry = following([quiet, ended], "s", emit=emitted)
    for each in (quiet, ended):
        event_log_of(each).status("RUNNING")
        event_log_of(each).metrics(1, {"train/loss": 1.0, "train/samples": 4.0})
    event_log_of(ended).status("FINISHED")
    telemetry.poll()
    before = dict(emitted.values)
    emitted.values.clear()
    telemetry.poll()
    runs = {run for name, run in emitted.values if name.startswith(("lola_train", "lola_stage"))}
    assert runs == {quiet.steps[0].stage.name}
    for (name, run), value in emitted.values.items():
        assert before[name, run] == value or not name.startswith("lola_train")
    assert not any(METRICS[name].kind != "gauge" for name, _ in emitted.values)


def test_time_to_finish_follows_slots_and_needs(tmp_path, clock):
    first = trial(tmp_path, "first")
    trials = [first, *(trial(tmp_path, f"after{i}", needs=(first,)) for i in range(3))]
    emitted = {slots: Emitted() for slots in (1, 2, 9)}
    followers = [
        following(trials, "s", functools.partial(int, slots), emit) for slots, emit in emitted.items()
    ]
    event_log_of(first).status("RUNNING")
    clock[0] += 50
    event_log_of(first).metrics(50, {"train/loss": 1.0})
    for follower in followers:
        follower.poll()
    left = {slots: emit.of("lola_sweep_remaining_seconds") for slots, emit in emitted.items()}
    assert left == pytest.approx({1: 350, 2: 250, 9: 150})


def test_a_resumed_stage_is_not_thought_faster_than_it_is(tmp_path, clock):
    one = trial(tmp_path, "one")
    event_log_of(one).metrics(50, {"train/loss": 1.0})  # by an earlier call
    emitted = Emitted()
    telemetry = following([one], "s", emit=emitted)
    event_log_of(one).status("RUNNING")
    for step in (60, 80):
        clock[0] += 10
        event_log_of(one).metrics(step, {"train/loss": 1.0})
    telemetry.poll()
    assert emitted.of("lola_sweep_remaining_seconds") == pytest.approx(10)  # 20 steps in 10 s


def test_states_shards_and_trajectories_left_are_emitted(tmp_path):
    cache, scored = (trial(tmp_path, kind, kind, total=8) for kind in ("latents", "evaluations"))
    broken, done = trial(tmp_path, "broken"), trial(tmp_path, "done")
    done.steps[0].run()
    emitted = Emitted()
    telemetry = following([cache, scored, broken, done], "s", emit=emitted)
    event_log_of(cache).status("RUNNING")
    event_log_of(cache).metrics(3, {"progress/shards": 3, "encode/states_per_second": 300.0})
    event_log_of(scored).status("RUNNING")
    event_log_of(scored).metrics(7, {"progress/trajectories": 7})
    event_log_of(scored).metrics(0, {"test/seconds_per_state": 1.0})
    event_log_of(broken).status("RUNNING")
    event_log_of(broken).status("FAILED", "no luck")
    telemetry.poll()
    assert emitted.of("lola_encode_shards_left", cache.steps[0].stage.name) == 5
    assert emitted.of("lola_encode_states_per_second", cache.steps[0].stage.name) == 300
    assert emitted.of("lola_evaluate_trajectories_left", scored.steps[0].stage.name) == 1
    states = {state: emitted.of("lola_sweep_trials", state) for state in ("waiting", "running", "failed")}
    assert states == {"waiting": 0, "running": 2, "failed": 1}
    assert emitted.of("lola_sweep_trials", "finished") == 1
    assert 0 < emitted.of("lola_storage_free_bytes") < emitted.of("lola_storage_size_bytes")


def test_without_a_cluster_nothing_is_emitted(monkeypatch):
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    emit = RayMetrics()
    emit("lola_train_loss", 1.0, {})
    assert not emit.metrics


def test_the_summary_counts_trials_by_their_state(tmp_path):
    one, two = trial(tmp_path, "diffusion-f8c16"), trial(tmp_path, "neural_solver-f8c16")
    telemetry = LiveMetricsSink([one, two], "s" * 64, emit=Emitted())
    follower = LogReader(telemetry, telemetry.stages)
    assert telemetry.summary() == "2 trials: 2 waiting"
    event_log_of(one).status("RUNNING")
    event_log_of(two).status("RUNNING")
    event_log_of(two).status("FINISHED")
    follower.poll()
    assert telemetry.summary() == "2 trials: 1 running, 1 finished"
