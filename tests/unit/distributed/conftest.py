from pathlib import Path

import pytest
from stages import finish_autoencoder, small_sweep

from lola.distributed.sweep import SweepConfig
from lola.storage import Stage


@pytest.fixture
def sweep() -> SweepConfig:
    return small_sweep()


@pytest.fixture
def autoencoder(tmp_path: Path, well: Path) -> Stage:
    return finish_autoencoder(tmp_path, well)
