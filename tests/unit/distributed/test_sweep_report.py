import pytest

from lola.distributed import sweep_report
from lola.distributed.plan import Plan


@pytest.mark.parametrize("contexts", [(), (2, 3)])
def test_an_emulator_is_timed_once_whatever_the_contexts(sweep, tmp_path, well, monkeypatch, contexts):
    plan = Plan(sweep.replace(contexts=contexts), tmp_path, well)
    monkeypatch.setattr(sweep_report, "_timing", lambda trial: trial.name)
    monkeypatch.setattr(sweep_report, "_simulator", lambda plan: ["simulator"])
    one = Plan(sweep, tmp_path, well)
    emulators = [trial.name for trial in one.evaluations if trial.steps[0].stage.config.subject == "emulator"]
    assert len(emulators) > 1
    assert list(sweep_report._timings(plan)) == ["simulator", *emulators]
