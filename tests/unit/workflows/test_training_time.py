"""How long models were trained, from the records of their stages."""

import json

import pytest

from lola.storage.event_log import EventLog
from lola.storage.stages import SCHEMA_VERSION
from lola.workflows.training_time import PER_STEP, training_seconds


@pytest.fixture
def finished(tmp_path):
    def make(name, rates, **manifest):
        folder = tmp_path / name
        folder.mkdir()
        log = EventLog(folder)
        for step, seconds in rates:
            log.metrics(step, {PER_STEP: seconds, "valid/loss": 1.0})
        (folder / "manifest.json").write_text(json.dumps({"schema": SCHEMA_VERSION} | manifest))
        return folder

    return make


def test_steps_that_were_done_twice_count_once(finished):
    folder = finished("solver", [(10, 1.0), (20, 5.0), (20, 2.0), (30, 3.0)])
    assert training_seconds(folder) == 10 + 20 + 30


def test_what_a_model_started_from_counts(finished):
    finished("first", [(100, 1.0)])
    finished("second", [(10, 2.0)], warm_start="first")
    assert training_seconds(finished("third", [(5, 1.0)], warm_start="second")) == 100 + 20 + 5
    assert training_seconds(finished("lost", [(5, 1.0)], warm_start="elsewhere")) is None
    assert training_seconds(finished("unrecorded", [])) is None
