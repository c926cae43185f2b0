"""What several tests need: a small dataset, an object store, and a browser."""

import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from browser import chromium
from objectstore import serve
from upath import UPath
from waves import write_dataset

from lola.storage.stages import resolve_storage


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Keep in one process the tests of a file, and all of the files that share the undisturbed sweep."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            text = (config.rootpath / file).read_text()
            return "sweep" if re.search(r"\(.*(undisturbed|prometheus)\b.*\):", text) else file

    return Scheduling(config, log)


def pytest_collection_modifyitems(items):
    """Start with what takes longest."""

    def rank(item):
        return 0 if "undisturbed" in item.fixturenames else 1 if item.get_closest_marker("slow") else 2

    items.sort(key=rank)


@pytest.fixture(scope="session")
def well(tmp_path_factory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("well"))


@pytest.fixture(scope="session")
def object_store() -> Iterator[str]:
    """The address of a server of the S3 protocol."""
    with serve() as address:
        yield address


@pytest.fixture(scope="session")
def mlflow_database(tmp_path_factory) -> Path:
    """A database of MLflow's without runs, to be copied: making one takes seconds."""
    from lola.storage.tracking.server import make_database

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        make_database(path)
    return path


@pytest.fixture
def memory_root(tmp_path, monkeypatch) -> Iterator[UPath]:
    """A storage root that is no folder, in this process alone."""
    monkeypatch.setenv("LOLA_CACHE", str(tmp_path / "cache"))
    yield resolve_storage(f"memory://{tmp_path.name}/lola")
    fsspec.filesystem("memory").store.clear()


@pytest.fixture(scope="session")
def browser():
    with chromium() as browser:
        yield browser
