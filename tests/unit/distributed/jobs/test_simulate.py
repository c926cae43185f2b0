"""What is there already is kept, refused or left alone, before anything is simulated."""

import pytest

from lola.core.errors import DataError, LolaError
from lola.distributed.jobs.simulate import simulate
from lola.simulate.euler import EulerConfig
from lola.simulate.simulation import jobs, write_file

SMALL = EulerConfig(resolution=16, gammas=(1.4,), train=1, valid=1, test=1, outputs=2, end=0.1)


def make(root):
    for job in jobs(SMALL):
        write_file(job, SMALL, root / job.path)
    return [root / job.path for job in jobs(SMALL)]


def refuse(line):
    raise AssertionError(f"started to work: {line}")


def test_genuine_datasets_are_left_alone(well):
    assert simulate(SMALL, well, refuse) == 0


def test_files_of_another_simulation_are_refused(tmp_path):
    make(tmp_path)
    with pytest.raises(DataError, match="was not made by this simulation"):
        simulate(SMALL.replace(seed=1), tmp_path, refuse)


def test_a_torn_file_is_named(tmp_path):
    path = make(tmp_path)[-1]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=rf"{path.name} is torn"):
        simulate(SMALL, tmp_path, refuse)


def test_files_that_are_there_are_kept(tmp_path):
    before = {path: path.stat().st_mtime_ns for path in make(tmp_path)}
    assert simulate(SMALL, tmp_path, refuse) == 0
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert (tmp_path / "euler_multi_quadrants_openBC" / "stats.yaml").exists()


def test_a_missing_solver_is_told_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(EulerConfig, "needs", ("no_such_solver", "simulate-it"))
    with pytest.raises(
        LolaError, match=r"simulating euler needs no_such_solver; pip install 'lola\[simulate-it\]'"
    ):
        simulate(SMALL, tmp_path, refuse)
