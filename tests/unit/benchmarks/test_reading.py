import json

import pytest
from benchmarks.configs import ReadingBenchmark
from benchmarks.paper import MODELS
from benchmarks.reading import Demand, reading_table, run_reading_benchmark, share_waiting

from lola.core.errors import ConfigError


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize(("step", "batch"), [(1.0, 0.5), (1.0, 2.0), (1.0, 8.0), (0.1, 8.0)])
def test_without_variation_the_share_of_waiting_is_what_threads_lack(threads, step, batch):
    found = share_waiting(step, batch, threads, 4000)
    assert found == pytest.approx(max(0.0, 1 - threads * step / batch), abs=0.01)


def test_variation_makes_steps_wait_where_threads_are_just_enough():
    assert share_waiting(1.0, 4.0, 4, 4000) < 0.01
    assert 0.01 < share_waiting(1.0, 4.0, 4, 4000, spread=0.3) < 0.2
    assert share_waiting(1.0, 1.0, 4, 4000, spread=0.3) < 0.01


def test_a_node_s_demand_is_the_share_of_its_gpus():
    trained = MODELS["euler neural_solver pixel"]  # 256 windows a step on 16 GPUs
    found = Demand.of(trained, step=2.0, core=1e9)
    size = 4 * 5 * 5 * 512 * 512
    assert found.samples == 64
    assert found.bytes == 64 * size
    assert found.cores == pytest.approx(64 * size / 1e9)
    assert found.waiting < 0.01  # 4 threads make a batch of 16 in 0.1 s


def test_a_core_is_measured_and_every_training_compared():
    config = ReadingBenchmark(gigabytes=0.001, cells=8, steps=24, trajectories=12, rounds=1, threads=0)
    result = run_reading_benchmark(config, lambda name: None)
    assert json.loads(json.dumps(result)) == result
    assert set(result["core"]) == {"states", "windows", "latents"}
    assert min(result["core"].values()) > 0
    assert set(result["trainings"]) == set(MODELS)
    text = reading_table(result)
    assert "of peak performance (" in text
    assert text.count("\n| ") == len(MODELS) + 1


def test_windows_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="--window 5 takes 17 --steps, not 16"):
        ReadingBenchmark(steps=16)
