"""Whatever fails, MLflow holds everything exactly once at the end, or what is missing is reported."""

import json
import os
import shutil
import tempfile
from pathlib import Path
from unittest import mock

import hypothesis.strategies as st
from fakemlflow import FakeMlflow, Unreliable
from hypothesis import Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from lola.core.errors import TrackingError
from lola.storage import tracking
from lola.storage.event_log import EventLog, event_log_path
from lola.storage.tracking import tracker
from lola.storage.views import View

SETTINGS = settings(
    max_examples=int(os.environ.get("LOLA_EXAMPLES", "40")),
    derandomize="LOLA_EXAMPLES" not in os.environ,  # another course each time when it is asked for many
    stateful_step_count=30,
    deadline=None,
    database=None,
    phases=(Phase.generate,),  # shrinking takes minutes
)

SWEEP = "f" * 64
STAGES = ("autoencoder", "latents", "emulator")
FINGERPRINTS = {name: f"{i}" * 64 for i, name in enumerate(STAGES)}
VIEW = View("curves", "metrics.a > 0", "a", (("metrics", "a"),), curves=("a",))
stages = st.sampled_from(STAGES)


class Recorded:
    """What the log of a stage recorded, kept independently of how the library reads it."""

    def __init__(self):
        self.params, self.tags, self.status = {}, {}, "RUNNING"
        self.steps, self.sure = {}, {}  # of metrics: all ever, and those that are still in the log
        self.files, self.models, self.datasets = set(), {}, set()


class Tracking(RuleBasedStateMachine):
    """A driver, its stages, an unreliable MLflow and somebody who deletes things in it."""

    def __init__(self):
        super().__init__()
        shared = Path("/dev/shm")
        self.root = Path(tempfile.mkdtemp(dir=shared if shared.is_dir() else None))
        self.fake = FakeMlflow()
        self.client = Unreliable(self.fake)
        self.recorded = {name: Recorded() for name in STAGES}
        self.parent_status = "RUNNING"
        self.driver = None
        self.attempt = self.looks = 0
        self.patches = [
            mock.patch.dict(os.environ, {"MLFLOW_TRACKING_URI": "http://fake"}),
            mock.patch.object(tracker, "open_client", return_value=self.client),
            mock.patch.object(tracker, "git_commit", return_value="unknown"),
            mock.patch.object(tracker, "SHORTEST_PAUSE_S", 0.0),
            mock.patch.object(tracker, "LONGEST_PAUSE_S", 0.0),
            mock.patch.object(tracker, "ENDING_S", 0.0),
        ]
        for patch in self.patches:
            patch.start()

    @initialize()
    def start(self):
        while self.driver is None:
            try:
                self.driver = tracking.Tracker(self.root, "euler")
            except TrackingError:  # the user starts again
                self.client.share /= 2
        self.attempt += 1
        self.driver.start_sweep("sweep", SWEEP, {f"option{i}": i for i in range(150)}, [VIEW])
        self.parent_status = "RUNNING"
        for name in STAGES:
            self._killed(name)
            self.driver.follow(self.root / name, FINGERPRINTS[name])

    def _killed(self, name):
        """No process makes a stage: where its log says that one does, it is recorded as killed."""
        if event_log_path(self.root / name).exists() and self.recorded[name].status == "RUNNING":
            finished = (self.root / name / "manifest.json").exists()
            self.recorded[name].status = "FINISHED" if finished else "KILLED"

    def _event_log(self, name):
        """The writer of a log; a new one describes the stage, as every start does."""
        folder, recorded = self.root / name, self.recorded[name]
        fresh = not event_log_path(folder).exists()
        event_log = EventLog(folder)
        if fresh or recorded.status != "RUNNING":
            event_log.describe(
                name=name, tags={"stage": name, "try": self.attempt}, parameters={"size": 1, name: 2}
            )
            event_log.status("RUNNING")
            recorded.params |= {"size": "1", name: "2"}
            recorded.tags |= {"lola.stage": name, "lola.try": str(self.attempt)}
            recorded.status = "RUNNING"
        return event_log

    @rule(name=stages, first=st.integers(0, 40), count=st.integers(1, 12), keys=st.integers(1, 3))
    def train(self, name, first, count, keys):
        """Report metrics, from a step on that may have been reported: a resumed run repeats steps."""
        event_log, recorded = self._event_log(name), self.recorded[name]
        for step in range(first, first + count):
            values = {f"metric{key}": float(step * (key + 1)) for key in range(keys)}
            event_log.metrics(step, values)
            for key, value in values.items():
                recorded.steps.setdefault(key, {})[step] = value
        points = [(step, float(2 * step)) for step in (first, first + 100)]
        event_log.curve("metric1", points)
        recorded.steps.setdefault("metric1", {}).update(points)
        event_log.note(f"{name} from {first}")
        recorded.tags["mlflow.note.content"] = f"{name} from {first}"

    @rule(name=stages)
    def report_much(self, name):
        event_log, recorded = self._event_log(name), self.recorded[name]
        values = {f"many{key}": float(key) for key in range(1100)}
        event_log.metrics(7, values)
        for key, value in values.items():
            recorded.steps.setdefault(key, {})[7] = value

    @rule(name=stages, file=st.sampled_from(["a.png", "b.png"]))
    def draw(self, name, file):
        event_log = self._event_log(name)
        (self.root / name / file).write_text(f"{name} {file}")
        event_log.artifact(self.root / name / file)
        self.recorded[name].files.add(file)

    @rule(name=stages, digest=st.sampled_from(["c" * 64, "d" * 64]))
    def read(self, name, digest):
        self._event_log(name).dataset(name="euler", digest=digest, context="training", source="/well")
        self.recorded[name].datasets.add(("euler", digest[:16]))

    @rule(name=stages, status=st.sampled_from(["FINISHED", "FAILED"]), model=st.booleans())
    def end(self, name, status, model):
        event_log, recorded = self._event_log(name), self.recorded[name]
        if model and status == "FINISHED":
            for file in ("model.safetensors", "manifest.json"):
                (self.root / name / file).write_text(f"{name} {file}")
                recorded.files.add(f"model/{file}")
            event_log.model(self.root / name / "model.safetensors", "euler-shared")
            recorded.models["euler-shared"] = True
        event_log.status(status)
        recorded.status = status

    @rule(name=stages, again=st.booleans())
    def cut_off(self, name, again):
        """A process is killed while it writes a line; another goes on with the line or removes it."""
        self._event_log(name)
        with event_log_path(self.root / name).open("a") as file:
            file.write('{"kind": "metrics", "time": 1, "step": 3, "val')
        if again:
            line = {"kind": "metrics", "time": 5, "step": 90, "values": {"metric0": 90.0}}
            with event_log_path(self.root / name).open("a") as file:
                file.write(json.dumps(line) + "\n")
            self.recorded[name].steps.setdefault("metric0", {})[90] = 90.0

    @invariant()
    def poll(self):
        """The driver looks at the logs after every second step."""
        self.looks += 1
        if self.driver and self.looks % 2:
            self.driver.copy_events()

    @rule(share=st.sampled_from([0.0, 0.1, 0.3, 1.0]), seed=st.integers(0, 1 << 16))
    def network(self, share, seed):
        self.client.fail(share, seed)

    @rule(index=st.integers(0, 5))
    def somebody_deletes_a_run(self, index):
        active = [key for key, run in self.fake.runs.items() if run.lifecycle == "active"]
        if active:
            self.fake.delete_run(active[index % len(active)])

    @rule(gone=st.booleans())
    def somebody_deletes_the_experiment(self, gone):
        experiment = self.fake.get_experiment_by_name("lola/euler")
        if experiment and experiment.lifecycle_stage == "active":
            self.fake.delete_experiment(experiment.experiment_id)
            if gone:
                del self.fake.experiments[experiment.experiment_id]
                for key in [
                    k for k, run in self.fake.runs.items() if run.experiment == experiment.experiment_id
                ]:
                    del self.fake.runs[key]

    @rule()
    def the_driver_is_killed_and_starts_again(self):
        self.driver._sweep_log.release()  # what the system does for a dead process
        self.driver = None
        self.start()

    @rule(status=st.sampled_from(["FINISHED", "FAILED", "KILLED"]))
    def the_driver_ends_and_starts_again(self, status):
        for name in STAGES:
            self._killed(name)
        (self.root / "reports" / "page").mkdir(parents=True, exist_ok=True)
        (self.root / "reports" / "page" / "report.html").write_text("page")
        self.parent_status = status
        self.driver.finish_sweep(self.root / "reports" / "page" if status == "FINISHED" else None, status)
        if self.driver.missing:
            assert "sync_mlflow.py --storage" in self.driver.missing
        else:
            self.check(status == "FINISHED")
        self.driver = None
        self.start()

    def check(self, report=False):
        """Everything is there exactly once."""
        runs = [run for run in self.fake.runs.values() if run.lifecycle == "active"]
        (parent,) = [run for run in runs if run.tags["lola.fingerprint"] == SWEEP]
        assert parent.status == self.parent_status
        assert len(self.fake.experiments[parent.experiment].tags) == 1
        assert parent.params == {f"option{i}": str(i) for i in range(150)}
        assert not report or "report/report.html" in parent.artifacts
        logged = [name for name in STAGES if event_log_path(self.root / name).exists()]
        assert len(runs) == 1 + len(logged)
        for name in logged:
            recorded = self.recorded[name]
            (run,) = [each for each in runs if each.tags["lola.fingerprint"] == FINGERPRINTS[name]]
            assert run.tags["mlflow.parentRunId"] == parent.key
            assert run.params == recorded.params
            assert recorded.tags.items() <= run.tags.items()
            assert run.status == recorded.status
            assert (run.end is None) == (run.status == "RUNNING") or run.status == "RUNNING"
            assert set(run.metrics) == set(recorded.steps)
            for key, steps in recorded.steps.items():
                points = [(metric.step, metric.value) for metric in run.metrics[key]]
                assert len(points) == len(steps), f"{key} does not exist exactly once"
                assert dict(points) == steps
            assert set(run.artifacts) == recorded.files
            assert set(run.datasets) == recorded.datasets
            for model in recorded.models:
                versions = [each for each in self.fake.models[model].versions if each.run_id == run.key]
                assert len(versions) == 1
        self._check_alias()

    def _check_alias(self):
        for model in self.fake.models.values():
            if model.versions:
                latest = max(int(version.tags["lola.trained"]) for version in model.versions)
                (chosen,) = [v for v in model.versions if v.version == model.aliases["latest-trained"]]
                assert int(chosen.tags["lola.trained"]) == latest

    def _sync(self):
        """Send everything; returns the command's last line if it says that something is missing."""
        try:
            tracking.sync(self.root, lambda text: None)
        except TrackingError as error:
            return str(error)
        return ""

    def teardown(self):
        try:
            if self.driver is None:
                return
            self.driver._sweep_log.release()
            for name in STAGES:
                self._killed(name)
            if self.parent_status == "RUNNING":
                self.parent_status = "KILLED"
            missing = self._sync()
            if missing:
                assert "sync_mlflow.py --storage" in missing or "does not answer" in missing
            else:
                self.check()
            self.client.fail(0.0, 0)
            tracking.sync(self.root, lambda text: None)
            self.check()
            before = len(self.fake.calls)
            tracking.sync(self.root, lambda text: None)
            assert len(self.fake.calls) == before, "nothing is sent twice"
        finally:
            for patch in self.patches:
                patch.stop()
            shutil.rmtree(self.root)


TestExactlyOnce = Tracking.TestCase
TestExactlyOnce.settings = SETTINGS
