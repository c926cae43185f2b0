import contextlib
import time

import numpy as np
import pytest
from benchmarks import simulators
from benchmarks.simulators import time_simulator

from lola.simulate.euler import EulerConfig
from lola.simulate.gravity_cooling import GravityCoolingConfig
from lola.simulate.rayleigh_benard import RayleighBenardConfig

CONVECTION = RayleighBenardConfig(resolution=(32, 24), rayleigh=(1e5,), outputs=4)


class Asleep:
    """Stands for a solver: every fourth solution stops being physical."""

    def __init__(self):
        self.calls = 0

    @contextlib.contextmanager
    def __call__(self, config, case):
        def solve(initial):
            self.calls += 1
            time.sleep(0.02)
            return None if self.calls % 4 == 0 else {"density": np.zeros(1)}

        yield solve


@pytest.fixture
def asleep(monkeypatch):
    solver = Asleep()
    for kind in (EulerConfig, RayleighBenardConfig, GravityCoolingConfig):
        monkeypatch.setattr(kind, "solver", lambda config, case: solver(config, case))
        monkeypatch.setattr(kind, "check_solver", lambda config: None)
    return solver


def test_processes_are_timed_by_the_wall_after_a_first_solution(asleep):
    found = time_simulator(CONVECTION, rounds=2, clock="cpu")
    assert asleep.calls == 3
    assert (found.system, found.grid, found.missing) == ("rayleigh_benard", (32, 24), "")
    assert all(0.02 / 4 <= seconds < 1 for seconds in found.seconds)
    assert len(found.seconds) == 2


def test_rejected_draws_are_left_out(asleep):
    assert len(time_simulator(GravityCoolingConfig(resolution=8), rounds=4, clock="wall").seconds) == 3


def test_computing_time_of_this_process_is_reported_where_it_solves(asleep):
    found = time_simulator(EulerConfig(resolution=16, outputs=1), rounds=2, clock="cpu")
    assert asleep.calls == 2
    assert all(seconds < 0.02 for seconds in found.seconds)


def test_slow_simulators_are_timed_less_often(asleep, monkeypatch):
    monkeypatch.setattr(simulators, "MAX_DURATION_S", 0.0)
    assert len(time_simulator(CONVECTION, rounds=5, clock="wall").seconds) == 1


def test_a_solver_that_is_not_installed_is_reported(monkeypatch):
    monkeypatch.setattr(RayleighBenardConfig, "needs", ("no_such_package", "simulate-rayleigh-benard"))
    found = time_simulator(CONVECTION, rounds=1, clock="wall")
    assert found.seconds == ()
    assert "no_such_package" in found.missing
    assert found.grid == (32, 24)
