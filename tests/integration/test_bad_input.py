"""Whatever a person gets wrong ends in one line that names it, and leaves nothing half-written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SWEEP = ROOT / "experiments" / "sweep_compression.py"


def run(storage: Path | str, *options: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(SWEEP), "smoke", *options],
        env={**os.environ, "LOLA_STORAGE": str(storage), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--bogus", "3"), "bogus"),
        (("--solver-steps", "many"), "solver-steps"),
        (("--latent-channels", "0"), "latent channels must be positive"),
        (("--evaluation.context", "5"), "context of 5"),
        (("--emulator-training.batch-size", "0"), "batch size"),
        (("--system", "venus"), "venus"),
    ],
)
def test_bad_options(tmp_path, options, message):
    result = run(tmp_path, *options)
    assert result.returncode == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_preset(tmp_path):
    result = subprocess.run([sys.executable, str(SWEEP), "huge"], capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert "no preset is called 'huge'" in result.stderr


def test_storage_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    result = run(tmp_path / "file")
    assert result.returncode == 1
    (line,) = result.stderr.strip().splitlines()
    assert "cannot be written" in line
    assert "--storage" in line


def test_a_tracking_server_that_does_not_answer(tmp_path):
    result = run(tmp_path, MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert result.returncode == 1
    line = result.stderr.strip().splitlines()[-1]
    assert "MLflow at http://127.0.0.1:9 does not answer" in line
    assert not list(tmp_path.glob("well-smoke"))


def test_help_names_presets_and_options():
    result = subprocess.run(
        [sys.executable, str(SWEEP), "--help"], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0
    for word in ("mini (default), smoke", "--latent-channels", "--storage", "Sampler steps"):
        assert word in result.stdout
