"""The undisturbed smoke sweep, which several tests look at, watched by Prometheus where it is installed."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from scrape import Prometheus
from sweeps import finish, start


@pytest.fixture(scope="session")
def ray_folder() -> Iterator[Path]:
    """A short path for Ray's sockets."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def watcher(tmp_path_factory, ray_folder) -> Iterator[Prometheus | None]:
    """Prometheus, before the sweep starts."""
    if not shutil.which("prometheus"):
        yield None
        return
    nodes = ray_folder / "ray" / "prom_metrics_service_discovery.json"
    server = Prometheus(tmp_path_factory.mktemp("prometheus"), nodes)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory, ray_folder, watcher) -> tuple[Path, str]:
    """The storage of a finished smoke sweep, and what it printed."""
    storage = tmp_path_factory.mktemp("undisturbed")
    process = start(storage, RAY_TMPDIR=str(ray_folder), RAY_metrics_report_interval_ms="2000")
    output = finish(process)
    assert process.returncode == 0, output[-4000:]
    return storage, output


@pytest.fixture
def prometheus(watcher, undisturbed) -> Prometheus:
    """Prometheus, after the sweep."""
    if watcher is None:
        pytest.skip("Prometheus is not installed: on Debian, apt-get install prometheus")
    return watcher
