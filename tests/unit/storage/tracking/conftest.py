"""A database and a server of MLflow's."""

import shutil

import pytest
from fakemlflow import FakeMlflow, Unreliable


@pytest.fixture
def storage(tmp_path, monkeypatch, mlflow_database):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "mlflow").mkdir()
    shutil.copyfile(mlflow_database, tmp_path / "mlflow" / "mlflow.db")
    return tmp_path


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A server in memory."""
    fake = FakeMlflow()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://fake")
    monkeypatch.setattr("lola.storage.tracking.tracker.open_client", lambda uri: Unreliable(fake))
    for name in ("SHORTEST_PAUSE_S", "LONGEST_PAUSE_S", "ENDING_S"):
        monkeypatch.setattr(f"lola.storage.tracking.tracker.{name}", 0.0)
    return fake
