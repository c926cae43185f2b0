import itertools
import random
import time

import pytest

from lola.core.errors import ConfigError
from lola.core.makespan import Task, critical_path, makespan


def task(name, seconds, *needs, **takes):
    return Task(name, seconds, frozenset(needs), takes or {"gpu": 1})


def test_makespan_of_a_small_sweep():
    """Two autoencoders of 10 s, each before two emulators of 4 s, and something that waits for nothing."""
    tasks = [task("a", 10), task("b", 10), task("pixel", 7)]
    tasks += [task(f"{model}{i}", 4, model) for model in "ab" for i in range(2)]
    assert makespan(tasks, {"gpu": 1}) == 10 + 10 + 7 + 4 * 4
    assert makespan(tasks, {"gpu": 2}) == 10 + 4 + 4 + 4  # the four run next to the pixels' 7
    assert makespan(tasks, {"gpu": 3}) == 10 + 4 + 4
    assert makespan(tasks, {"gpu": 5}) == critical_path(tasks) == 14


def test_a_task_waits_for_enough_of_everything_and_lets_smaller_ones_go_first():
    tasks = [task("small", 3, gpu=1), task("wide", 5, gpu=4), task("fits", 2, gpu=3), task("data", 1, cpu=2)]
    assert makespan(tasks, {"gpu": 4, "cpu": 2}) == 3 + 5
    assert makespan(tasks, {"gpu": 8, "cpu": 2}) == 5


def test_who_needs_a_name_needs_all_tasks_of_that_name():
    parts = [task("parts", seconds) for seconds in (1, 2, 6)]
    assert makespan([*parts, task("join", 1, "parts", "finished long ago")], {"gpu": 3}) == 7


def test_makespan_is_within_grahams_bound():
    draw = random.Random(0)
    for _ in range(50):
        tasks: list[Task] = []
        for i in range(draw.randrange(1, 30)):
            needs = draw.sample([each.name for each in tasks], draw.randrange(min(3, len(tasks) + 1)))
            tasks.append(task(str(i), draw.random(), *needs))
        gpus = draw.randrange(1, 6)
        work, path = sum(each.seconds for each in tasks), critical_path(tasks)
        found = makespan(tasks, {"gpu": gpus})
        assert max(work / gpus, path) - 1e-9 <= found <= work / gpus + (1 - 1 / gpus) * path + 1e-9


def test_tasks_that_never_fit_or_never_start_are_refused():
    with pytest.raises(ConfigError, match="wide needs 8 gpu, but the cluster has 4"):
        makespan([task("wide", 1, gpu=8)], {"gpu": 4})
    with pytest.raises(ValueError, match="2 tasks wait"):
        makespan([task("a", 1, "b"), task("b", 1, "a")], {"gpu": 1})


def test_ten_thousand_trials_are_planned_in_a_moment():
    names = itertools.cycle(f"autoencoder {i}" for i in range(100))
    tasks = [task(f"autoencoder {i}", 100, gpu=8) for i in range(100)]
    tasks += [task(f"emulator {i}", 10, next(names), gpu=1) for i in range(10_000)]
    started = time.perf_counter()
    found = makespan(tasks, {"gpu": 64})
    assert time.perf_counter() - started < 5
    assert found >= (100 * 800 + 10_000 * 10) / 64
