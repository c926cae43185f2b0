"""What several tests need: a small dataset, an object store, and a browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import chromium
from objectstore import serve
from waves import write_dataset


@pytest.fixture(scope="session")
def well(tmp_path_factory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("well"))


@pytest.fixture(scope="session")
def object_store() -> Iterator[str]:
    """The address of a server of the S3 protocol."""
    with serve() as address:
        yield address


@pytest.fixture(scope="session")
def browser():
    with chromium() as browser:
        yield browser
