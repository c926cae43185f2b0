"""What a run says before it starts."""

from types import SimpleNamespace

import pytest

from lola.emulation.cache_config import CacheConfig
from lola.training.config import TrainingConfig
from lola.workflows import run


@pytest.fixture
def settings():
    half = TrainingConfig(steps=1, precision="bfloat16")
    return SimpleNamespace(
        system="euler",
        autoencoder_training=half,
        emulator_training=half.replace(gpus=1, workers=8),
        pixel_training=TrainingConfig(steps=1),
        cache=CacheConfig(precision="bfloat16"),
    )


@pytest.mark.parametrize("emulated", [True, False])
def test_options_that_a_processor_would_emulate_are_named(settings, monkeypatch, emulated):
    monkeypatch.setattr(run, "emulates_bfloat16", lambda: emulated)
    named = ["--autoencoder-training.precision", "--cache.precision"]
    assert run.emulated_options(settings) == (named if emulated else [])


def test_nothing_is_measured_where_no_option_asks_for_it(settings, monkeypatch):
    monkeypatch.setattr(run, "emulates_bfloat16", lambda: pytest.fail("measured"))
    settings.autoencoder_training = settings.pixel_training
    settings.cache = CacheConfig()
    assert run.emulated_options(settings) == []
