"""Where MLflow's runs are, and the client that talks to it.

Nothing here changes the process's own MLflow settings: every client gets its address, so that a process
can use several storage roots.
"""

import contextlib
import itertools
import logging
import os
import shlex
import shutil
import sqlite3
import sys
import urllib.parse
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import sqlalchemy
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
# Its thread changes the environment, which fails a request that reads it just then.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

from lola.core.errors import LolaError, TrackingError
from lola.core.filesystem import DISK_REMEDY, PERMISSION_REMEDY, SPACE_REMEDY, Lock, describe_os_error
from lola.storage.remote import AnyPath, first_line

PORT = 5000  # of the pages that the printed command serves
LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("logged_models", "artifact_location"),
)
"""Where the database keeps absolute locations of artifacts: tables and columns."""
OWN_LOCATIONS = (
    "SELECT DISTINCT artifact_location FROM experiments WHERE name LIKE 'lola/%' "
    "AND artifact_location LIKE 'file:%/artifacts' AND artifact_location != :new"
)
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
REJECTIONS = (
    "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_DOES_NOT_EXIST",
    "INVALID_PARAMETER_VALUE",
    "INVALID_STATE",
)
REMEDIES = {
    sqlite3.SQLITE_FULL: SPACE_REMEDY,
    sqlite3.SQLITE_IOERR: DISK_REMEDY,
    sqlite3.SQLITE_READONLY: PERMISSION_REMEDY,
    sqlite3.SQLITE_PERM: PERMISSION_REMEDY,
    sqlite3.SQLITE_CANTOPEN: PERMISSION_REMEDY,
    sqlite3.SQLITE_BUSY: "another program keeps it locked; end that, and run again",
}
"""What to do about what SQLite refuses, by its primary codes."""
CLIENT_ENVIRONMENT = {  # an outage must be noticed within seconds
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "PGCONNECT_TIMEOUT": "10",
}


def open_client(uri: str) -> MlflowClient:
    """The client of an address, which answered.

    Raises:
        TrackingError: It does not answer, or its database needs a package or is damaged.
    """
    for name in ("alembic", "mlflow", "sqlalchemy"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # failures are reported in one line by this module
    for name, value in CLIENT_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if not uri.startswith(("http://", "https://")):
        _check_database(uri)
    try:
        client = MlflowClient(uri, registry_uri=uri)
        client.search_experiments(max_results=1)
    except Exception as error:  # the client raises whatever its transport or database raises
        raise unreachable(uri, error) from error
    return client


def _check_database(uri: str) -> None:
    """Connect to a database once: MLflow itself would try for minutes, whatever the cause."""
    try:
        engine = sqlalchemy.create_engine(uri)
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text("SELECT 1"))
        engine.dispose()
    except (ImportError, NoSuchModuleError) as error:
        raise TrackingError(
            f"MLFLOW_TRACKING_URI {uri} needs a driver that is not installed ({first_line(error)}); pip "
            "install it, or unset MLFLOW_TRACKING_URI"
        ) from error
    except (SQLAlchemyError, ArgumentError, OSError, ValueError) as error:
        raise unreachable(uri, error) from error


def unreachable(uri: str, error: Exception) -> TrackingError:
    """What an error of the first request means."""
    if getattr(error, "error_code", "") in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        return TrackingError(
            f"MLflow at {uri} refuses this user; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    path = database_path(uri)
    remedy, cause = "start it, or unset MLFLOW_TRACKING_URI", first_line(error)[:200]
    if path is not None:
        damaged = f"if {path} is damaged, move it away and run again: the event logs hold all that it held"
        own = _sqlite_cause(error)
        remedy = REMEDIES.get(getattr(own, "sqlite_errorcode", 0) & 0xFF, damaged)
    return TrackingError(f"MLflow at {uri} does not answer ({cause}); {remedy}")


def _sqlite_cause(error: BaseException | None) -> sqlite3.Error | None:
    """SQLite's error that caused one; None if SQLite did not."""
    while error is not None:
        own = getattr(error, "orig", error)
        if isinstance(own, sqlite3.Error):
            return own
        error = error.__cause__ or error.__context__
    return None


def describe_cause(error: Exception) -> str:
    """Why MLflow refuses a request: the error of its database, if there is one."""
    own = _sqlite_cause(error)
    return f"SQLite: {own}" if own else f"{type(error).__name__}: {first_line(error)[:160]}"


def is_rejection(error: Exception) -> bool:
    """Whether MLflow answered and refused the request, which is not an outage."""
    return isinstance(error, MlflowException) and error.error_code in REJECTIONS


def tracking_uri(storage: AnyPath) -> str:
    """Where runs are kept: the server of `MLFLOW_TRACKING_URI`, else a database in the storage root.

    Raises:
        TrackingError: The variable holds credentials, which would be shown with it, or names neither a
            server nor a database; or it is not set, and the storage root is on an object store, where there
            can be no database.
    """
    given = os.environ.get("MLFLOW_TRACKING_URI")
    if not given:
        if not isinstance(storage, Path):
            raise TrackingError(
                f"storage {storage} can hold no database of runs; name a server with MLFLOW_TRACKING_URI"
            )
        return _sqlite_uri(storage / "mlflow" / "mlflow.db")
    uri = given.strip()
    try:
        parts = urllib.parse.urlsplit(uri)
    except ValueError:
        parts = urllib.parse.urlsplit("")
    _refuse_secrets(parts)
    served = parts.scheme in ("http", "https") and parts.netloc
    if not served and (parts.scheme.partition("+")[0] not in DATABASES or uri.rstrip("/").endswith(":")):
        raise TrackingError(
            f"MLFLOW_TRACKING_URI {given!r} is neither a server (http://HOST:PORT) nor a database "
            "(sqlite:////FOLDER/mlflow.db, postgresql://USER@HOST/NAME); name one, or unset it"
        )
    return uri


def _refuse_secrets(parts: urllib.parse.SplitResult) -> None:
    """Raise `TrackingError` if an address holds credentials."""
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


def _sqlite_uri(path: Path) -> str:
    text = str(path)
    for mark in "%?#":  # no more than must be: MLflow makes the folder of the quoted name as well
        text = text.replace(mark, f"%{ord(mark):02X}")
    return f"sqlite:///{text}"


def database_path(uri: str) -> Path | None:
    """The file of an SQLite database; None if the address is not of one."""
    if not uri.startswith("sqlite"):
        return None
    return Path(sqlalchemy.make_url(uri).database or "mlflow.db").absolute()


def artifact_location(uri: str) -> str | None:
    """Where an experiment keeps artifacts, if this module decides it.

    MLflow itself would keep those of a database wherever this program was started.
    """
    path = database_path(uri)
    return None if path is None else (path.parent / "artifacts").as_uri()


def make_database(path: Path) -> None:
    """Create MLflow's database at a temporary path: one that was created half could never be opened again.

    Raises:
        TrackingError: Its folder cannot be written, or its disk is full.
        StorageError: It cannot be locked.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with Lock(path.with_suffix(".lock")):
            if path.exists():
                return
            _remove_temporary_paths(path)
            # A new name: MLflow keeps connections to databases that were here before
            tmp_path = path.with_suffix(f".{uuid.uuid4().hex}.part")
            tmp_path.touch()  # with the mode of the umask, for a group; SQLite would make it 0644
            try:
                open_client(_sqlite_uri(tmp_path))
                os.replace(tmp_path, path)
            finally:
                _remove_temporary_paths(path)
    except (OSError, NotImplementedError) as error:
        if isinstance(error, LolaError):
            raise
        line = describe_os_error(error, path, "make")
        raise TrackingError(
            line or f"{path} cannot be made ({first_line(error)}); see to the folder's permissions"
        ) from error


def _remove_temporary_paths(path: Path) -> None:
    """Remove databases that were being made, and their journals."""
    for leftover in path.parent.glob(f"{path.stem}*.part*"):
        with contextlib.suppress(OSError):  # another user's, perhaps
            leftover.unlink()


def show_command(uri: str) -> str:
    """The command that serves the pages of a database, in one worker without jobs; none for a server."""
    if not uri.startswith(DATABASES):
        return ""
    program = (
        "mlflow" if shutil.which("mlflow") else shlex.quote(str(Path(sys.executable).with_name("mlflow")))
    )
    options = f"--workers 1 --backend-store-uri {shlex.quote(uri)} --host 127.0.0.1 --port {PORT}"
    return f"env MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false {program} server {options}"


def page_address(uri: str, experiment: str, view: str = "", run: str | None = None) -> str:
    """The address of an experiment's runs as a saved view shows them, or of one run."""
    server = f"http://127.0.0.1:{PORT}" if uri.startswith(DATABASES) else uri.rstrip("/")
    page = f"runs/{run}" if run else "runs" + (f"?viewStateShareKey={view}" if view else "")
    return f"{server}/#/experiments/{experiment}/{page}"


def relocate_artifacts(path: Path) -> str:
    """Correct where a database says that artifacts are, after its folder was moved or copied.

    Returns:
        The location that was replaced; empty if there was none.
    """
    new, moved = artifact_location(_sqlite_uri(path)), moved_locations(path)
    with _connection(path) as connection:
        for old, (table, column) in itertools.product(moved, LOCATIONS):
            connection.execute(
                sqlalchemy.text(
                    f"UPDATE {table} SET {column} = :new || substr({column}, length(:old) + 1) "
                    f"WHERE {column} = :old OR substr({column}, 1, length(:old) + 1) = :old || '/'"
                ),
                {"old": old, "new": new},
            )
    return ", ".join(moved)


def moved_locations(path: Path) -> list[str]:
    """Where a database says that its own artifacts are, but for its folder, which was moved or copied.

    MLflow keeps absolute locations.
    """
    with _connection(path) as connection:
        new = artifact_location(_sqlite_uri(path))
        found = connection.execute(sqlalchemy.text(OWN_LOCATIONS), {"new": new}).scalars()
        return [old for old in found if not _is_same(old, path)]


@contextlib.contextmanager
def _connection(path: Path) -> Iterator[sqlalchemy.Connection]:
    """A transaction of a database."""
    engine = sqlalchemy.create_engine(_sqlite_uri(path))
    try:
        with engine.begin() as connection:
            yield connection
    except SQLAlchemyError as error:
        raise unreachable(_sqlite_uri(path), error) from error
    finally:
        engine.dispose()


def _is_same(location: str, path: Path) -> bool:
    """Whether a location is the folder of a database's artifacts by another name, such as a link's."""
    folder = Path(urllib.parse.unquote(urllib.parse.urlsplit(location).path))
    with contextlib.suppress(OSError):
        return folder.parent.samefile(path.parent)
    return False


def open_experiment(client: MlflowClient, uri: str, name: str, log: Callable[[str], None]) -> str:
    """The identifier of the experiment of a name, which is made if there is none.

    One that was deleted is restored, with its runs: the storage root still holds what they show, and a name
    cannot be used again while MLflow keeps what was deleted.
    """
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return client.create_experiment(name, artifact_location=artifact_location(uri))
        except MlflowException:
            experiment = client.get_experiment_by_name(name)  # another driver may have made it just now
            if experiment is None:
                raise
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
        log(f"MLflow's experiment {name} had been deleted; it is restored with its runs")
    return experiment.experiment_id
