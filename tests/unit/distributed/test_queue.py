"""Trials start in their order, each once its needs are finished."""

from ray.tune.search import Searcher

from lola.config import Config
from lola.distributed.queue import TrialQueue
from lola.distributed.sweep import Step, Trial
from lola.storage import Stage


def trial(root, name, *needs):
    stage = Stage(root=root, kind="emulators", system="euler", what=name, config=Config(), inputs={})
    return Trial(name, (Step(stage, stage.commit, {}, 1),), tuple(each.steps[0].stage for each in needs))


def test_what_is_ready_starts_and_what_can_never_be_ends_the_queue(tmp_path):
    first, second = trial(tmp_path, "first"), trial(tmp_path, "second")
    after_first, after_second = trial(tmp_path, "a", first), trial(tmp_path, "b", second)
    queue = TrialQueue([first, after_first, second, after_second])
    assert queue.suggest("1") == {"trial": "first"}
    assert queue.suggest("2") == {"trial": "second"}
    assert queue.suggest("3") is None
    second.steps[0].run()
    assert queue.suggest("3") == {"trial": "b"}
    queue.on_trial_complete("2")
    queue.on_trial_complete("3")
    assert queue.suggest("4") is None
    queue.on_trial_complete("1", error=True)
    assert queue.suggest("4") == Searcher.FINISHED
    assert queue.waiting == [after_first]


def test_an_empty_queue_is_finished_while_the_last_trial_runs(tmp_path):
    queue = TrialQueue([trial(tmp_path, "only")])
    queue.suggest("1")
    assert queue.suggest("2") == Searcher.FINISHED
