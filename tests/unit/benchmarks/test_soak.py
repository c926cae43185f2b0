"""What the soak test would notice: other values, other rows, leftovers, a job that fails."""

import math
import random
import sys

import pytest
from benchmarks.soak import SweepProcess, kill_one, largest_difference, sort_of

from lola.core.errors import LolaError


def test_tables_are_compared_value_by_value():
    expected = {("a",): 1.0, ("b",): math.nan}
    assert largest_difference(expected, {("a",): 1.0 + 1e-7, ("b",): math.nan}, 1e-5) == pytest.approx(
        1e-7, rel=1e-3
    )
    with pytest.raises(LolaError, match=r"1\.1 is not 1\.0"):
        largest_difference(expected, {("a",): 1.1, ("b",): math.nan}, 1e-5)
    with pytest.raises(LolaError, match="is not nan"):
        largest_difference(expected, {("a",): 1.0, ("b",): 2.0}, 1e-5)
    with pytest.raises(LolaError, match="nan is not"):
        largest_difference(expected, {("a",): math.nan, ("b",): math.nan}, 1e-5)
    with pytest.raises(LolaError, match="other rows"):
        largest_difference(expected, {("a",): 1.0}, 1e-5)


def test_a_job_knows_its_processes_and_one_is_killed(tmp_path):
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    job = SweepProcess([sys.executable, "-c", child], tmp_path)
    job.start()
    while len(members := job.watch(0.3)) < 2:
        assert not job.ended()
    assert members[job.process.pid] == "driver"
    victim = next(pid for pid in members if pid != job.process.pid)
    kill_one({victim: "child"}, random.Random(0))
    job.watch(30)
    assert job.ended()
    job.clear(members)
    (tmp_path / "storage" / "left").write_text("")
    with pytest.raises(LolaError, match="belong to nothing"):
        job.checked()


def test_a_job_that_fails_is_reported(tmp_path):
    job = SweepProcess([sys.executable, "-c", "raise SystemExit(3)"], tmp_path)
    job.start()
    job.process.wait(30)
    with pytest.raises(LolaError, match="did not end well"):
        job.checked()


@pytest.mark.parametrize(
    ("what", "sort"),
    [
        ("driver", "driver"),
        ("raylet", "raylet"),
        ("ray::RayTrainWorker", "worker"),
        ("ray::_evaluate()", "worker"),
        ("ray::DashboardAgent", "service"),
        ("gcs_server", "service"),
        ("monitor.py", "service"),
    ],
)
def test_processes_are_distinguished(what, sort):
    assert sort_of(what) == sort
