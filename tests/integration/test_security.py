"""Servers that ask who is there, and secrets that stay where they were put."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from planted import SECRETS, command_lines, holders

from lola.core.errors import TrackingError
from lola.storage.event_log import EventLog
from lola.storage.tracking import Tracker, fetch_model

ROOT = Path(__file__).parents[2]
DRIVER = """
import json, sys
import ray
from lola.distributed.cluster.connection import connect
connect(lambda text: None)
assert ray.get(ray.remote(lambda: 1).remote()) == 1
node = ray._private.worker.global_worker.node
print(json.dumps({"dashboard": node.address_info["webui_url"], "session": node.get_session_dir_path()}))
sys.stdout.flush()
sys.stdin.read()
"""
pytestmark = pytest.mark.slow


def environment(**changes: str) -> dict[str, str]:
    dropped = ("MLFLOW_", "RAY_", "AWS_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return kept | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])} | changes


def status(url: str, token: str = "") -> int:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def wait_until(condition: Callable[[], bool], process: subprocess.Popen, seconds: float = 900) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the process ended"
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.2)


@pytest.fixture
def short(tmp_path) -> Iterator[Path]:
    """A folder with a short name, which sockets need."""
    folder = Path(tempfile.mkdtemp(prefix="lola"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_an_embedded_cluster_asks_for_its_token_and_shows_no_secret(tmp_path, short):
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER],
        env=environment(HOME=str(tmp_path), RAY_TMPDIR=str(short), **SECRETS),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        addresses = json.loads(driver.stdout.readline())
        file = tmp_path / ".ray" / "auth_token"
        token = file.read_text()
        assert len(token) >= 32
        assert file.stat().st_mode & 0o777 == 0o600
        assert file.parent.stat().st_mode & 0o777 == 0o700
        jobs = f"http://{addresses['dashboard']}/api/jobs/"
        assert addresses["dashboard"].startswith("127.0.0.1:")
        assert status(jobs) == 401
        assert status(jobs, "0" * len(token)) in (401, 403)
        assert status(jobs, token) == 200
        processes = command_lines()
        assert str(short) in processes  # those of this cluster are among them
        secrets = [token, *SECRETS.values()]
        assert not any(secret in processes for secret in secrets)
        session = Path(addresses["session"])
        assert len(list(session.rglob("*.log"))) > 5
        assert holders(session, secrets) == []
    finally:
        driver.communicate(timeout=60)
    assert driver.returncode == 0


@pytest.fixture
def server(tmp_path) -> Iterator[str]:
    """MLflow as the clusters start it, its administrator from a file."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    credentials = tmp_path / ".mlflow" / "credentials"
    credentials.parent.mkdir(mode=0o700)
    credentials.write_text(
        "[mlflow]\nmlflow_tracking_username = lola\n"
        f"mlflow_tracking_password = {SECRETS['MLFLOW_TRACKING_PASSWORD']}\n"
    )
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen(
            [str(ROOT / "cluster" / "start_mlflow.sh")],
            env=environment(HOME=str(tmp_path), LOLA_MLFLOW_PORT=str(port), PATH=path),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(lambda: status(f"http://127.0.0.1:{port}/health") == 200, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=60)


@pytest.mark.filterwarnings("ignore")
def test_a_server_with_passwords_takes_runs_of_those_who_know_one(tmp_path, server, monkeypatch):
    storage = tmp_path / "storage"
    stage = storage / "stage"
    monkeypatch.setenv("HOME", str(storage))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "120")  # of a busy machine
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "lola")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "guessed-wrongly")
    with pytest.raises(TrackingError, match="refuses this user; set MLFLOW_TRACKING_USERNAME"):
        Tracker(storage, "euler")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRETS["MLFLOW_TRACKING_PASSWORD"])
    tracker = Tracker(storage, "euler")
    tracker.start_sweep("sweep", "f" * 64, {"system": "euler"})
    tracker.follow(stage, "a" * 64)
    event_log = EventLog(stage)
    event_log.describe(name="autoencoder", tags={"model": "autoencoder"}, parameters={"compression": 20})
    event_log.metrics(10, {"train/loss": 0.5})
    for name in ("model.safetensors", "manifest.json"):
        (stage / name).write_text(name)
    event_log.model(stage / "model.safetensors", "euler-autoencoder")
    event_log.status("FINISHED")
    tracker.finish_sweep(None, "FINISHED")
    runs = {run.info.run_name: run for run in tracker.client.search_runs([tracker.experiment])}
    assert runs["autoencoder"].data.metrics == {"train/loss": 0.5}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    (tmp_path / "fetched").mkdir()
    found = fetch_model(storage, "euler-autoencoder", tmp_path / "fetched")
    assert (found / "model.safetensors").read_text() == "model.safetensors"
    secret = SECRETS["MLFLOW_TRACKING_PASSWORD"]
    assert secret not in command_lines()
    assert holders(tmp_path, [secret]) == [str(tmp_path / ".mlflow" / "credentials")]
    served = tmp_path / ".mlflow" / "server"
    assert all(path.stat().st_mode & 0o077 == 0 for path in served.rglob("*"))
