"""The medium against exact solutions and budgets; where astronomix is not installed, only what needs none."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from lola.core.errors import ConfigError
from lola.data.description import TURBULENCE_GRAVITY_COOLING
from lola.data.well.splits import open_split
from lola.simulate.gravity_cooling import (
    PROTONS,
    VELOCITY,
    GravityCoolingConfig,
    free_fall_time,
    medium_case,
    side,
    turbulence,
)
from lola.simulate.process import solver_process
from lola.simulate.simulation import simulation_jobs

needs_astronomix = pytest.mark.skipif(
    importlib.util.find_spec("astronomix") is None,
    reason="astronomix is not installed: see `make simulators`",
)
SMALL = GravityCoolingConfig(
    resolution=8,
    densities=(44.5,),
    temperatures=(100.0,),
    metallicities=(1.0,),
    outputs=2,
    train=1,
    valid=1,
    test=1,
)
(CASE,) = SMALL.cases()


def solve(settings, initial):
    with solver_process("lola.simulate.astronomix_solver", settings) as solver:
        solution = solver(initial)
    assert solution is not None
    return solution


def test_cases_are_the_well_s():
    config = GravityCoolingConfig(resolution=64, train=80, valid=10, test=10)
    assert sum(job.trajectories for job in simulation_jobs(config)) == 2700
    assert config.grid == (64, 64, 64)
    names = {case.name for case in config.cases()}
    assert "turbulence_gravity_cooling_rho0_0.445_Z_0.1_T0_10" in names
    assert "turbulence_gravity_cooling_rho0_44.5_Z_1_T0_1000" in names
    expected = {44.5: (60, 6.93), 4.45: (129, 21.9), 0.445: (278, 69.3)}
    for density, (length, time) in expected.items():
        case = medium_case(density, 1.0, 10.0)
        assert side(case) == pytest.approx(length, rel=5e-3)
        assert free_fall_time(case) == pytest.approx(time, rel=2e-3)
        assert len(config.times(case)) == 50
        assert config.times(case)[1] == pytest.approx(0.02 * time, rel=2e-3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"resolution": 4},
        {"densities": ()},
        {"densities": (1.0, 1.0)},
        {"densities": (-1.0,)},
        {"metallicities": (-0.1,)},
        {"temperatures": (1.0,)},
        {"kinetic": -1.0},
        {"molecular_weight": 0.0},
        {"outputs": 0},
        {"courant": 0.6},
    ],
)
def test_impossible_configurations(wrong):
    with pytest.raises(ConfigError):
        GravityCoolingConfig(**wrong)


def test_turbulence_has_its_spectrum():
    n = 48
    spectra = []
    for seed in range(6):
        v = turbulence(n, np.random.default_rng(seed))
        assert (v**2).sum(axis=0).mean() == pytest.approx(1)
        assert np.abs(v.mean(axis=(1, 2, 3))).max() < 1e-12
        power = (np.abs(np.fft.fftn(v, axes=(1, 2, 3))) ** 2).sum(axis=0)
        k = np.abs(np.fft.fftfreq(n, 1 / n))
        shell = np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2).round().astype(int)
        spectra.append(np.bincount(shell.ravel(), power.ravel())[2:21])
    slope = np.polyfit(np.log(np.arange(2, 21)), np.log(np.mean(spectra, axis=0)), 1)[0]
    assert slope == pytest.approx(-2, abs=0.1)


def test_draws_see_the_same_waves_on_any_grid():
    coarse, fine = (turbulence(n, np.random.default_rng(1)) for n in (16, 48))
    waves = [np.fft.fftn(v, axes=(1, 2, 3))[:, 1:4, 1:4, 1:4] / v[0].size for v in (coarse, fine)]
    ratio = waves[0] / waves[1]
    np.testing.assert_allclose(ratio, ratio.real.mean(), rtol=1e-9)
    state = SMALL.draw(CASE, np.random.default_rng(0))
    assert state[0].mean() == pytest.approx(44.5 / PROTONS)
    kinetic = (state[1:4] ** 2).sum(axis=0).mean() / 2 * VELOCITY**2
    assert kinetic == pytest.approx(3 / 5 * 4.300917e-3 * 1e6 / 60)


@needs_astronomix
def test_files_are_the_well_s(well_of, trajectory):
    root = well_of(SMALL)
    split = open_split(root, TURBULENCE_GRAVITY_COOLING, "valid")
    assert (split.grid, split.steps) == ((8, 8, 8), 3)
    assert split.parameters(0).tolist() == pytest.approx([np.log(44.5), 1.0, 100.0, *[1] * 6])
    fields, rejected = trajectory(SMALL, CASE, "valid")
    assert rejected == 0
    assert torch.equal(split.read(0, 0, 3)[3:], torch.from_numpy(fields["velocity"]).movedim(-1, 0))
    assert fields["temperature"][0] == pytest.approx(100, rel=1e-6)
    assert not torch.equal(
        open_split(root, TURBULENCE_GRAVITY_COOLING, "train").read(0, 0, 1), split.read(0, 0, 1)
    )
    data = pytest.importorskip("the_well.data")
    theirs = data.WellDataset(
        well_base_path=str(root), well_dataset_name=CASE.dataset, well_split_name="valid", n_steps_output=2
    )
    assert theirs.metadata.field_names[0] == ["density", "pressure", "temperature"]
    assert theirs.metadata.field_names[1] == ["velocity_x", "velocity_y", "velocity_z"]
    assert theirs.metadata.constant_scalar_names == ["rho0", "Z", "T0"]
    sample = theirs[0]
    states = torch.cat([sample["input_fields"], sample["output_fields"]])
    assert torch.equal(split.read(0, 0, 3), torch.movedim(states, -1, 0))
    assert sample["boundary_conditions"].flatten().tolist() == [1] * 6


@needs_astronomix
def test_jax_and_torch_never_meet():
    """The host, which has torch, gets no JAX, and the solver's imports bring no torch."""
    code = (
        "import sys, numpy as np, torch\n"
        "from lola.simulate.gravity_cooling import GravityCoolingConfig\n"
        "config = GravityCoolingConfig(resolution=8, outputs=1)\n"
        "case = config.cases()[0]\n"
        "with config.solver(case) as solve:\n"
        "    assert solve(config.draw(case, np.random.default_rng(0))) is not None\n"
        "assert 'jax' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    code = "import sys\nimport lola.simulate.astronomix_solver\nassert 'torch' not in sys.modules\n"
    subprocess.run([sys.executable, "-c", code], check=True)


@needs_astronomix
def test_solutions_that_break_down_are_none():
    state = SMALL.draw(CASE, np.random.default_rng(0))
    with SMALL.solver(CASE) as solver:
        assert solver(np.full_like(state, np.nan)) is None
        one, again = solver(state), solver(state)
    assert one is not None
    assert all(np.array_equal(one[name], again[name]) for name in one)


def uniform(temperature, density, settings, n=8):
    state = np.zeros((5, n, n, n))
    state[0] = density
    state[4] = density * temperature * settings["gas"]
    return state


@needs_astronomix
@pytest.mark.parametrize(
    ("density", "temperature", "metals", "courant"), [(1.0, 1000.0, 0.3, 0.002), (0.01, 20.0, 1.0, 0.02)]
)
def test_gas_at_rest_cools_and_warms(density, temperature, metals, courant):
    """Against an integration of the rates in cgs units."""
    config = SMALL.replace(metallicities=(metals,), radiation=1.0)
    times = np.linspace(0, 3.0, 31)  # Myr
    clock = VELOCITY * 1.0227122
    settings = {
        **config.settings(config.cases()[0]),
        "gravity": 0.0,
        "ambient": density,
        "times": list(times * clock),
        "courant": courant,
    }
    solution = solve(settings, uniform(temperature, density, settings))
    found = (solution[4] / solution[0] / settings["gas"])[:, 4, 4, 4]

    number, gamma, k, heating = density * PROTONS, 5 / 3, 1.380649e-16, 2e-26

    def rate(_, temperature):
        ratio = 1e7 * np.exp(-118400 / (temperature + 1000))
        ratio += 0.014 * np.sqrt(temperature) * np.exp(-92 / temperature)
        return (
            (gamma - 1) * config.molecular_weight / k * metals * heating * (1 - number * ratio) * 3.15576e13
        )

    expected = solve_ivp(rate, (0, times[-1]), [temperature], t_eval=times, rtol=1e-9, method="LSODA").y[0]
    np.testing.assert_allclose(found, expected, rtol=0.02)
    assert abs(expected[-1] / temperature - 1) > 0.5
    assert np.abs(solution[1:4]).max() < 1e-9
    np.testing.assert_allclose(solution[0], density, rtol=1e-12)


def ball(n, contrast=1e-4, radius=0.25):
    """A sphere of density 1 in the unit cube, averaged over cells, and the distance from its centre."""
    fine = 4
    x = (np.arange(n * fine) + 0.5) / (n * fine) - 0.5
    inside = x[:, None, None] ** 2 + x[:, None] ** 2 + x**2 < radius**2
    density = inside.reshape(n, fine, n, fine, n, fine).mean(axis=(1, 3, 5))
    x = (np.arange(n) + 0.5) / n - 0.5
    return np.maximum(density, contrast), np.sqrt(x[:, None, None] ** 2 + x[:, None] ** 2 + x**2)


SPHERE = {
    "side": 1.0,
    "gravity": 1.0,
    "gamma": 5 / 3,
    "gas": 1.0,
    "floor": 1e-6,
    "heating": 0.0,
    "ambient": 1e-4,
    "radiation": 0.0,
    "protons": 1.0,
    "courant": 0.45,
}


@needs_astronomix
def test_gas_that_enters_has_the_ambient_density():
    """A wind across the cube, far above the speed of sound: it brings the ambient gas, as warm as its own."""
    state = np.zeros((5, 8, 8, 8))
    state[0], state[2], state[4] = 1.0, -2.0, 1e-3
    settings = {**SPHERE, "gravity": 0.0, "ambient": 0.25, "times": [0.0, 0.25, 2.0]}
    density, _, velocity, _, pressure = solution = solve(settings, state)
    profile = density[1].mean(axis=(0, 2))
    assert profile[0] == pytest.approx(1.0, rel=0.05)
    assert (np.diff(profile) < 1e-9).all()
    assert profile.mean() == pytest.approx((1 + 0.25) / 2, rel=0.05)
    np.testing.assert_allclose(density[2], 0.25, rtol=1e-3)
    np.testing.assert_allclose(velocity[2], -2.0, rtol=1e-3)
    np.testing.assert_allclose(pressure[2] / density[2], 1e-3, rtol=0.3)
    np.testing.assert_allclose(np.ptp(solution[:, 1], axis=(1, 3)), 0, atol=1e-12)


@needs_astronomix
def test_a_cold_sphere_collapses_in_the_free_fall_time():
    r"""r = R cos^2 b with b + sin(2 b) / 2 = (pi / 2) t / t_ff and t_ff = sqrt(3 pi / (32 G rho))."""
    n = 32
    density, distance = ball(n)
    state = np.zeros((5, n, n, n))
    state[0], state[4] = density, 1e-5 * density
    expected = np.sqrt(3 * np.pi / 32)
    times = np.linspace(0, 0.95 * expected, 39)
    solution = solve({**SPHERE, "times": list(times)}, state)
    middle = slice(n // 2 - 1, n // 2 + 1)
    centre = solution[0][:, middle, middle, middle].mean(axis=(1, 2, 3))
    order = np.argsort(distance, axis=None)
    within = np.cumsum(solution[0].reshape(len(times), -1)[:, order], axis=1)
    half = np.array([np.interp(within[0, -1] / 2, each, distance.ravel()[order]) for each in within])
    for part, tolerance in ((0.7, 0.015), (0.5, 0.015), (0.35, 0.03)):
        angle = np.arccos(np.sqrt(part))
        phase = (angle + np.sin(2 * angle) / 2) / (np.pi / 2)
        by_density = np.interp(part**-3, centre, times) / phase
        by_radius = np.interp(-part, -half / half[0], times) / phase
        print(f"r/R = {part}: free-fall time over the exact one", by_density / expected, by_radius / expected)
        assert by_density == pytest.approx(expected, rel=tolerance)
        assert by_radius == pytest.approx(expected, rel=tolerance)
    mass = solution[0].sum(axis=(1, 2, 3))
    np.testing.assert_allclose(mass, mass[0], rtol=1e-3)


def potential_energy(density, n):
    """The potential energy of cubes in pairs, each in its own field, as a plain sum over offsets."""
    x = np.arange(-n, n) / n
    squares = x[:, None, None] ** 2 + x[:, None] ** 2 + x**2
    kernel = np.fft.ifftshift(np.where(squares > 0, 1 / np.sqrt(np.maximum(squares, 1e-9)), 2.38008 * n))
    padded = np.zeros((2 * n,) * 3)
    padded[:n, :n, :n] = density / n**3
    field = np.fft.ifftn(np.fft.fftn(padded) * np.fft.fftn(kernel)).real
    return -(padded * field).sum() / 2


def budget(n):
    """The drifts of mass, momentum and energy of a cloud that falls together and warms."""
    x = (np.arange(n) + 0.5) / n - 0.5
    state = np.zeros((5, n, n, n))
    state[0] = np.exp(-(x[:, None, None] ** 2 + x[:, None] ** 2 + x**2) / (2 * 0.1**2)) + 1e-4
    gravity = potential_energy(state[0], n)
    state[4] = 2 / 3 * state[0] * 0.3 * abs(gravity) / state[0].mean()
    solution = solve({**SPHERE, "times": list(np.linspace(0, 0.6, 13))}, state)
    density, velocity, pressure = solution[0], solution[1:4], solution[4]
    mass, momentum = density.mean(axis=(1, 2, 3)), (density * velocity).mean(axis=(2, 3, 4))
    kinetic = (density * (velocity**2).sum(axis=0)).mean(axis=(1, 2, 3)) / 2
    energy = kinetic + 1.5 * pressure.mean(axis=(1, 2, 3))
    energy += [potential_energy(each, n) for each in density]
    assert kinetic.max() > 0.03 * abs(gravity)
    drift = np.abs(energy - energy[0]).max() / abs(gravity)
    return np.ptp(mass) / mass[0], np.abs(momentum).max(), drift


@needs_astronomix
def test_mass_momentum_and_energy_are_kept():
    """Kinetic, thermal and gravitational energy are exchanged; their sum drifts in second order."""
    _, _, coarse = budget(16)
    mass, momentum, energy = budget(32)
    print("drifts of mass, momentum and energy", mass, momentum, energy, "and of energy on 16 cells", coarse)
    assert mass < 1e-3
    assert momentum < 1e-12
    assert energy < 0.03
    assert energy < coarse / 3


@needs_astronomix
def test_cold_and_fast_gas_stays_physical():
    """10 K at twenty times the speed of sound, with and without cooling: the grid's hardest cases."""
    for metals in (1.0, 0.0):
        config = GravityCoolingConfig(resolution=16, outputs=10, interval=0.1)
        case = medium_case(44.5, metals, 10.0)
        with config.solver(case) as solver:
            fields = solver(config.draw(case, np.random.default_rng(0)))
        assert fields is not None
        for name in ("density", "pressure", "temperature"):
            assert np.isfinite(fields[name]).all()
            assert fields[name].min() > 0
        assert fields["temperature"].min() >= config.floor * (1 - 1e-9)
        assert fields["density"].max() > 10 * 44.5 / PROTONS or metals == 0
