"""Symmetries of descriptions against the equations: tendencies of images are images of tendencies.

Differences are central and periodic, so that they commute with reversals, rolls and exchanges of the axes.
"""

import numpy as np
import pytest
import torch
from wells import noise

from lola.data.augment import count_symmetries, draw_symmetry
from lola.data.description import get_system

N = 8
GAMMA, KAPPA = 5 / 3, 0.1


def d(f: np.ndarray, axis: int) -> np.ndarray:
    """A derivative of a field `(..., *grid)` along an axis from the last."""
    return (np.roll(f, -1, axis) - np.roll(f, 1, axis)) / 2


def axes_of(u: np.ndarray) -> range:
    return range(-len(u), 0)


def gradient(f: np.ndarray, dimensions: int) -> np.ndarray:
    return np.stack([d(f, axis) for axis in range(-dimensions, 0)])


def divergence(u: np.ndarray) -> np.ndarray:
    return sum(d(each, axis) for each, axis in zip(u, axes_of(u), strict=True))


def along(u: np.ndarray, f: np.ndarray) -> np.ndarray:
    """(u . grad) f."""
    return sum(each * d(f, axis) for each, axis in zip(u, axes_of(u), strict=True))


def laplacian(f: np.ndarray, dimensions: int) -> np.ndarray:
    return sum(d(d(f, axis), axis) for axis in range(-dimensions, 0))


def acoustics(x):
    p, u, density, sound = x["pressure"], x["velocity"], x["density"], x["speed_of_sound"]
    bulk = density * sound**2
    return {"pressure": -bulk * divergence(u), "velocity": -gradient(p, 2) / density}


def gray_scott(x):
    a, b = x["A"], x["B"]
    rate = a * b**2
    return {"A": laplacian(a, 2) - rate + 0.014 * (1 - a), "B": laplacian(b, 2) / 2 + rate - 0.07 * b}


def mhd(x):
    density, b, u = x["density"], x["magnetic_field"], x["velocity"]
    flux = [divergence(np.stack([u[j] * b[i] - b[j] * u[i] for j in range(3)])) for i in range(3)]
    pressure = gradient(density, 3) + gradient((b**2).sum(0) / 2, 3)
    return {
        "density": -divergence(density * u),
        "magnetic_field": -np.stack(flux),
        "velocity": -along(u, u) + (along(b, b) - pressure) / density,
    }


def shear(x):
    u = x["velocity"]
    return {
        "tracer": KAPPA * laplacian(x["tracer"], 2) - along(u, x["tracer"]),
        "velocity": KAPPA * laplacian(u, 2) - along(u, u) - gradient(x["pressure"], 2),
    }


def rayleigh_taylor(x):
    """Without the pressure, which is not stored; the weight of the fluid is along axis 2."""
    density, u = x["density"], x["velocity"]
    weight = np.zeros_like(u)
    weight[2] = -density
    return {"density": -divergence(density * u), "velocity": KAPPA * laplacian(u, 3) - along(u, u) + weight}


def gas(x):
    """Euler's equations of a gas that cools."""
    density, p, u = x["density"], x["pressure"], x["velocity"]
    return {
        "density": -divergence(density * u),
        "pressure": -along(u, p) - GAMMA * p * divergence(u) - density**2,
        "velocity": -along(u, u) - gradient(p, len(u)) / density,
    }


def viscoelastic(x):
    """With the pressure gradient that drives the channel along axis 0, and FENE-P's stress."""
    u, c, zz, p = x["velocity"], x["C"], x["c_zz"], x["pressure"]
    stress = (c - np.eye(2)[:, :, None, None]) / (1 - (c[0, 0] + c[1, 1] + zz - 3) / 4900)
    slope = np.stack([gradient(each, 2) for each in u])  # d u_i / d x_j
    stretching = np.einsum("ik...,kj...->ij...", slope, c)
    force = np.stack([divergence(row) for row in stress])
    force[0] += 1
    return {
        "pressure": np.zeros_like(p),
        "c_zz": -along(u, zz),
        "velocity": -along(u, u) - gradient(p, 2) + KAPPA * laplacian(u, 2) + force,
        "C": -along(u, c) + stretching + np.swapaxes(stretching, 0, 1) - stress,
    }


EQUATIONS = {
    "acoustic_scattering_discontinuous": acoustics,
    "acoustic_scattering_inclusions": acoustics,
    "acoustic_scattering_maze": acoustics,
    "gray_scott_reaction_diffusion": gray_scott,
    "MHD_64": mhd,
    "MHD_256": mhd,
    "shear_flow": shear,
    "rayleigh_taylor_instability": rayleigh_taylor,
    "supernova_explosion_64": gas,
    "supernova_explosion_128": gas,
    "turbulent_radiative_layer_2D": gas,
    "turbulent_radiative_layer_3D": gas,
    "viscoelastic_instability": viscoelastic,
}


def fields_of(system, channels):
    """Channels `(C, *grid)` as fields `(*components, *grid)` by name."""
    stops = np.cumsum(system.sizes)[:-1]
    return {
        field.name: part.reshape(*[system.dimensions] * field.order, *part.shape[1:])
        for field, part in zip(system.fields, np.split(channels, stops), strict=True)
    }


def tendency(system, channels):
    """The time derivative of all channels; of fields that are given it is zero."""
    x = fields_of(system, channels)
    given = EQUATIONS[system.name](x)
    parts = [given.get(name, np.zeros_like(values)) for name, values in x.items()]
    return np.concatenate([p.reshape(-1, *channels.shape[1:]) for p in parts])


def draw_state(system, generator):
    """Smooth channels; scalars are positive, and a conformation tensor is symmetric."""
    grid = (N,) * system.dimensions
    x = noise(generator, (len(system.channels),), grid, ())
    for channels in system.tensors:
        x[channels[2]] = x[channels[1]]
    for number, name in enumerate(system.channels):
        if name in {"density", "speed_of_sound", "pressure", "A", "B", "c_zz"}:
            x[number] = 1 + np.exp(x[number])
    return x


@pytest.mark.parametrize("name", EQUATIONS)
def test_symmetries_are_those_of_the_equations(name):
    system = get_system(name)
    generator = np.random.default_rng(0)
    grid = (N,) * system.dimensions
    boundary = np.full((system.dimensions, 2), 2)
    x = draw_state(system, generator)
    expected = tendency(system, x)
    assert np.abs(expected).max() > 0.1
    coordinates = [np.arange(N)] * system.dimensions
    drawn = set()
    for _ in range(24):
        symmetry = draw_symmetry(system, boundary, grid, generator, "full", coordinates)
        drawn.add((symmetry.flips, symmetry.permutation))

        def image(values, symmetry=symmetry):
            return symmetry.apply(torch.from_numpy(values)[:, None])[:, 0].numpy()

        np.testing.assert_allclose(tendency(system, image(x)), image(expected), atol=1e-10)
    reflected = {each.axis for each in system.reflections}
    assert len(drawn) > 1 or not (system.flips or system.permute or reflected)


def test_what_no_symmetry_may_do():
    """Axes with gravity, rotation, a mean field, a mean flow or the radius are never reversed."""
    fixed = {
        "planetswe": (0, 1),
        "convective_envelope_rsg": (0,),
        "post_neutron_star_merger": (0, 2),
        "rayleigh_taylor_instability": (2,),
        "MHD_64": (0,),
        "MHD_256": (0,),
        "turbulent_radiative_layer_2D": (0, 1),
        "turbulent_radiative_layer_3D": (0, 2),
        "viscoelastic_instability": (0,),
        "helmholtz_staircase": (1,),
    }
    for name, axes in fixed.items():
        system = get_system(name)
        assert not {*axes} & {*system.flips, *(each.axis for each in system.reflections)}, name
        assert not system.permute, name
    sphere = get_system("planetswe")
    boundary = np.array([[1, 1], [2, 2]])
    assert count_symmetries(sphere, boundary, (16, 32), "full") == 1
    star = get_system("convective_envelope_rsg")
    assert not star.roll
    assert count_symmetries(star, np.full((3, 2), 2), (8, 8, 8), "full") == 4
