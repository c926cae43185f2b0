"""The smoke sweep as a process of its own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from planted import SECRETS

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, str(ROOT / "experiments" / "sweep_compression.py"), "smoke"]


def start(storage: Path, *options: str, **variables: str) -> subprocess.Popen:
    """Start the sweep, with more variables of the environment."""
    environment = {**os.environ, **SECRETS, **variables, "LOLA_STORAGE": str(storage)}
    environment["PYTHONWARNINGS"] = "default"
    environment.pop("MLFLOW_TRACKING_URI", None)
    return subprocess.Popen(
        [*COMMAND, *options],
        env=environment,
        cwd=storage,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen, seconds: float = 400) -> str:
    """What a sweep printed, once it has ended."""
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        pytest.fail(f"the sweep did not end in {seconds} s:\n{output[-4000:]}")
    return output
