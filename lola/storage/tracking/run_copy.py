"""One event log and the MLflow run that it is copied to, exactly once.

What has been sent is decided by what MLflow says it has. The run's tag `lola.event_log_offset` is the offset
where the last event ends that MLflow has taken, and `lola.event_log_digest` identifies the log up to there.
Both are written last, and not for events that runs do not show alone, so that after a failure, wherever it
happened, later events are sent again:

- parameters that the run has are left out; the first value of each stays, as MLflow allows no other;
- metrics are sent for steps that the run's history lacks, which also leaves out what a resumed run repeats;
  `progress/...` is a tag;
- tags, descriptions, views, artifacts and the status replace what is there by name;
- datasets that the run has are left out;
- a model version is made unless one of the same run and source exists.
"""

import dataclasses
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from lola.storage.event_log import log_digest
from lola.storage.follow import Events
from lola.storage.remote import AnyPath, local_copy, local_folder_copy
from lola.storage.sweep_log import resolve_path
from lola.storage.tracking.saved_views import experiment_tag
from lola.storage.views import View

OFFSET = "lola.event_log_offset"
DIGEST = "lola.event_log_digest"
NOTE = "mlflow.note.content"
PROGRESS = "progress/"
TRAINED = "lola.trained"
ALIAS = "latest-trained"
UNSHOWN = ("progress", "waiting")  # kinds of events that runs do not show, the most frequent ones
DIGEST_CHARACTERS = 16  # of a dataset; MLflow takes up to 36
MAX_METRICS = 900  # in one call; MLflow takes 1000 metrics, parameters and tags together
MAX_PARAMS = MAX_TAGS = 100  # in one call
MAX_PARAM_CHARACTERS = 6000
MAX_TAG_CHARACTERS = 5000

T = TypeVar("T")


@dataclasses.dataclass
class _SentState:
    """What the run has."""

    run: str  # its identifier
    experiment: str
    artifacts: str  # their URI
    offset: int  # of the log, up to which the run has confirmed it
    params: set[str]  # names
    datasets: set[tuple[str, str]]  # names and digests
    steps: dict[str, set[int]] = dataclasses.field(default_factory=dict)  # by metric, once looked up
    new: bool = False  # made by this process, so that it has nothing else


class RunCopy:
    """Copies the event log of a folder to a run, which is found by the tags of its identity."""

    def __init__(
        self, client: MlflowClient, root: AnyPath, folder: AnyPath, identity: Mapping[str, str]
    ) -> None:
        self.client, self.root, self.folder, self.identity = client, root, folder, dict(identity)
        self.lost_files: dict[str, str] = {}  # files of the log that can never be sent, and why
        self._sent: _SentState | None = None

    @property
    def _state(self) -> _SentState:
        assert self._sent is not None
        return self._sent

    @property
    def offset(self) -> int:
        return self._sent.offset if self._sent else 0

    @property
    def run_id(self) -> str | None:
        """The run, once it is known."""
        return self._sent.run if self._sent else None

    def forget(self) -> None:
        """Ask MLflow again what it has, since a call failed or another process changed it."""
        self._sent = None

    def attach(self, run: Run) -> int:
        """Resume a run of MLflow's; returns the offset that it has confirmed."""
        tags = run.data.tags
        offset = int(tags.get(OFFSET, "0"))
        digest = log_digest(self.folder, offset) if offset else ""
        if not digest or tags.get(DIGEST, digest) != digest:
            offset = 0  # the log is not the one that was sent, such as after a machine was lost
        datasets = run.inputs.dataset_inputs if run.inputs else []
        self._sent = _SentState(
            run.info.run_id,
            run.info.experiment_id,
            run.info.artifact_uri,
            offset,
            set(run.data.params),
            {(found.dataset.name, found.dataset.digest) for found in datasets},
        )
        return offset

    def create(self, experiment: str, events: Events, parent: str | None) -> None:
        """Make the run of a log, of which these are the first events."""
        described = next((event for _, event in events if event["kind"] == "describe"), None)
        name = described["name"] if described else self.folder.name
        tags = self.identity | (_tags(described) if described else {})
        if parent is not None:
            tags["mlflow.parentRunId"] = parent
        run = self.client.create_run(experiment, run_name=name, tags=tags, start_time=events[0][1]["time"])
        self.attach(run)
        self._state.new = True

    def send(self, events: Events, confirm: bool = False) -> int:
        """Send events, of which the run has none or some; returns the offset behind them.

        Arguments:
            confirm: Whether the run's offset is that behind them even if they hold nothing that runs show.

        Raises:
            Exception: Whatever the client raises; `forget` must be called then.
        """
        if not confirm and all(event["kind"] in UNSHOWN for _, event in events):
            self._state.offset = events[-1][0]  # what follows confirms it: requests cost time
            return self._state.offset
        status: dict[str, Any] | None = None
        metrics: list[Metric] = []
        params: dict[str, str] = {}
        tags: dict[str, str] = {}
        for _, event in events:
            if event["kind"] == "metrics":
                metrics += self._unsent(event["values"], event["step"], event["time"])
                tags |= _progress_tags(event)
            elif event["kind"] == "curve":
                for step, value in event["points"]:
                    metrics += self._unsent({event["name"]: value}, step, event["time"])
            elif event["kind"] == "note":
                tags[NOTE] = event["text"][:MAX_TAG_CHARACTERS]
            elif event["kind"] == "describe":
                params = _params(event) | params
                tags |= _tags(event)
            elif event["kind"] == "status":
                status = event
            else:
                self._send_other(event)
        offset = events[-1][0]
        confirmed = {OFFSET: str(offset), DIGEST: log_digest(self.folder, offset)}
        self._log_batches([], {key: params[key] for key in params if key not in self._state.params}, tags)
        self._state.params |= set(params)
        if status is None:
            self._log_batches(metrics, {}, confirmed)
        else:
            self._log_batches(metrics, {}, {})
            self._set_status(status)
            self._log_batches([], {}, confirmed)
        self._state.offset = offset
        return offset

    def _unsent(self, values: Mapping[str, float], step: int, time: int) -> list[Metric]:
        """The metrics that the run lacks at a step; how far a stage is, is none that people compare."""
        metrics = []
        for key, value in values.items():
            if not key.startswith(PROGRESS) and step not in self._steps(key):
                self._steps(key).add(step)
                metrics.append(Metric(key, value, time, step))
        return metrics

    def _steps(self, key: str) -> set[int]:
        if key not in self._state.steps:
            history = [] if self._state.new else self.client.get_metric_history(self._state.run, key)
            self._state.steps[key] = {metric.step for metric in history}
        return self._state.steps[key]

    def _log_batches(
        self, metrics: Sequence[Metric], params: Mapping[str, str], tags: Mapping[str, str]
    ) -> None:
        """Log in as many calls as the server's limits ask for, the tags with the last metrics."""
        for some in _chunks([Param(*item) for item in params.items()], MAX_PARAMS):
            self.client.log_batch(self._state.run, params=some)
        *before, last = list(_chunks([RunTag(*item) for item in tags.items()], MAX_TAGS)) or [[]]
        for others in before:
            self.client.log_batch(self._state.run, tags=others)
        *earlier, latest = list(_chunks(metrics, MAX_METRICS)) or [[]]
        for chunk in earlier:
            self.client.log_batch(self._state.run, metrics=chunk)
        if latest or last:
            self.client.log_batch(self._state.run, metrics=latest, tags=last)

    def _set_status(self, event: Mapping[str, Any]) -> None:
        if event["status"] == "RUNNING":
            self.client.update_run(self._state.run, status="RUNNING")
        else:
            self.client.set_terminated(self._state.run, event["status"], end_time=event["time"])
            self._state.steps.clear()  # thousands of numbers, which are looked up again if the run is resumed
            self._state.new = False

    def _send_other(self, event: Mapping[str, Any]) -> None:
        try:
            if event["kind"] == "artifact":
                self._log_file(self.folder / event["path"])
            elif event["kind"] == "report":
                report = resolve_path(self.root, event["path"])
                if not report.exists():
                    raise FileMissing(str(report))
                with local_folder_copy(report) as folder:
                    self.client.log_artifacts(self._state.run, str(folder), "report")
            elif event["kind"] == "model":
                self._register(event)
            elif event["kind"] == "view":
                self._save_view(event)
            elif event["kind"] == "dataset":
                found = _dataset(event)
                if (found.dataset.name, found.dataset.digest) not in self._state.datasets:
                    self.client.log_inputs(self._state.run, [found])
                    self._state.datasets.add((found.dataset.name, found.dataset.digest))
        except FileMissing as error:
            self.lost_files[str(error)] = "does not exist any more"

    def _save_view(self, event: Mapping[str, Any]) -> None:
        try:
            view = View.of(event["name"], event["content"])
        except (KeyError, TypeError, ValueError):  # a corrupt byte
            return
        tag = experiment_tag(view, self.identity["lola.sweep"], event["time"])
        try:
            self.client.set_experiment_tag(self._state.experiment, *tag)
        except MlflowException as error:  # an older server takes shorter values, and knows no views
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise

    def _log_file(self, path: AnyPath, folder: str | None = None) -> None:
        if not path.exists():
            raise FileMissing(str(path))
        self.client.log_artifact(self._state.run, str(local_copy(path)), folder)

    def _register(self, event: Mapping[str, Any]) -> None:
        """Log weights and make them a version of the registered model."""
        for file in (event["path"], "manifest.json"):
            self._log_file(self.folder / file, "model")
        name, source = event["name"], f"{self._state.artifacts}/model"
        try:
            self.client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        versions = list(self.client.search_model_versions(f"name='{name}'"))
        own = [
            version for version in versions if version.run_id == self._state.run and version.source == source
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            version = (
                own[0]
                if own
                else self.client.create_model_version(
                    name, source, run_id=self._state.run, tags={TRAINED: str(event["time"])}
                )
            )
            latest = max([*versions, version], key=lambda version: (_trained(version), -int(version.version)))
            self.client.set_registered_model_alias(name, ALIAS, latest.version)


class FileMissing(Exception):
    """A file that an event names does not exist."""


def _trained(version: Any) -> int:
    """When a model was trained, Unix time in milliseconds."""
    return int(version.tags.get(TRAINED) or version.creation_timestamp)


def _chunks(values: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]


def _params(event: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(value)[:MAX_PARAM_CHARACTERS] for key, value in event["parameters"].items()}


def _tags(event: Mapping[str, Any]) -> dict[str, str]:
    return {f"lola.{key}": str(value)[:MAX_TAG_CHARACTERS] for key, value in event["tags"].items()}


def _progress_tags(event: Mapping[str, Any]) -> dict[str, str]:
    """How far a stage is, such as how many trajectories are scored."""
    values = event["values"].items()
    return {f"lola.{key}": f"{value:g}" for key, value in values if key.startswith(PROGRESS)}


def _dataset(event: Mapping[str, Any]) -> DatasetInput:
    """A dataset of an event; MLflow's digests are short, and distinguish datasets of one name."""
    dataset = Dataset(
        name=event["name"],
        digest=event["digest"][:DIGEST_CHARACTERS],
        source_type="local",
        source=json.dumps({"uri": event["source"]}),
        profile=json.dumps({"fingerprint": event["digest"]}),
    )
    return DatasetInput(dataset=dataset, tags=[InputTag("mlflow.data.context", event["context"])])
