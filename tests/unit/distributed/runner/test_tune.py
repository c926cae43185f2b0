"""A node that runs out of memory kills the processes of trials; what they make is then begun again."""

from types import SimpleNamespace

import pytest
import ray
from ray.exceptions import OutOfMemoryError
from ray.train.v2.api.exceptions import WorkerGroupError

from lola.core.errors import LolaError
from lola.distributed.cluster.causes import failure_reason
from lola.distributed.runner import tune
from lola.distributed.trials import format_error


class Trial(SimpleNamespace):
    steps = ()
    ready = True


@pytest.fixture
def experiments(monkeypatch):
    """What each experiment of Ray Tune was given, and what it does."""
    given, acts = [], []

    class Tuner:
        def __init__(self, *_, tune_config, run_config):
            self.trials = list(tune_config.search_alg.waiting.values())

        def fit(self):
            given.append([trial.name for trial in self.trials])
            return acts.pop(0)(self.trials)

    monkeypatch.setattr(tune.tune, "Tuner", Tuner)
    monkeypatch.setattr(tune.ray, "put", lambda value: value)
    monkeypatch.setattr(tune.tune, "with_parameters", lambda function, **_: function)
    monkeypatch.setattr(tune.tune, "with_resources", lambda function, _: function)
    return given, acts


def finish(trials):
    for trial in trials:
        trial.finished = True
    return SimpleNamespace(errors=[])


def run_out(trials):
    """Finish the first, and end as Ray Tune does when a node kills the second."""
    trials[0].finished = True
    raise RuntimeError("Caught unexpected exception") from OutOfMemoryError("memory ran low")


def test_trials_that_are_killed_for_memory_start_again(experiments, tmp_path):
    given, acts = experiments
    acts += [run_out, finish]
    trials = [Trial(name=name, finished=False) for name in "abc"]
    assert tune.run_trials(trials, tmp_path / "tune") == {}
    assert given == [["a", "b", "c"], ["b", "c"]]


def test_memory_that_runs_out_again_and_again_is_one_clear_error(experiments, tmp_path):
    given, acts = experiments
    acts += [run_out] * tune.MAX_STARTS
    trials = [Trial(name=str(i), finished=False) for i in range(2 * tune.MAX_STARTS)]
    with pytest.raises(LolaError, match=r"a node ran out of memory.*--concurrency"):
        tune.run_trials(trials, tmp_path / "tune")
    assert len(given) == tune.MAX_STARTS


def test_the_last_line_of_a_stage_that_ran_out_of_memory_says_so():
    killed = OutOfMemoryError("Task was killed due to the node running low on memory.\nRefer to the manual")
    error = LolaError("training failed")
    error.__cause__ = WorkerGroupError("1 worker failed", {0: ray.exceptions.RayTaskError("f", "", killed)})
    assert failure_reason(error).startswith("a node ran out of memory; ")
    assert format_error(error).splitlines()[-1] == failure_reason(error)
    assert failure_reason(ValueError("the node running low on memory")).startswith("ValueError: the node")
    assert failure_reason(LolaError("no data")) == "no data"
    assert failure_reason(ValueError("shape")) == "ValueError: shape"
    assert format_error(ValueError("shape")).splitlines()[-1] == "ValueError: shape"


def test_other_errors_are_not_swallowed(experiments, tmp_path):
    _, acts = experiments

    def fail(trials):
        raise RuntimeError("a bug")

    acts += [fail]
    with pytest.raises(RuntimeError, match="a bug"):
        tune.run_trials([Trial(name="a", finished=False)], tmp_path / "tune")
