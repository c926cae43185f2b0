"""The smoke sweep, and other programs, as processes of their own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from planted import SECRETS

from lola.storage.remote import AnyPath

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, str(ROOT / "experiments" / "sweep_compression.py"), "smoke"]


def launch(command: list[str], storage: Path, **variables: str) -> subprocess.Popen:
    """Start a program on a storage root, in a session of its own, with more variables of the environment."""
    inherited = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    return subprocess.Popen(
        command,
        env={**inherited, "LOLA_STORAGE": str(storage), **variables},
        cwd=storage,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def start(storage: Path, *options: str, **variables: str) -> subprocess.Popen:
    """Start the sweep, with secrets and more variables in its environment."""
    return launch([*COMMAND, *options], storage, **(SECRETS | {"PYTHONWARNINGS": "default"} | variables))


def finish(process: subprocess.Popen, seconds: float = 900) -> str:
    """What a program printed, once it has ended."""
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        pytest.fail(f"the program did not end in {seconds} s:\n{output[-4000:]}")
    return output


def kill_when(
    process: subprocess.Popen, condition: Callable[[], bool], seconds: float = 600, pause: float = 0.02
) -> None:
    """Kill the driver alone, as kill -9 of a person would, once the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"the moment to kill never came:\n{finish(process)[-4000:]}")
        time.sleep(pause)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()


def metrics(storage: AnyPath) -> dict:
    """All values, by everything that names them."""
    (path,) = storage.glob("reports/*/metrics.parquet")
    with path.open("rb") as file:
        table = pq.read_table(file)
    return {
        tuple(row.values()): value
        for row, value in zip(
            table.drop_columns(["value"]).to_pylist(), table["value"].to_pylist(), strict=True
        )
    }
