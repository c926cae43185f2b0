"""The parts of an evaluation, with tasks that run where they are called."""

import pyarrow.parquet as pq
import pytest
from stages import small_sweep

from lola.distributed import evaluate
from lola.distributed.plan import Plan
from lola.errors import DataError, LolaError


@pytest.fixture
def step(tmp_path, well):
    config = small_sweep()
    evaluation = config.evaluation.replace(starts=(0, 3), trajectories=2)
    return Plan(config.replace(evaluation=evaluation), tmp_path, well).evaluations[0].steps[0]


def rows(step):
    return pq.read_table(step.stage.folder / "metrics.parquet")


def test_parts_are_shared_among_workers_and_joined(tasks, step):
    step.run()
    assert [len(parts) for parts in tasks.calls] == [2, 2]
    assert tasks.chosen["num_gpus"] == 0
    assert set(rows(step)["start"].to_pylist()) == {0, 3}
    assert len(set(rows(step)["trajectory"].to_pylist())) == 2
    assert step.stage.manifest()["rows"]["metrics"] == len(rows(step))
    examples = list((step.stage.folder / "parts").glob("*/example.npy"))
    assert len(examples) == 1
    assert (step.stage.folder / "example.npy").read_bytes() == examples[0].read_bytes()


def test_only_what_is_missing_is_computed(tasks, step):
    step.run()
    expected = rows(step)
    (step.stage.folder / "manifest.json").unlink()
    lost = sorted((step.stage.folder / "parts").iterdir())[1]
    lost.rename(step.stage.folder / "elsewhere")
    tasks.calls.clear()
    step.run()
    assert [[part.folder for part in parts] for parts in tasks.calls] == [[lost]]
    assert rows(step).equals(expected)


def test_a_fault_is_named_and_the_rest_is_kept(tasks, step, monkeypatch):
    genuine = evaluate.evaluate_trajectory

    def faulty(config, subject, split, index, start, **models):
        if start == 3:
            raise DataError("density holds -7")
        return genuine(config, subject, split, index, start, **models)

    monkeypatch.setattr(evaluate, "evaluate_trajectory", faulty)
    with pytest.raises(LolaError, match=r"2 of the tasks .*hdf5#. from state 3: density holds -7"):
        step.run()
    assert len(list((step.stage.folder / "parts").iterdir())) == 2
    assert not step.stage.finished
