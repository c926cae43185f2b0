from pathlib import Path

import pytest
from inline import Inline, run_inline
from stages import finish_autoencoder, small_sweep

from lola.storage.stages import Stage
from lola.workflows.sweep import SweepConfig


@pytest.fixture
def sweep() -> SweepConfig:
    return small_sweep()


@pytest.fixture
def autoencoder(tmp_path: Path, well: Path) -> Stage:
    return finish_autoencoder(tmp_path, well)


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> Inline:
    """Two workers whose tasks run inline."""
    return run_inline(monkeypatch)
