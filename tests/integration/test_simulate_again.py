"""The simulate command over all systems: files appear, stay, and come back the same when they are lost."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml

SIMULATE = Path(__file__).parents[2] / "experiments" / "simulate.py"
SYSTEMS = {
    "euler": ("clawpack", "--simulation.resolution", "16", "--simulation.gammas", "1.4"),
    "rayleigh_benard": (
        *("dedalus", "--simulation.resolution", "32", "24", "--simulation.rayleigh", "1e5"),
        *("--simulation.prandtl", "1", "--simulation.outputs", "4"),
    ),
    "turbulence_gravity_cooling": (
        *("astronomix", "--simulation.resolution", "8", "--simulation.densities", "44.5"),
        *("--simulation.metallicities", "1", "--simulation.outputs", "2"),
    ),
}


def simulate(storage: Path, system: str, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, str(SIMULATE), system, *options, "--storage", str(storage)],
        capture_output=True,
        text=True,
        env={**os.environ, "RAY_ADDRESS": ""},
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def contents(path: Path) -> dict[str, np.ndarray]:
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if hasattr(item, "dtype") else None)
    return found


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("system", SYSTEMS)
def test_lost_files_come_back_the_same(tmp_path, system):
    package, *options = SYSTEMS[system]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    options += ["--simulation.train", "2", "--simulation.valid", "1", "--simulation.test", "1"]
    simulate(tmp_path, system, *options)
    files = sorted((tmp_path / "well").glob("*/data/*/*.hdf5"))
    assert {path.parent.name for path in files} == {"train", "valid", "test"}
    before = [contents(path) for path in files]
    times = [path.stat().st_mtime_ns for path in files]
    for path in (tmp_path / "well").glob("*/stats.yaml"):
        assert set(yaml.safe_load(path.read_text())) == {
            *("mean", "std", "rms", "mean_delta", "std_delta", "rms_delta")
        }
    files[0].unlink()
    assert "simulating 1 of" in simulate(tmp_path, system, *options)
    after = [contents(path) for path in files]
    for old, new in zip(before, after, strict=True):
        assert old.keys() == new.keys()
        assert all(np.array_equal(old[name], new[name]) for name in old)
    assert times[1:] == [path.stat().st_mtime_ns for path in files[1:]]
