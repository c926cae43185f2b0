"""What is there already is kept, refused or left alone, before anything is simulated."""

import functools
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from lola.core.errors import DataError, LolaError
from lola.core.waiting import progress_reminder
from lola.distributed.jobs import simulate as simulation
from lola.distributed.jobs.simulate import simulate
from lola.simulate.euler import EulerConfig
from lola.simulate.simulation import simulation_jobs, write_file

SMALL = EulerConfig(resolution=16, gammas=(1.4,), train=1, valid=1, test=1, outputs=2, end=0.1)


def make(root):
    for job in simulation_jobs(SMALL):
        write_file(job, SMALL, root / job.path)
    return [root / job.path for job in simulation_jobs(SMALL)]


def refuse(line):
    raise AssertionError(f"started to work: {line}")


def test_genuine_datasets_are_left_alone(well):
    assert simulate(SMALL, well, refuse) == 0


def test_files_of_another_simulation_are_refused(tmp_path):
    make(tmp_path)
    with pytest.raises(DataError, match="was not made by this simulation"):
        simulate(SMALL.replace(seed=1), tmp_path, refuse)


def test_a_corrupt_file_is_named(tmp_path):
    path = make(tmp_path)[-1]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(
        DataError, match=rf"{path.name} cannot be opened .*truncated.* or delete it if it was simulated here"
    ):
        simulate(SMALL, tmp_path, refuse)


def test_existing_files_are_kept(tmp_path):
    before = {path: path.stat().st_mtime_ns for path in make(tmp_path)}
    assert simulate(SMALL, tmp_path, refuse) == 0
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert (tmp_path / "euler_multi_quadrants_openBC" / "stats.yaml").exists()


def test_a_missing_solver_is_an_error_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(EulerConfig, "needs", ("no_such_solver", "simulate-it"))
    with pytest.raises(
        LolaError, match=r"simulating euler needs no_such_solver; pip install 'lola\[simulate-it\]'"
    ):
        simulate(SMALL, tmp_path, refuse)


def test_sixty_files_are_a_line_every_15_seconds(tmp_path, monkeypatch):
    """A file of one trajectory ends every second."""
    now, lines = [0.0], []

    def wait(tasks, num_returns, timeout):
        now[0] += 1
        return tasks[:1], tasks[1:]

    fake = SimpleNamespace(wait=wait, get=lambda _: {"rejected": 0, "trajectories": 1})
    monkeypatch.setattr(simulation, "ray", fake)
    monkeypatch.setattr(simulation, "_simulate", SimpleNamespace(remote=lambda job, config, path: path))
    monkeypatch.setattr(simulation, "describe_pending", lambda title, request, at_least: "")
    for name in ("connect", "require_feasible", "cluster_resources", "write_statistics"):
        monkeypatch.setattr(simulation, name, lambda *_: None)
    clock = functools.partial(progress_reminder, clock=lambda: now[0])
    monkeypatch.setattr(simulation, "progress_reminder", clock)
    many = SMALL.replace(gammas=tuple(1.1 + 0.01 * i for i in range(10)))
    assert simulate(many, tmp_path, lines.append) == 60
    assert lines[1:-1] == [
        f"simulating: {done} of 60 trajectories, about {60 - done} s left" for done in (15, 30, 45)
    ]


class Inline:
    """Stands for a remote function: runs where it is called, and says of what."""

    def __init__(self, function, calls):
        self.function, self.calls = function, calls

    def remote(self, job, *arguments):
        self.calls.append((self.function.__name__, job.split, job.first, job.trajectories))
        return Done(self.function(job, *arguments))


class Done(SimpleNamespace):
    """A task that has ended."""

    def __init__(self, counts):
        super().__init__(counts=counts)

    __hash__ = object.__hash__


@pytest.fixture
def here(monkeypatch):
    """Simulations run in this process; returns the calls of tasks."""
    calls = []
    fake = SimpleNamespace(wait=lambda tasks, **_: (tasks[:1], tasks[1:]), get=lambda task: task.counts)
    for name in ("_simulate", "_join"):
        monkeypatch.setattr(simulation, name, Inline(getattr(simulation, name)._function, calls))
    monkeypatch.setattr(simulation, "ray", fake)
    monkeypatch.setattr(simulation, "describe_pending", lambda title, request, at_least: "")
    for name in ("connect", "require_feasible", "cluster_resources"):
        monkeypatch.setattr(simulation, name, lambda *_: None)
    return calls


def contents(path):
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if hasattr(item, "dtype") else None)
        return found, file.attrs["rejected_draws"], [*file.attrs]


def test_a_large_file_is_made_of_parts_and_the_same(tmp_path, here):
    config = SMALL.replace(train=35, boundaries=("open",))
    lines = []
    assert simulate(config, tmp_path / "parts", lines.append) == 3
    assert [call for call in here if call[1] == "train"] == [
        *(("_simulate", "train", first, count) for first, count in ((0, 16), (16, 16), (32, 3))),
        ("_join", "train", 0, 35),
    ]
    assert any(line.startswith("simulated 37 trajectories, ") for line in lines)
    assert not [*tmp_path.rglob(".parts")]
    for job in simulation_jobs(config):
        write_file(job, config, tmp_path / "whole" / job.path)
        parts, whole = (contents(tmp_path / name / job.path) for name in ("parts", "whole"))
        assert parts[0].keys() == whole[0].keys()
        assert all(np.array_equal(parts[0][name], array) for name, array in whole[0].items())
        assert parts[1:] == whole[1:]


def test_finished_parts_are_not_simulated_again(tmp_path, here):
    config = SMALL.replace(train=35, boundaries=("open",))
    *_, job = simulation_jobs(config)
    first, second, third = job.parts
    write_file(first, config, tmp_path / first.part_path)
    write_file(second, config.replace(seed=1), tmp_path / second.part_path)  # of another simulation
    write_file(third, config, tmp_path / third.part_path)
    path = tmp_path / third.part_path
    path.write_bytes(path.read_bytes()[:-100])
    assert simulate(config, tmp_path, lambda line: None) == 3
    assert [call[2:] for call in here if call[1] == "train"] == [(16, 16), (32, 3), (0, 35)]
    with h5py.File(tmp_path / job.path) as file:
        assert len(file["t0_fields/density"]) == 35
