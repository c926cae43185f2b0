import os
import shlex
import shutil
import sqlite3
import stat
import sys
from pathlib import Path

import pytest
import sqlalchemy
from fakemlflow import FakeMlflow
from tracked import child, record, tracker

from lola.core.errors import TrackingError
from lola.storage.tracking import Tracker, fetch_model, server, sync, tracking_uri
from lola.storage.tracking.server import (
    database_path,
    describe_cause,
    make_database,
    open_client,
    open_experiment,
    page_address,
    relocate_artifacts,
    show_command,
    unreachable,
)


@pytest.fixture
def storage(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def test_a_root_that_is_no_folder_needs_a_server(storage, memory_root):
    for use in (lambda: Tracker(memory_root, "euler"), lambda: fetch_model(memory_root, "model", storage)):
        with pytest.raises(TrackingError, match=r"storage memory://.* MLFLOW_TRACKING_URI"):
            use()


@pytest.mark.parametrize(
    ("uri", "remedy"),
    [
        ("https://me:planted@mlflow.example.org", "MLFLOW_TRACKING_PASSWORD"),
        ("https://planted@mlflow.example.org:8443/runs", "MLFLOW_TRACKING_PASSWORD"),
        ("https://mlflow.example.org/?token=planted", "MLFLOW_TRACKING_PASSWORD"),
        ("postgresql://me:planted@mlflow.example.org/runs", "PGPASSWORD"),
        ("postgresql://mlflow.example.org/runs?password=planted", "PGPASSWORD"),
    ],
)
def test_an_address_that_holds_credentials_is_refused_without_showing_them(storage, monkeypatch, uri, remedy):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    for use in (lambda: Tracker(storage, "euler"), lambda: fetch_model(storage, "model", storage)):
        with pytest.raises(TrackingError, match=remedy) as refusal:
            use()
        assert "planted" not in str(refusal.value)
        assert "mlflow.example.org" in str(refusal.value)


@pytest.mark.parametrize("uri", ["http://127.0.0.1:5000", "postgresql://me@host/runs?sslmode=require"])
def test_an_address_without_credentials_is_taken_as_it_is(storage, monkeypatch, uri):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert tracking_uri(storage) == uri


@pytest.mark.filterwarnings("ignore")
def test_a_server_that_does_not_answer_is_named(storage, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(TrackingError, match=r"127\.0\.0\.1:9 does not answer"):
        Tracker(storage, "euler")


@pytest.mark.parametrize(
    "uri",
    [
        *("/home/me/mlruns", "mlruns", "file:", "file:///home/me/mlruns", "  ", "http:", "http://"),
        *("https:///runs", "sqlite:", "sqlite://", "sqlite:///:memory:", "ftp://host/runs", "http://[::1"),
    ],
)
def test_an_address_of_no_server_and_no_database_is_refused(storage, monkeypatch, uri):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    for use in (lambda: Tracker(storage, "euler"), lambda: fetch_model(storage, "model", storage)):
        with pytest.raises(TrackingError, match=r"is neither a server .* nor a database") as refusal:
            use()
        assert "\n" not in str(refusal.value)
    assert not list(storage.iterdir())


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("mysql+oursql://me@127.0.0.1/runs", "needs a driver that is not installed"),
        ("mssql+pymssql://me@127.0.0.1/runs", "needs a driver that is not installed"),
        ("sqlite:////nowhere/mlflow.db", "unable to open database file"),
        ("sqlite:////proc/version", "does not answer"),
    ],
)
def test_a_database_that_cannot_be_opened_is_reported_at_once_in_one_line(storage, monkeypatch, uri, reason):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(TrackingError, match=reason) as refusal:
        Tracker(storage, "euler")
    assert "\n" not in str(refusal.value)


def test_a_damaged_database_is_reported_with_what_to_do(storage):
    (storage / "mlflow").mkdir()
    (storage / "mlflow" / "mlflow.db").write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    with pytest.raises(TrackingError, match=r"mlflow\.db is damaged, move it away and run again"):
        Tracker(storage, "euler")


@pytest.fixture
def full(tmp_path):
    """What SQLAlchemy raises where SQLite finds its disk full, within an error of another's."""
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'full.db'}")
    try:
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text("PRAGMA max_page_count = 1"))
            connection.execute(sqlalchemy.text("CREATE TABLE runs (name)"))
            connection.execute(sqlalchemy.text("INSERT INTO runs VALUES (zeroblob(100000))"))
    except sqlalchemy.exc.OperationalError as error:
        failed = ValueError("(raised as a result of Query-invoked autoflush; consider something)")
        failed.__cause__ = error
        return failed
    finally:
        engine.dispose()


def test_a_full_disk_is_no_damage(storage, full):
    assert full.__cause__.orig.sqlite_errorcode == sqlite3.SQLITE_FULL
    (line,) = str(unreachable(tracking_uri(storage), full)).splitlines()
    assert line.endswith("; free some space or give another --storage")
    assert describe_cause(full) == "SQLite: database or disk is full"
    assert describe_cause(KeyError("run")) == "KeyError: 'run'"


def test_a_database_that_cannot_be_made_leaves_nothing_and_can_be_made_later(storage, monkeypatch):
    path = storage / "mlflow" / "mlflow.db"
    path.parent.mkdir()
    (path.parent / "mlflow.part").touch()  # of a process that was killed
    names = []

    def refuse(uri):
        names.append(database_path(uri))
        names[-1].with_name(f"{names[-1].name}-journal").touch()
        raise TrackingError("full")

    monkeypatch.setattr(server, "open_client", refuse)
    for _ in range(2):
        with pytest.raises(TrackingError, match="full"):
            make_database(path)
        assert [each.name for each in path.parent.iterdir()] == ["mlflow.lock"]
    assert names[0] != names[1]  # MLflow keeps connections by name


@pytest.mark.parametrize("name", ["a b", "50%", "a?b=c", "a#b", "a'b", "$HOME", "[x]", "größe", "a%20b"])
def test_the_command_names_the_database_whatever_the_folder_is_called(storage, name, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda program: f"/bin/{program}")
    path = storage / name / "mlflow" / "mlflow.db"
    uri = tracking_uri(storage / name)
    assert database_path(uri) == path
    command = show_command(uri)
    assert shlex.split(command) == [
        *("env", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false", "mlflow", "server", "--workers", "1"),
        *("--backend-store-uri", uri, "--host", "127.0.0.1", "--port", "5000"),
    ]
    assert command.endswith("--host 127.0.0.1 --port 5000")
    path.parent.mkdir(parents=True)
    engine = sqlalchemy.create_engine(uri)
    with engine.connect():
        assert path.exists()
    engine.dispose()
    monkeypatch.setattr("shutil.which", lambda program: None)  # as where the environment is not active
    assert shlex.split(show_command(uri))[2] == str(Path(sys.executable).with_name("mlflow"))


@pytest.mark.parametrize(
    ("uri", "page"),
    [
        ("sqlite:////root/mlflow.db", "http://127.0.0.1:5000/#/experiments/3/runs"),
        ("https://host/mlflow/", "https://host/mlflow/#/experiments/3/runs"),
    ],
)
def test_the_page_of_a_run_has_an_address(uri, page):
    assert page_address(uri, "3", run="r") == f"{page}/r"
    assert page_address(uri, "3", "v") == f"{page}?viewStateShareKey=v"
    assert bool(show_command(uri)) == uri.startswith("sqlite")


def registered(root, mlflow_database):
    """The tracker of a new storage root with a registered model, whose sweep has ended."""
    (root / "mlflow").mkdir(parents=True)
    shutil.copyfile(mlflow_database, root / "mlflow" / "mlflow.db")
    first, event_log = tracker(root), record(root)
    for file in ("model.safetensors", "manifest.json"):
        (root / "stage" / file).write_text(file)
    event_log.model(root / "stage" / "model.safetensors", "euler-model")
    event_log.status("FINISHED")
    first.finish_sweep(None, "FINISHED")
    return first


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kept", [True, False])
def test_models_of_a_root_that_was_moved_or_copied_are_its_own_at_once(storage, mlflow_database, kept):
    """The database may be read-only, and the old root still there."""
    old, new = storage / "old", storage / "new"
    run = child(registered(old, mlflow_database)).info.run_id
    shutil.copytree(old, new)
    if not kept:
        shutil.rmtree(old)
    (weights,) = new.glob("mlflow/artifacts/**/model.safetensors")
    weights.write_text("own")
    before = (new / "mlflow" / "mlflow.db").read_bytes()
    (new / "mlflow" / "mlflow.db").chmod(stat.S_IRUSR)
    for number, reference in enumerate(("euler-model", "models:/euler-model/1", f"runs:/{run}")):
        (new / str(number)).mkdir()
        fetched = fetch_model(new, reference, new / str(number))
        assert (fetched / "model.safetensors").read_text() == "own"
    assert (new / "mlflow" / "mlflow.db").read_bytes() == before


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["moved", "größe 1"])
def test_the_artifacts_of_a_root_that_was_moved_are_found(storage, name, mlflow_database):
    old, new, lines = storage / "old", storage / name, []
    registered(old, mlflow_database)
    shutil.copytree(old, new)
    shutil.rmtree(old)
    sync(new, lines.append)
    assert any("their locations are corrected" in line for line in lines)
    again = Tracker(new, "euler")
    location = (new / "mlflow" / "artifacts").as_uri()
    assert again.client.get_experiment(again.experiment).artifact_location == location
    assert child(again).info.artifact_uri.startswith(f"{location}/")
    (new / "fetched").mkdir()
    fetched = fetch_model(new, "euler-model", new / "fetched")
    assert (fetched / "model.safetensors").read_text() == "model.safetensors"
    assert not old.exists()
    (storage / "link").symlink_to(new)
    assert not relocate_artifacts(storage / "link" / "mlflow" / "mlflow.db")  # the same folder
    assert not relocate_artifacts(new / "mlflow" / "mlflow.db")


@pytest.mark.parametrize("name", ["a b", "[x]", "größe"])
def test_no_folder_is_made_next_to_the_storage_root(storage, name):
    """MLflow makes that of the address as it is written, quoted or not."""
    make_database(storage / name / "mlflow" / "mlflow.db")
    open_client(tracking_uri(storage / name)).search_experiments()
    assert [each.name for each in storage.iterdir()] == [name]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_reported(storage):
    storage.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(TrackingError, match="cannot be made"):
        make_database(storage / "mlflow" / "mlflow.db")


def test_a_file_in_place_of_the_folder_is_reported(storage):
    (storage / "mlflow").write_text("")
    with pytest.raises(TrackingError, match=r"mlflow\.db cannot be made"):
        make_database(storage / "mlflow" / "mlflow.db")


def test_two_drivers_make_one_experiment():
    """Another driver makes the experiment between the look and the making."""
    fake, lines = FakeMlflow(), []
    get, answers = fake.get_experiment_by_name, [None]
    fake.get_experiment_by_name = lambda name: answers.pop() if answers else get(name)
    theirs = FakeMlflow.create_experiment(fake, "lola/euler")
    answers.append(None)
    assert open_experiment(fake, "http://fake", "lola/euler", lines.append) == theirs
    assert not lines


def test_an_experiment_that_was_deleted_is_restored_with_a_message():
    fake, lines = FakeMlflow(), []
    key = open_experiment(fake, "http://fake", "lola/euler", lines.append)
    fake.delete_experiment(key)
    assert open_experiment(fake, "http://fake", "lola/euler", lines.append) == key
    assert fake.experiments[key].lifecycle_stage == "active"
    assert lines == ["MLflow's experiment lola/euler had been deleted; it is restored with its runs"]


def test_a_database_takes_the_mode_of_the_umask(tmp_path):
    before = os.umask(0o002)
    try:
        make_database(tmp_path / "mlflow.db")
    finally:
        os.umask(before)
    assert (tmp_path / "mlflow.db").stat().st_mode & 0o777 == 0o664
