"""Tests on a GPU: where there is none they are skipped; `README.md` says how to run and read them."""

import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from lane import DEVICE, REHEARSAL, Record

HERE = Path(__file__).parent
LATE = ("compiled", "graphs")
"""Words in the names of slow tests, which run last, in this order."""
LIMIT_S = float(os.environ.get("LOLA_GPU_SECONDS", "inf"))
"""Tests that have not begun by then are skipped, so that a limited run ends with its record."""

record_of_session = Record()
started = time.monotonic()


def run_order(item: pytest.Item) -> int:
    """The rank of a test in `LATE`; 0 for tests that run first."""
    return max((place for place, word in enumerate(LATE, 1) if word in item.name), default=0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder, skip them where there is no GPU, and put those that compile last."""
    own = [i for i, item in enumerate(items) if HERE in item.path.parents]
    for i in own:
        items[i].add_marker(pytest.mark.gpu)
        items[i].add_marker(pytest.mark.filterwarnings("default"))
        if not REHEARSAL and not torch.cuda.is_available():
            items[i].add_marker(pytest.mark.skip(reason="no CUDA device"))
        elif REHEARSAL and items[i].get_closest_marker("cuda"):
            items[i].add_marker(pytest.mark.skip(reason="only a GPU can show it"))
    ordered = sorted((items[i] for i in own), key=run_order)
    for i, item in zip(own, ordered, strict=True):
        items[i] = item


@pytest.fixture
def device() -> torch.device:
    return DEVICE


@pytest.fixture
def record() -> Record:
    return record_of_session


@pytest.fixture(autouse=True)
def _exact() -> Iterator[None]:
    """Products and convolutions in float32 are in float32, without TF32; nothing compiled is left behind."""
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn)
    if time.monotonic() - started > LIMIT_S:
        pytest.skip(f"{LIMIT_S:g} seconds are over")
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = False
    yield
    for backend, value in zip(backends, before, strict=True):
        backend.allow_tf32 = value
    torch._dynamo.reset()
    if DEVICE.type == "cuda":
        torch.cuda.empty_cache()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was compared, and on what machine."""
    lines = list(record_of_session.lines())
    if not lines:
        return
    name = torch.cuda.get_device_name(DEVICE) if DEVICE.type == "cuda" else "CPU (a rehearsal)"
    versions = {"torch": torch.__version__, "CUDA": torch.version.cuda, "Python": platform.python_version()}
    if DEVICE.type == "cuda":
        versions["cuDNN"] = torch.backends.cudnn.version()
    terminalreporter.section("GPU against CPU")
    terminalreporter.write_line(f"{name}; " + ", ".join(f"{key} {value}" for key, value in versions.items()))
    for line in lines:
        terminalreporter.write_line(line)
