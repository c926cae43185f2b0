"""MLflow as a view of the stages' records, in the only module that imports it.

A run stands for one stage within one sweep and is found by its tags `lola.fingerprint` and `lola.sweep`, so
that a sweep that is started again continues its runs, and a stage that two sweeps share appears under both.
How far a record has been copied is a tag of the run, written together with the metrics; after an outage
copying goes on where it stopped.
"""

import dataclasses
import json
import logging
import os
import shlex
import threading
import urllib.parse
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import filelock
import sqlalchemy

os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
# Its thread changes the environment, which fails a request that reads it just then.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from mlflow import MlflowClient
    from mlflow.artifacts import download_artifacts
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.utils.models import get_model_name_and_version

from lola.errors import TrackingError
from lola.remote import AnyPath, local_copy, local_folder
from lola.spool import read_events
from lola.storage import git_commit

OFFSET = "lola.spool_offset"
ALIAS = "latest-trained"
DIGEST = 16  # characters; MLflow takes up to 36
BATCH = 500  # metrics per request; servers refuse more than 1000


@dataclasses.dataclass
class _Followed:
    """A record that is being copied."""

    folder: AnyPath
    tags: dict[str, str]
    offset: int = 0
    run_id: str | None = None
    seen: dict[str, int] = dataclasses.field(default_factory=dict)


class Tracker:
    """Copies the records of a sweep's stages to MLflow.

    Arguments:
        storage: The storage root; runs are kept in `<storage>/mlflow` unless `MLFLOW_TRACKING_URI` names a
            server, which a root on an object store needs.
        system: The physical system, which names the experiment.

    A server's user and password come from `MLFLOW_TRACKING_USERNAME` and `MLFLOW_TRACKING_PASSWORD`, or from
    `~/.mlflow/credentials`.

    Raises:
        TrackingError: The server does not answer, does not know this user, or is needed and not named.
    """

    def __init__(self, storage: AnyPath, system: str) -> None:
        given = os.environ.get("MLFLOW_TRACKING_URI")
        self.uri = tracking_uri(storage)
        self.parent: str | None = None
        self.sweep = ""
        self._followed: dict[AnyPath, _Followed] = {}
        self._lock = threading.Lock()
        self._trouble = ""
        for name in ("alembic", "mlflow"):
            logging.getLogger(name).setLevel(logging.ERROR)
        location = None
        if self.uri.startswith(
            "sqlite"
        ):  # MLflow itself would keep artifacts wherever this program was started
            database = Path(sqlalchemy.make_url(self.uri).database or "mlflow.db").absolute()
            location = (database.parent / "artifacts").as_uri()
            if not given:
                database.parent.mkdir(parents=True, exist_ok=True)
                _make_database(database)
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        self.client = MlflowClient(self.uri, registry_uri=self.uri)
        name = f"lola/{system}"
        try:
            experiment = self.client.get_experiment_by_name(name)
            self.experiment = (
                experiment.experiment_id
                if experiment
                else self.client.create_experiment(name, artifact_location=location)
            )
        except Exception as error:  # the client raises whatever its transport or database raises
            raise _unreachable(self.uri, error) from None

    @property
    def command(self) -> str:
        """The command that shows the runs."""
        if not self.uri.startswith("sqlite"):
            return f"open {self.uri}"
        return f"mlflow ui --backend-store-uri {shlex.quote(self.uri)} --host 127.0.0.1 --port 5000"

    def start_sweep(self, name: str, fingerprint: str, parameters: Mapping[str, Any]) -> None:
        """Open the parent run of a sweep, or the one that an earlier call opened."""
        self.sweep = fingerprint
        tags = {"lola.fingerprint": fingerprint, "lola.sweep": fingerprint, "lola.stage": "sweep"}
        self.parent = self._run(name, tags | {"lola.git_commit": git_commit()})
        self.client.log_batch(self.parent, params=_params(parameters))
        self.client.update_run(self.parent, status="RUNNING")

    def finish_sweep(self, report: AnyPath | None, failed: bool) -> None:
        """Copy what is left, attach the report's files, and close the parent run."""
        self.pump()
        if self._trouble:
            logging.getLogger(__name__).warning(
                "MLflow at %s did not take everything (%s); the next start of this sweep copies the rest",
                self.uri,
                self._trouble,
            )
            return
        assert self.parent is not None
        if report:
            with local_folder(report) as folder:
                self.client.log_artifacts(self.parent, str(folder), "report")
        self.client.set_terminated(self.parent, "FAILED" if failed else "FINISHED")

    def follow(self, folder: AnyPath, fingerprint: str) -> None:
        """Copy the record of a stage from now on."""
        tags = {"lola.fingerprint": fingerprint, "lola.sweep": self.sweep}
        with self._lock:
            self._followed.setdefault(folder, _Followed(folder, tags))

    def pump(self) -> None:
        """Copy what is new in all records; what MLflow does not take now is copied later."""
        with self._lock:
            for followed in self._followed.values():
                self._copy(followed)

    def _copy(self, followed: _Followed) -> None:
        events = list(read_events(followed.folder, followed.offset))
        try:
            for start in range(0, len(events), BATCH):
                self._send(followed, events[start : start + BATCH])
            self._trouble = ""
        except Exception as error:  # an outage must not stop the work: the record stays and is copied later
            self._trouble = f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"

    def _send(self, followed: _Followed, events: list[tuple[int, dict[str, Any]]]) -> None:
        if followed.run_id is None:
            described = [event for _, event in events if event["kind"] == "describe"]
            if not described:
                return
            self._open(followed, described[-1])
        assert followed.run_id is not None
        done = int(self.client.get_run(followed.run_id).data.tags.get(OFFSET, "0"))
        metrics: list[Metric] = []
        last = followed.offset
        for last, event in events:
            if event["kind"] == "metrics":
                fresh = self._fresh(followed, event)
                metrics += fresh if last > done else []
            elif last > done:
                self._special(followed, event)
        self.client.log_batch(followed.run_id, metrics=metrics, tags=[RunTag(OFFSET, str(max(last, done)))])
        followed.offset = last

    def _fresh(self, followed: _Followed, event: dict[str, Any]) -> list[Metric]:
        """The event's metrics, without those of steps that a resumed run repeated."""
        step, metrics = event["step"], []
        for key, value in event["values"].items():
            if followed.seen.get(key, -1) < step:
                followed.seen[key] = step
                metrics.append(Metric(key, value, event["time"], step))
        return metrics

    def _special(self, followed: _Followed, event: dict[str, Any]) -> None:
        assert followed.run_id is not None
        if event["kind"] == "artifact":
            self.client.log_artifact(followed.run_id, str(local_copy(followed.folder / event["path"])))
        elif event["kind"] == "model":
            self._register(followed, event)
        elif event["kind"] == "dataset":
            self.client.log_inputs(followed.run_id, [_dataset_input(event)])
        elif event["kind"] == "status":
            if event["status"] == "RUNNING":
                self.client.update_run(followed.run_id, status="RUNNING")
            else:
                self.client.set_terminated(followed.run_id, event["status"], end_time=event["time"])

    def _open(self, followed: _Followed, event: dict[str, Any]) -> None:
        tags = followed.tags | {f"lola.{key}": str(value) for key, value in event["tags"].items()}
        tags["mlflow.parentRunId"] = str(self.parent)
        followed.run_id = self._run(event["name"], tags, event["time"])
        self.client.log_batch(followed.run_id, params=_params(event["parameters"]))

    def _register(self, followed: _Followed, event: dict[str, Any]) -> None:
        """Log weights and make them a version of the registered model."""
        assert followed.run_id is not None
        for name in (event["path"], "manifest.json"):
            self.client.log_artifact(followed.run_id, str(local_copy(followed.folder / name)), "model")
        run = self.client.get_run(followed.run_id)
        try:
            self.client.create_registered_model(event["name"])
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            version = self.client.create_model_version(
                event["name"], source=f"{run.info.artifact_uri}/model", run_id=followed.run_id
            )
            self.client.set_registered_model_alias(event["name"], ALIAS, version.version)

    def _run(self, name: str, tags: Mapping[str, str], start: int | None = None) -> str:
        """The run with these fingerprints, made if there is none."""
        query = " and ".join(f"tags.`{key}` = '{tags[key]}'" for key in ("lola.fingerprint", "lola.sweep"))
        found = self.client.search_runs([self.experiment], query, max_results=1)
        if found:
            return found[0].info.run_id
        run = self.client.create_run(self.experiment, run_name=name, tags=dict(tags), start_time=start)
        return run.info.run_id


def _params(values: Mapping[str, Any]) -> list[Param]:
    return [Param(key, str(value)[:6000]) for key, value in values.items()]


def _dataset_input(event: Mapping[str, Any]) -> DatasetInput:
    """A dataset of a record; MLflow's digests are short, and tell a dataset from others of its name."""
    dataset = Dataset(
        name=event["name"],
        digest=event["digest"][:DIGEST],
        source_type="local",
        source=json.dumps({"uri": event["source"]}),
        profile=json.dumps({"fingerprint": event["digest"]}),
    )
    return DatasetInput(dataset=dataset, tags=[InputTag("mlflow.data.context", event["context"])])


def fetch_model(storage: AnyPath, reference: str, folder: Path) -> Path:
    """Download a model that MLflow knows, weights and manifest.

    Arguments:
        storage: The storage root, for where the runs are kept.
        reference: `runs:/<run id>`, `models:/<name>/<version>`, `models:/<name>@<alias>`, or the name of a
            registered model, of which the last that was trained is meant.
        folder: An existing folder to download to.

    Returns:
        The folder that holds the model's files.

    Raises:
        TrackingError: There is no such run or model, or MLflow does not answer.
    """
    uri = tracking_uri(storage)
    if reference.startswith("runs:/"):
        source = f"runs:/{reference.removeprefix('runs:/').split('/')[0]}/model"
    else:
        source = reference if reference.startswith("models:/") else f"models:/{reference}@{ALIAS}"
    try:
        if not os.environ.get("MLFLOW_TRACKING_URI") and not (storage / "mlflow" / "mlflow.db").exists():
            raise FileNotFoundError(f"{storage} holds no runs")
        if source.startswith("models:/"):
            source = _model_source(MlflowClient(uri, registry_uri=uri), source)
        return Path(
            download_artifacts(artifact_uri=source, dst_path=str(folder), tracking_uri=uri, registry_uri=uri)
        )
    except Exception as error:  # the client raises whatever its transport or database raises
        reason = str(error).strip().splitlines()[0][:120]
        raise TrackingError(f"MLflow at {uri} has no model {source} ({reason})") from None


def _model_source(client: MlflowClient, source: str) -> str:
    """Where the files of `models:/...` are.

    `download_artifacts` itself asks the process's default registry, whatever registry it is given.
    """
    name, *version = get_model_name_and_version(client, source)
    if version:
        found = client.get_model_version_download_uri(name, version[0])
        if not found.startswith("models:/"):
            return found
        (name,) = get_model_name_and_version(client, found)
    return client.get_logged_model(name).artifact_location


def fetch_stage(storage: AnyPath, fingerprint: str, folder: Path) -> Path:
    """Download the model of the stage of a fingerprint, as `fetch_model` does.

    Raises:
        TrackingError: MLflow has no run of it, or does not answer.
    """
    uri = tracking_uri(storage)
    try:
        client = MlflowClient(uri, registry_uri=uri)
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        runs = client.search_runs(experiments, f"tags.`lola.fingerprint` = '{fingerprint}'")
    except Exception as error:  # the client raises whatever its transport or database raises
        reason = str(error).strip().splitlines()[0][:120]
        raise TrackingError(f"MLflow at {uri} does not answer ({reason})") from None
    if not runs:
        raise TrackingError(f"MLflow at {uri} has no run of the stage {fingerprint[:8]}; copy its folder")
    return fetch_model(storage, f"runs:/{runs[0].info.run_id}", folder)


def tracking_uri(storage: AnyPath) -> str:
    """Where runs are kept: the server of `MLFLOW_TRACKING_URI`, else a database in the storage root.

    Raises:
        TrackingError: `MLFLOW_TRACKING_URI` holds credentials, which would be shown with it; or it is not
            set, and the storage root is on an object store, where there can be no database.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        if not isinstance(storage, Path):
            raise TrackingError(
                f"storage {storage} can hold no database of runs; name a server with MLFLOW_TRACKING_URI"
            )
        return _sqlite_uri(storage / "mlflow" / "mlflow.db")
    parts = urllib.parse.urlsplit(uri)
    user, _, host = parts.netloc.rpartition("@")
    served = parts.scheme in ("http", "https")
    if ":" in user or "password" in parts.query.lower() or (served and (user or parts.query)):
        remedy = (
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" if served else "PGPASSWORD or the like"
        )
        raise TrackingError(
            f"MLFLOW_TRACKING_URI ({parts.scheme}://{host}) holds credentials or a query, which would be "
            f"shown; leave them out, and set {remedy}"
        )
    return uri


def _sqlite_uri(path: Path) -> str:
    return sqlalchemy.URL.create("sqlite", database=str(path)).render_as_string()


def _make_database(path: Path) -> None:
    """Make MLflow's database aside: one whose making was cut off could not be opened ever again."""
    with filelock.FileLock(path.with_suffix(".lock")):
        if path.exists():
            return
        aside = path.with_suffix(".part")
        aside.unlink(missing_ok=True)
        MlflowClient(_sqlite_uri(aside)).search_experiments(max_results=1)
        os.replace(aside, path)


def _unreachable(uri: str, error: Exception) -> TrackingError:
    """What an error of the first request means."""
    if getattr(error, "error_code", "") in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        return TrackingError(
            f"MLflow at {uri} refuses this user; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    reason = str(error).strip().splitlines()[0][:120]
    return TrackingError(
        f"MLflow at {uri} does not answer ({reason}); start it, or unset MLFLOW_TRACKING_URI"
    )
