"""What several tests need: a small dataset, and a browser."""

from pathlib import Path

import pytest
from browser import chromium
from waves import write_dataset


@pytest.fixture(scope="session")
def well(tmp_path_factory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("well"))


@pytest.fixture(scope="session")
def browser():
    with chromium() as browser:
        yield browser
