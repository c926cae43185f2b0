"""The smoke sweep as a process of its own."""

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

from lola.remote import AnyPath

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, str(ROOT / "experiments" / "sweep_compression.py"), "smoke"]


def start(storage: Path, *options: str, **variables: str) -> subprocess.Popen:
    """Start the sweep, with more variables of the environment."""
    inherited = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    environment = {**inherited, **SECRETS, "LOLA_STORAGE": str(storage), **variables}
    environment["PYTHONWARNINGS"] = "default"
    return subprocess.Popen(
        [*COMMAND, *options],
        env=environment,
        cwd=storage,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen, seconds: float = 900) -> str:
    """What a sweep printed, once it has ended."""
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        pytest.fail(f"the sweep did not end in {seconds} s:\n{output[-4000:]}")
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
