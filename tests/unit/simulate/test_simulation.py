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


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.system)
def test_a_missing_solver_is_named(config, monkeypatch, tmp_path):
    package, extra = config.needs
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    with pytest.raises(LolaError, match=rf"{config.system} needs {package}; pip install 'lola\[{extra}\]'"):
        write_file(simulation_jobs(config)[0], config, tmp_path / "a.hdf5")
    assert list(tmp_path.iterdir()) == []
