"""Kinds of grid axes, and quadrature against integrals in closed form."""

import numpy as np
import pytest
from layouts import write_layout
from wells import write_well as write_made_up

import lola
from lola.data.geometry import infer_axis, quadrature_weights
from lola.data.well.datasets import Datasets
from lola.data.well.find import find_system

N = 24
NUMBERS = np.arange(N)
ROOTS = -np.cos(np.pi * (NUMBERS + 0.5) / N)
EXTREMA = -np.cos(np.pi * NUMBERS / (N - 1))


def affine(nodes, low, high):
    """Nodes of [-1, 1] on another interval."""
    return low + (high - low) * (nodes + 1) / 2


CENTRES = (NUMBERS + 0.5) / N
AXES = {
    "uniform": ("x", 3 + 2 * NUMBERS),
    "decreasing": ("x", 5.0 - NUMBERS),
    "log": ("x", np.geomspace(1e-3, 10, N)),
    "roots": ("y", affine(ROOTS, 0, 1)),
    "extrema": ("y", affine(EXTREMA, -2, 5)),
    "nonuniform": ("y", np.sort(np.random.default_rng(0).uniform(size=N))),
    "single": ("z", np.zeros(1)),
}
EXPECTED = {"decreasing": "uniform", "roots": "chebyshev", "extrema": "chebyshev", "single": "uniform"}


@pytest.mark.parametrize("name", AXES)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_kind_of_an_axis_follows_from_its_coordinates(name, dtype):
    axis, x = AXES[name]
    assert infer_axis(axis, x.astype(dtype)) == EXPECTED.get(name, name)


@pytest.mark.parametrize(
    ("axis", "x", "grid_type", "kind"),
    [
        ("theta", np.pi * CENTRES, "spherical", "colatitude"),
        ("theta", np.pi * (CENTRES - 0.5), "equiangular", "latitude"),
        ("phi", 2 * np.pi * CENTRES, "spherical", "longitude"),
        ("r", np.geomspace(300, 6700, N), "spherical", "radius"),
        ("log_r", 1 + CENTRES, "spherical", "log_radius"),
        ("lat", 90 - 180 * CENTRES, "cartesian", "latitude"),
        ("longitude", 360 * CENTRES, "cartesian", "longitude"),
        ("theta", CENTRES, "cartesian", "uniform"),
    ],
)
def test_angles_and_radii_are_known_by_name(axis, x, grid_type, kind):
    assert infer_axis(axis, x, grid_type) == kind


def integral(kind, x, function):
    return float(quadrature_weights(kind, x) @ function(np.asarray(x)))


@pytest.mark.parametrize("nodes", [ROOTS, EXTREMA, -np.cos(np.pi * (np.arange(7) + 0.5) / 7), EXTREMA[::-1]])
@pytest.mark.parametrize(("low", "high"), [(-1, 1), (0.5, 4)])
def test_chebyshev_nodes_integrate_polynomials_exactly(nodes, low, high):
    x = affine(nodes, low, high)
    for degree in range(len(nodes)):
        exact = (high ** (degree + 1) - low ** (degree + 1)) / (degree + 1)
        assert integral("chebyshev", x, lambda x, p=degree: x**p) == pytest.approx(
            exact, rel=1e-12, abs=1e-12
        )
    assert (quadrature_weights("chebyshev", x) > 0).all()


def test_clenshaw_curtis_has_its_known_weights():
    """Of three nodes the rule is Simpson's; the first rule of Fejer of three is 4/9, 10/9, 4/9."""
    five = quadrature_weights("chebyshev", np.cos(np.pi * np.arange(5) / 4))
    np.testing.assert_allclose(five, [1 / 15, 8 / 15, 4 / 5, 8 / 15, 1 / 15])
    three = quadrature_weights("chebyshev", np.cos(np.pi * (np.arange(3) + 0.5) / 3))
    np.testing.assert_allclose(three, [4 / 9, 10 / 9, 4 / 9])


def test_trapezoids_are_exact_between_nodes():
    x = AXES["nonuniform"][1]
    assert integral("nonuniform", x, lambda x: 3 * x + 2) == pytest.approx(
        1.5 * (x[-1] ** 2 - x[0] ** 2) + 2 * (x[-1] - x[0])
    )


def test_equal_cells():
    periodic = 2 * np.pi * NUMBERS / N
    assert integral("uniform", periodic, lambda x: 1 + np.cos(3 * x)) == pytest.approx(2 * np.pi)
    assert integral("uniform", CENTRES[::-1], lambda x: x) == pytest.approx(0.5)
    assert quadrature_weights("uniform", np.zeros(1)) == [1]


def test_logarithmic_cells_fill_their_interval():
    edges = np.geomspace(0.01, 100, N + 1)
    x = np.sqrt(edges[1:] * edges[:-1])
    assert quadrature_weights("log", x).sum() == pytest.approx(100 - 0.01)
    fine = np.sqrt((many := np.geomspace(0.01, 100, 2001))[1:] * many[:-1])
    assert integral("log", fine, np.sqrt) == pytest.approx(2 / 3 * (100**1.5 - 0.01**1.5), rel=1e-4)
    with pytest.raises(ValueError, match="must be positive"):
        quadrature_weights("log", x - 1)


@pytest.mark.parametrize("degrees", [False, True])
def test_the_area_of_the_sphere(degrees):
    unit = 180 / np.pi if degrees else 1
    around = quadrature_weights("longitude", 2 * np.pi * CENTRES * unit).sum()
    for kind, angles in (("colatitude", np.pi * CENTRES), ("latitude", np.pi * (CENTRES - 0.5))):
        weights = quadrature_weights(kind, angles * unit)
        assert weights.sum() * around == pytest.approx(4 * np.pi)
        height = np.cos(angles) if kind == "colatitude" else np.sin(angles)
        assert weights @ height**2 == pytest.approx(2 / 3, rel=1e-2)
    poles = np.linspace(0, np.pi, N)  # with nodes at both poles
    assert quadrature_weights("colatitude", poles).sum() == pytest.approx(2)


@pytest.mark.parametrize("edges", [np.linspace(1, 4, N + 1), np.geomspace(1, 4, N + 1)])
def test_the_volume_of_a_shell(edges):
    geometric = edges[1] - edges[0] != pytest.approx(edges[2] - edges[1])
    x = np.sqrt(edges[1:] * edges[:-1]) if geometric else (edges[1:] + edges[:-1]) / 2
    assert quadrature_weights("radius", x).sum() == pytest.approx((4**3 - 1) / 3)
    if geometric:
        assert quadrature_weights("log_radius", np.log(x)).sum() == pytest.approx((4**3 - 1) / 3)


def test_files_and_descriptions_say_the_kinds_of_axes(tmp_path):
    folder = tmp_path / "mine"
    write_layout(folder / "data" / "train" / "a.hdf5", 3, grid=(16, 12, 8))
    system, datasets = find_system(str(folder), Datasets(tmp_path))
    assert system.geometry == (("x", "uniform"), ("y", "chebyshev"), ("z", "uniform"))
    assert datasets.open(system, "train").geometry == ("uniform", "chebyshev", "uniform")
    (folder / "system.yaml").write_text("geometry: {z: log_radius}")
    assert lola.open_well(tmp_path, "mine").geometry == ("uniform", "chebyshev", "log_radius")


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("convective_envelope_rsg", ("radius", "colatitude", "longitude")),
        ("planetswe", ("colatitude", "longitude")),
        ("post_neutron_star_merger", ("log_radius", "colatitude", "longitude")),
        ("turbulence_gravity_cooling", ("uniform",) * 3),
    ],
)
def test_axes_of_the_wells_datasets(tmp_path, name, kinds):
    folder = write_made_up(tmp_path, name)
    system, datasets = find_system(str(folder), Datasets(tmp_path))
    assert datasets.open(system, "test").geometry == kinds
