"""What simulations of all systems have in common."""

import importlib.util

import pytest

from lola.core.errors import LolaError
from lola.data.description import SYSTEMS
from lola.simulate.euler import EulerConfig
from lola.simulate.gravity_cooling import GravityCoolingConfig
from lola.simulate.rayleigh_benard import RayleighBenardConfig
from lola.simulate.simulation import simulation_jobs, write_file

CONFIGS = (EulerConfig(), RayleighBenardConfig(), GravityCoolingConfig())


def test_every_system_can_be_simulated():
    assert {config.system for config in CONFIGS} == set(SYSTEMS)
    for config in CONFIGS:
        system = SYSTEMS[config.system]
        assert {case.dataset for case in config.cases()} == set(system.datasets)
        assert len(config.grid) == system.dimensions
        assert type(config).from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("config", "longer"),
    [
        (CONFIGS[0], {"end": 15.0}),
        (CONFIGS[1], {"interval": 2.5}),
        (CONFIGS[1], {"outputs": 1990}),
        (CONFIGS[2], {"interval": 0.2}),
    ],
)
def test_a_trajectory_takes_as_long_as_the_time_that_it_spans(config, longer):
    before = config.seconds_per_trajectory()
    assert config.replace(**longer).seconds_per_trajectory() == pytest.approx(10 * before)


def test_more_outputs_of_the_same_time_cost_nothing():
    config = EulerConfig()
    assert config.replace(outputs=200).seconds_per_trajectory() == config.seconds_per_trajectory()


@pytest.mark.parametrize(("resolution", "seconds"), [(32, 0.07), (64, 0.5), (256, 24.3)])
def test_seconds_of_euler_simulations_are_as_measured(resolution, seconds):
    found = EulerConfig(resolution=resolution).seconds_per_trajectory()
    assert found == pytest.approx(seconds, rel=0.05)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.system)
def test_a_missing_solver_is_named(config, monkeypatch, tmp_path):
    package, extra = config.needs
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    with pytest.raises(LolaError, match=rf"{config.system} needs {package}; pip install 'lola\[{extra}\]'"):
        write_file(simulation_jobs(config)[0], config, tmp_path / "a.hdf5")
    assert list(tmp_path.iterdir()) == []
