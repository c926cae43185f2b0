"""An evaluation by Ray tasks: each trajectory and start once, resumed where it was left, faults named."""

import shutil

import h5py
import pyarrow.parquet as pq
import pytest
import ray
from stages import small_sweep
from waves import write_dataset

from lola.core.errors import LolaError
from lola.distributed.cluster.connection import connect
from lola.workflows.plan import SweepPlan

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def cluster():
    connect()
    yield
    ray.shutdown()


@pytest.fixture
def make(tmp_path):
    """The evaluation of persistence on some of four trajectories from two start states."""
    write_dataset(tmp_path / "well")

    def make(trajectories):
        config = small_sweep()
        evaluation = config.evaluation.replace(starts=(0, 3), trajectories=trajectories)
        plan = SweepPlan(config.replace(evaluation=evaluation), tmp_path, tmp_path / "well")
        return plan.evaluations[0].steps[0]

    return make


def rows(step):
    table = pq.read_table(step.stage.folder / "metrics.parquet").to_pandas()
    return table.sort_values(["trajectory", "start", "metric", "field", "lead_time"]).reset_index(drop=True)


def test_what_is_lost_is_computed_again_and_nothing_else(make):
    step = make(2)
    step.run()
    parts = sorted((step.stage.folder / "parts").iterdir())
    expected = rows(step)
    assert len(parts) == 4
    assert set(expected["start"]) == {0, 3}
    assert expected["trajectory"].nunique() == 2
    kept = {part: part.stat().st_ino for part in parts[1:]}
    shutil.rmtree(parts[0])
    (step.stage.folder / "manifest.json").unlink()
    step.run()
    assert {part: part.stat().st_ino for part in parts[1:]} == kept
    assert rows(step).equals(expected)
    assert step.stage.manifest()["rows"]["metrics"] == len(expected)


def test_a_fault_is_named_and_the_rest_is_kept(make, tmp_path):
    step = make(4)
    (file,) = (tmp_path / "well").glob("*openBC/data/test/*.hdf5")
    with h5py.File(file, "r+") as opened:
        opened["t0_fields/density"][...] = -7
    with pytest.raises(LolaError, match=f"{file.name}#. from state .: density holds -7"):
        step.run()
    assert len(list((step.stage.folder / "parts").iterdir())) == 4  # of the other file
    assert not step.stage.finished
