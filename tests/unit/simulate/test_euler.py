import json
import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch

from lola.core.config import fingerprint
from lola.core.errors import ConfigError
from lola.data.description import EULER
from lola.data.well.splits import open_split
from lola.simulate import euler
from lola.simulate.euler import EulerConfig, draw_quadrants, euler_case
from lola.simulate.simulation import SimulationJob, simulate_trajectory, simulation_jobs, write_file

SMALL = EulerConfig(resolution=16, outputs=5, train=2, valid=1, test=1)


def job(split, boundary, gamma, trajectories):
    return SimulationJob(euler_case(boundary, gamma), split, trajectories)


JOB = job("train", "periodic", 1.4, 2)


def trajectory(job, config, index):
    with config.solver(job.case) as solve:
        return simulate_trajectory(job, config, index, solve)


def test_jobs():
    listed = simulation_jobs(SMALL)
    assert len(listed) == 3 * 2 * 10
    assert len({job.path for job in listed}) == 60
    assert sum(job.trajectories for job in listed) == 20 * (2 + 1 + 1)
    assert str(listed[0].path) == (
        "euler_multi_quadrants_openBC/data/test/euler_multi_quadrants_openBC_gamma_1.13.hdf5"
    )
    assert {job.split for job in simulation_jobs(SMALL.replace(valid=0))} == {"train", "test"}


def test_impossible_configurations():
    for wrong in (
        {"gammas": (1.0,)},
        {"gammas": ()},
        {"gammas": (1.4, 1.4)},
        {"resolution": 2048},
        {"jumps": (0.0, 1.0)},
        {"outputs": 0},
        {"courant": 1.0},
        {"train": -1},
        {"intervals": (3, 2)},
    ):
        with pytest.raises(ConfigError):
            EulerConfig(**wrong)
    assert EulerConfig.from_json(json.loads(json.dumps(SMALL.to_json()))) == SMALL


@pytest.mark.parametrize("gamma", [1.13, 1.76])
def test_a_closed_box_conserves(gamma):
    """With periodic boundaries mass, momentum and energy are constant; pressure obeys the gas law."""
    fields, _ = trajectory(job("test", "periodic", gamma, 1), SMALL, 0)
    assert fields["density"].shape == (6, 16, 16)
    assert fields["momentum"].shape == (6, 16, 16, 2)
    assert all(values.dtype == np.float32 for values in fields.values())
    for name in ("density", "energy", "momentum"):
        total = fields[name].astype(np.float64).mean(axis=(1, 2))
        np.testing.assert_allclose(total, np.broadcast_to(total[0], total.shape), rtol=1e-6, atol=1e-6)
    kinetic = (fields["momentum"] ** 2).sum(-1) / (2 * fields["density"])
    np.testing.assert_allclose(fields["pressure"], (gamma - 1) * (fields["energy"] - kinetic), rtol=1e-4)
    assert np.abs(np.diff(fields["density"], axis=0)).mean(axis=(1, 2)).min() > 1e-2


def exact_sod(x, t, gamma=1.4):
    """Sod's shock tube: the density of the exact solution, from the pressure behind its shock."""
    p, c_left, c_right = 0.30313, np.sqrt(gamma), np.sqrt(gamma * 0.1 / 0.125)
    u = 2 * c_left / (gamma - 1) * (1 - p ** ((gamma - 1) / (2 * gamma)))
    shock = c_right * np.sqrt((gamma + 1) / (2 * gamma) * p / 0.1 + (gamma - 1) / (2 * gamma))
    ratio = (gamma - 1) / (gamma + 1)
    behind = 0.125 * (p / 0.1 + ratio) / (ratio * p / 0.1 + 1)
    xi = (x - 0.5) / t
    fan = (1 - ratio * (1 + xi / c_left)) ** (2 / (gamma - 1))
    regions = [xi < -c_left, xi < u - c_left * p ** ((gamma - 1) / (2 * gamma)), xi < u, xi < shock]
    return np.select(regions, [1.0, fan, p ** (1 / gamma), behind], 0.125)


@pytest.mark.parametrize("axis", [0, 1])
def test_sods_shock_tube(axis):
    n = 100
    config = EulerConfig(resolution=n, outputs=1, end=0.2)
    initial = np.zeros((4, n, n))
    left = np.arange(n) < n // 2
    initial[0] = np.where(left, 1.0, 0.125)[:, None]
    initial[3] = np.where(left, 1.0, 0.1)[:, None]
    if axis == 1:
        initial = np.ascontiguousarray(initial.swapaxes(1, 2))
    fields = euler.solve(initial, config, "open", 1.4)
    assert fields is not None
    density = np.moveaxis(fields["density"][-1], axis, 0)
    assert np.ptp(density, axis=1).max() < 1e-6
    error = np.abs(density[:, 0] - exact_sod((np.arange(n) + 0.5) / n, 0.2)).mean()
    assert error < 0.01
    assert np.abs(fields["momentum"][-1, ..., 1 - axis]).max() < 1e-6


def test_draws_do_not_depend_on_the_resolution():
    for boundary in ("open", "periodic"):
        coarse = draw_quadrants(SMALL.replace(resolution=15), boundary, np.random.default_rng(1))
        fine = draw_quadrants(SMALL.replace(resolution=45), boundary, np.random.default_rng(1))
        assert np.array_equal(coarse, fine[:, 1::3, 1::3])
        low, high = SMALL.jumps
        assert ((coarse[[0, 3]] >= low) & (coarse[[0, 3]] <= high)).all()
        assert np.abs(coarse[1:3]).max() <= SMALL.speed


def test_quadrants_meet_across_a_periodic_boundary():
    for seed in range(20):
        state = draw_quadrants(SMALL.replace(resolution=64), "periodic", np.random.default_rng(seed))
        assert np.mean(state[:, 0] == state[:, -1]) > 0.8
        values, open_state = np.unique(state[0]), draw_quadrants(SMALL, "open", np.random.default_rng(seed))
        assert 1 <= len(values) <= 16
        assert 1 <= len(np.unique(open_state[0])) <= 16


def test_trajectories_are_functions_of_their_key():
    first, _ = trajectory(JOB, SMALL, 0)
    again, _ = trajectory(job("train", "periodic", 1.4, 7), SMALL, 0)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    others = [
        (JOB, SMALL, 1),
        (job("valid", "periodic", 1.4, 2), SMALL, 0),
        (job("train", "periodic", 1.404, 2), SMALL, 0),
        (JOB, SMALL.replace(seed=1), 0),
    ]
    for other in others:
        assert not np.array_equal(trajectory(*other)[0]["density"][0], first["density"][0])


def test_unphysical_draws_are_redrawn_and_counted(tmp_path):
    """Gas that is blown apart at many times the speed of sound leaves the scheme without pressure."""
    fierce = SMALL.replace(speed=4.0, outputs=20)
    four = job("test", "open", 1.13, 4)
    counts = write_file(four, fierce, tmp_path / "a.hdf5")
    assert counts["rejected"] > 0
    with h5py.File(tmp_path / "a.hdf5") as file:
        assert file.attrs["rejected_draws"] == counts["rejected"]
        assert file.attrs["seconds_per_trajectory"] > 0
        for name in ("density", "pressure", "energy"):
            values = file["t0_fields"][name][:]
            assert np.isfinite(values).all()
            assert values.min() > 0
    with pytest.raises(ConfigError, match="draws in a row"):
        write_file(four, fierce.replace(speed=300.0), tmp_path / "b.hdf5")
    assert [path.name for path in tmp_path.iterdir()] == ["a.hdf5"]


def test_states_whose_cells_are_all_alike_are_redrawn():
    """On 4 x 4 cells with two lines on each periodic axis, one draw of 16 is."""
    config = SMALL.replace(resolution=4, intervals=(2, 2), outputs=1, end=0.01)
    many = job("train", "periodic", 1.4, 100)
    found = [trajectory(many, config, index) for index in range(60)]
    assert sum(rejected for _, rejected in found) > 0
    assert all(np.ptp(fields["density"][0]) > 0 for fields, _ in found)
    with pytest.raises(ConfigError, match=r"50 draws in a row were rejected .* more intervals if all cells"):
        trajectory(job("train", "open", 1.4, 1), config.replace(intervals=(1, 1)), 0)


def test_files_name_the_simulation_that_made_them(tmp_path):
    path = tmp_path / JOB.path
    assert write_file(JOB, SMALL, path)["trajectories"] == 2
    with h5py.File(path) as file:
        assert file.attrs["lola_simulation"] == fingerprint(SMALL)
        np.testing.assert_allclose(file["dimensions/time"][:], [0, 0.3, 0.6, 0.9, 1.2, 1.5], rtol=1e-6)
    split = open_split(tmp_path, EULER, "train")
    assert split.parameters(0).tolist() == pytest.approx([1.4, 2, 2, 2, 2])
    fields, _ = trajectory(JOB, SMALL, 1)
    momentum = torch.from_numpy(np.moveaxis(fields["momentum"], -1, 0).copy())
    assert torch.equal(split.read(1, 0, 6)[3:], momentum)


@pytest.mark.parametrize("limit", [20_000, 400_000])
def test_full_storage_leaves_no_files(tmp_path, limit):
    """A process that may write no larger files stands for a full disk: early, and when the file is closed."""
    path = tmp_path / "data" / "a.hdf5"
    code = (
        "import resource, signal\n"
        "from lola.core.errors import StorageError\n"
        "from lola.simulate.euler import *\n"
        "from lola.simulate.simulation import *\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "config = EulerConfig(resolution=32, outputs=20)\n"
        "try:\n"
        f"    write_file(SimulationJob(euler_case('open', 1.4), 'train', 2), config, Path({str(path)!r}))\n"
        "except StorageError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == (
        f"cannot write in {path.parent} (File too large); raise the limit on file sizes (ulimit -f), or give "
        "another --storage\n"
    )
    assert list(path.parent.iterdir()) == []


def test_clawpack_stays_silent_and_leaves_logging_alone(tmp_path):
    """A fresh process: PyClaw would put a log file here and its own handlers on the root logger."""
    code = (
        "import logging\n"
        "from lola.simulate.euler import *\n"
        "solve(np.ones((4, 8, 8)), EulerConfig(resolution=8, outputs=2, end=0.1), 'open', 1.4)\n"
        "assert not logging.getLogger().handlers\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []
