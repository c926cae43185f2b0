"""Fetching models that MLflow knows."""

import os
import warnings
from pathlib import Path

from lola.core.errors import TrackingError
from lola.storage.remote import AnyPath, first_line
from lola.storage.tracking.run_copy import ALIAS
from lola.storage.tracking.server import (
    artifact_location,
    database_path,
    moved_locations,
    open_client,
    tracking_uri,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from mlflow import MlflowClient
    from mlflow.artifacts import download_artifacts
    from mlflow.store.artifact.utils.models import get_model_name_and_version


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
    if reference.startswith("runs:/"):
        source = f"runs:/{reference.removeprefix('runs:/').split('/')[0]}/model"
    else:
        source = reference if reference.startswith("models:/") else f"models:/{reference}@{ALIAS}"
    uri, client = _open(storage)
    try:
        found = _own_location(uri, _model_source(client, source))
        return Path(
            download_artifacts(artifact_uri=found, dst_path=str(folder), tracking_uri=uri, registry_uri=uri)
        )
    except Exception as error:  # the client raises whatever its transport or database raises
        raise TrackingError(f"MLflow at {uri} has no model {source} ({first_line(error)[:120]})") from error


def _open(storage: AnyPath) -> tuple[str, MlflowClient]:
    """The address and the client of a storage root that has runs."""
    uri = tracking_uri(storage)
    path = database_path(uri)
    if path is not None and not os.environ.get("MLFLOW_TRACKING_URI") and not path.exists():
        raise TrackingError(f"{storage} has no runs in MLflow")
    return uri, open_client(uri)


def _model_source(client: MlflowClient, source: str) -> str:
    """Where the files of `runs:/...` or `models:/...` are, as MLflow says.

    `download_artifacts` itself asks the process's default registry, whatever registry it is given.
    """
    if source.startswith("runs:/"):
        run, _, folder = source.removeprefix("runs:/").partition("/")
        return f"{client.get_run(run).info.artifact_uri}/{folder}"
    name, *version = get_model_name_and_version(client, source)
    if version:
        found = client.get_model_version_download_uri(name, version[0])
        if not found.startswith("models:/"):
            return found
        (name,) = get_model_name_and_version(client, found)
    return client.get_logged_model(name).artifact_location


def _own_location(uri: str, location: str) -> str:
    """A location of artifacts as it is now: a root with its own database may have been moved or copied."""
    path = database_path(uri)
    if path is None or os.environ.get("MLFLOW_TRACKING_URI"):
        return location
    for old in moved_locations(path):
        if location.startswith(f"{old}/"):
            return f"{artifact_location(uri)}{location.removeprefix(old)}"
    return location


def fetch_stage(storage: AnyPath, fingerprint: str, folder: Path) -> Path:
    """Download the model of the stage of a fingerprint, as `fetch_model` does.

    Raises:
        TrackingError: MLflow has no run of it, or does not answer.
    """
    uri, client = _open(storage)
    try:
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        runs = client.search_runs(experiments, f"tags.`lola.fingerprint` = '{fingerprint}'")
    except Exception as error:  # the client raises whatever its transport or database raises
        raise TrackingError(f"MLflow at {uri} does not answer ({first_line(error)[:120]})") from error
    if not runs:
        raise TrackingError(f"MLflow at {uri} has no run of the stage {fingerprint[:8]}; copy its folder")
    return fetch_model(storage, f"runs:/{runs[0].info.run_id}", folder)
