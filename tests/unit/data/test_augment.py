import dataclasses
import itertools

import numpy as np
import pytest
import torch

from lola.core.errors import ConfigError
from lola.data.augment import Augmentation, count_symmetries, draw_symmetry, draw_variant
from lola.data.description import EULER, RAYLEIGH_BENARD, TURBULENCE_GRAVITY_COOLING
from lola.data.systems import Boundary, Field, System
from lola.simulate.euler import EulerConfig, draw_quadrants, solve

WALL, OPEN, PERIODIC = Boundary


def symmetry(shifts=(0, 0), flips=(False, False), permutation=(0, 1)):
    return Augmentation(shifts=shifts, flips=flips, permutation=permutation, vectors=EULER.vectors)


def draws(system, boundary, grid, count=200):
    return [draw_symmetry(system, boundary, grid, np.random.default_rng(seed)) for seed in range(count)]


@pytest.fixture
def x():
    return torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def simulate(initial, boundary):
    """A trajectory `(C, L, n, n)` from density, velocity and pressure."""
    config = EulerConfig(resolution=initial.shape[-1], outputs=4, end=0.2)
    fields = solve(initial, config, boundary, 1.4)
    assert fields is not None
    momentum = np.moveaxis(fields["momentum"], -1, 0)
    scalars = [fields[name] for name in ("energy", "density", "pressure")]
    return torch.from_numpy(np.stack([*scalars, *momentum]))


@pytest.mark.parametrize("boundary", ["open", "periodic"])
@pytest.mark.parametrize("flips", list(itertools.product([False, True], repeat=2)))
@pytest.mark.parametrize("permutation", [(0, 1), (1, 0)])
def test_augmenting_commutes_with_the_physics(boundary, flips, permutation):
    """To simulate from an augmented state is to augment the simulation: this fixes every sign and order."""
    config = EulerConfig(resolution=24, jumps=(0.5, 1.5), speed=0.5)  # Jumps that need no entropy fix.
    initial = draw_quadrants(config, boundary, np.random.default_rng(5))
    shifts = (5, 17) if boundary == "periodic" else (0, 0)
    augmentation = Augmentation(shifts=shifts, flips=flips, permutation=permutation, vectors=((1, 2),))
    augmented = augmentation.apply(torch.from_numpy(initial)[:, None])[:, 0].numpy()
    expected = simulate(augmented, boundary)
    result = symmetry(shifts, flips, permutation).apply(simulate(initial, boundary))
    assert expected[:, -1].std() > 0.1
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


def test_elements_have_the_orders_of_the_group(x):
    flip, swap, roll = symmetry(flips=(True, False)), symmetry(permutation=(1, 0)), symmetry(shifts=(3, 0))
    quarter = symmetry(flips=(True, False), permutation=(1, 0))
    assert torch.equal(flip.apply(flip.apply(x)), x)
    assert torch.equal(swap.apply(swap.apply(x)), x)
    assert torch.equal(symmetry(shifts=(5, 0)).apply(roll.apply(x)), x)
    turned = x
    for k in range(4):
        turned = quarter.apply(turned)
        assert torch.equal(turned, x) == (k == 3)


def test_scalars_of_vectors_keep_their_values(x):
    """Speed is a scalar, so it moves but keeps its values; divergence and |vorticity| do likewise."""
    x = x.double()

    def scalars(x):
        u, v = x[3], x[4]

        def slope(f, axis):
            return torch.roll(f, -1, axis) - torch.roll(f, 1, axis)

        return torch.stack([u**2 + v**2, slope(u, 1) + slope(v, 2), (slope(v, 1) - slope(u, 2)).abs()])

    for augmentation in draws(EULER, np.full((2, 2), PERIODIC), (8, 8), 30):
        without = Augmentation(augmentation.shifts, augmentation.flips, augmentation.permutation, vectors=())
        torch.testing.assert_close(scalars(augmentation.apply(x)), without.apply(scalars(x)))


def test_the_input_is_kept_and_never_shared(x):
    kept = x.clone()
    for augmentation in [symmetry(), symmetry((1, 0), (True, True), (1, 0))]:
        augmentation.apply(x).zero_()
        assert torch.equal(x, kept)


def test_boundary_codes_follow_the_field():
    """Codes follow the cells at the ends: fields whose ends hold the codes show where they go."""
    codes = np.array([[WALL, OPEN], [OPEN, PERIODIC]])
    x = torch.full((1, 1, 5, 5), -1.0)
    x[0, 0, 0, 2], x[0, 0, -1, 2], x[0, 0, 2, 0], x[0, 0, 2, -1] = WALL, OPEN, OPEN, PERIODIC
    for flips in itertools.product([False, True], repeat=2):
        for permutation in [(0, 1), (1, 0)]:
            augmentation = Augmentation((0, 0), flips, permutation, vectors=())
            y = augmentation.apply(x)[0, 0]
            expected = [[y[0, 2], y[-1, 2]], [y[2, 0], y[2, -1]]]
            assert augmentation.boundary(codes).tolist() == expected
            parameters = augmentation.parameters(torch.tensor([1.4, 7.0, *codes.flatten()]))
            torch.testing.assert_close(parameters, torch.tensor([1.4, 7.0, *np.ravel(expected)]))


def test_only_symmetries_of_the_system_are_drawn():
    for augmentation in draws(EULER, np.array([[OPEN, OPEN], [PERIODIC, PERIODIC]]), (8, 8)):
        assert augmentation.shifts[0] == 0
    for augmentation in draws(EULER, np.full((2, 2), PERIODIC), (8, 16)):
        assert augmentation.permutation == (0, 1)
    convection = draws(RAYLEIGH_BENARD, np.array([[PERIODIC, PERIODIC], [WALL, WALL]]), (16, 16))
    assert {a.flips for a in convection} == {(False, False), (True, False)}
    assert {a.permutation for a in convection} == {(0, 1)}
    assert {a.shifts[1] for a in convection} == {0}
    turbulence = draws(TURBULENCE_GRAVITY_COOLING, np.full((3, 2), PERIODIC), (4, 4, 4))
    assert {a.shifts for a in turbulence} == {(0, 0, 0)}


def test_all_symmetries_are_drawn():
    drawn = draws(EULER, np.full((2, 2), PERIODIC), (4, 4), 600)
    assert len({(a.shifts, a.flips, a.permutation) for a in drawn}) == 16 * 4 * 2
    drawn = draws(TURBULENCE_GRAVITY_COOLING, np.full((3, 2), OPEN), (4, 4, 4), 600)
    assert len({(a.flips, a.permutation) for a in drawn}) == 8 * 6


def test_three_dimensions_permute_cyclically():
    x = torch.arange(6.0)[:, None, None, None, None] + torch.zeros(6, 1, 2, 3, 4)
    vectors = TURBULENCE_GRAVITY_COOLING.vectors
    augmentation = Augmentation((0, 0, 0), (False, True, False), (2, 0, 1), vectors)
    y = augmentation.apply(x)
    assert y.shape == (6, 1, 4, 2, 3)
    assert y[:, 0, 0, 0, 0].tolist() == [0, 1, 2, 5, 3, -4]


@pytest.mark.parametrize("dimensions", [2, 3])
def test_the_gradient_of_a_vector_turns_with_it(dimensions):
    """T_jk = d u_j / d x_k of the image is the image of T, for every symmetry."""
    system = System(
        name="strain",
        datasets=("strain",),
        dimensions=dimensions,
        fields=(Field("density"), Field("velocity", 1), Field("gradient", 2)),
        flips=tuple(range(dimensions)),
        permute=True,
        roll=True,
    )
    periodic, grid = np.full((dimensions, 2), PERIODIC), (4,) * dimensions

    def with_gradient(x):
        u = x[1 : 1 + dimensions]
        slopes = [torch.roll(u, -1, axis) - torch.roll(u, 1, axis) for axis in range(-dimensions, 0)]
        return torch.cat([x[: 1 + dimensions], torch.stack(slopes, dim=1).flatten(0, 1)])

    x = with_gradient(torch.randn(1 + dimensions, 2, *grid))
    for seed in range(60):
        augmentation = draw_symmetry(system, periodic, grid, np.random.default_rng(seed))
        image = augmentation.apply(x)
        torch.testing.assert_close(image, with_gradient(image))


CONVECTION = np.array([[PERIODIC, PERIODIC], [WALL, WALL]])
Z = (1 - np.cos(np.pi * (np.arange(16) + 0.5) / 16)) / 2  # The Well's cells: closer at the walls.
CELLS = (np.arange(8) / 2, Z)


def turned_over():
    """The reflection of Rayleigh-Benard convection about its middle, and nothing else."""
    for seed in range(100):
        generator = np.random.default_rng(seed)
        drawn = draw_symmetry(RAYLEIGH_BENARD, CONVECTION, (8, 16), generator, "full", CELLS)
        if drawn.flips == (False, True):
            return dataclasses.replace(drawn, shifts=(0, 0))
    raise AssertionError("the vertical axis is never reversed")


def test_the_conducting_state_is_its_own_image():
    """At rest, heat is conducted and pressure is hydrostatic, in the gauge of no mean."""
    b = torch.from_numpy(1 - Z).expand(8, 16)
    p = torch.from_numpy(Z - Z**2 / 2 - 1 / 3).expand(8, 16)
    x = torch.stack([b, p, torch.zeros_like(b), torch.zeros_like(b)])[:, None]
    torch.testing.assert_close(turned_over().apply(x), x)
    published = dataclasses.replace(turned_over(), complements=(), tilts=())
    assert not torch.allclose(published.apply(x), x, atol=0.1)  # Cold below, hot above: gravity turned over.


def test_turning_convection_over_commutes_with_its_forces():
    """The acceleration -grad p + b e_z and the heating -u . grad b of the image are the image of those."""
    generator = np.random.default_rng(0)
    modes = [(generator.normal(), k, m, generator.uniform(0, 6)) for k in range(3) for m in range(3)]

    def smooth(shift):
        return sum(
            a * np.cos(np.pi * k * CELLS[0][:, None] / 2 + phase + shift) * np.cos(m * np.pi * Z + shift)
            for a, k, m, phase in modes
        )

    x = torch.from_numpy(np.stack([smooth(shift) for shift in range(4)]))[:, None]

    def forces(x):
        b, p, u, w = x[:, 0].numpy()
        p_x, b_x = ((np.roll(f, -1, 0) - np.roll(f, 1, 0)) for f in (p, b))
        p_z, b_z = (np.gradient(f, Z, axis=1) for f in (p, b))
        return torch.from_numpy(np.stack([-u * b_x - w * b_z, 0 * p, -p_x, b - p_z]))[:, None]

    symmetry = turned_over()
    plain = dataclasses.replace(symmetry, complements=((0, 0.0),), tilts=())  # A rate has no constant.
    torch.testing.assert_close(forces(symmetry.apply(x)), plain.apply(forces(x)), rtol=1e-9, atol=1e-9)


def test_full_and_published_symmetries_are_drawn():
    def flips(system, boundary, *options):
        grid = (8, 16, 8)[: system.dimensions]
        drawn = [draw_symmetry(system, boundary, grid, np.random.default_rng(i), *options) for i in range(60)]
        return {a.flips for a in drawn}, {bool(a.complements) for a in drawn}

    every = set(itertools.product([False, True], repeat=2))
    assert flips(RAYLEIGH_BENARD, CONVECTION, "full", CELLS) == (every, {False, True})
    assert flips(RAYLEIGH_BENARD, CONVECTION, "published") == (every, {False})
    assert flips(EULER, np.full((2, 2), OPEN), "published") == (every, {False})
    for symmetries in ("full", "published"):
        drawn = [
            draw_symmetry(EULER, np.full((2, 2), OPEN), (8, 8), np.random.default_rng(3), each)
            for each in ("plain", symmetries)
        ]
        assert drawn[0] == drawn[1]


@pytest.mark.parametrize(("cells", "message"), [((), "need the coordinates"), ((Z, Z**2), "symmetrically")])
def test_a_reflection_needs_symmetric_cells(cells, message):
    with pytest.raises(ConfigError, match=message):
        draw_symmetry(RAYLEIGH_BENARD, CONVECTION, (8, 16), np.random.default_rng(0), "full", cells)


def variants(system, boundary, grid, count, symmetries="plain", seed=0):
    coordinates = [(np.arange(cells) + 0.5) / cells for cells in grid]
    return [
        draw_variant(system, boundary, grid, (seed, "set/train/file#3"), number, symmetries, coordinates)
        for number in range(count)
    ]


@pytest.mark.parametrize(
    ("system", "boundary", "grid", "symmetries", "total"),
    [
        (EULER, np.full((2, 2), OPEN), (4, 4), "plain", 8),
        (EULER, np.full((2, 2), OPEN), (4, 8), "plain", 4),
        (EULER, np.full((2, 2), PERIODIC), (4, 2), "plain", 32),
        (RAYLEIGH_BENARD, np.array([[PERIODIC] * 2, [WALL] * 2]), (5, 4), "plain", 10),
        (RAYLEIGH_BENARD, np.array([[PERIODIC] * 2, [WALL] * 2]), (5, 4), "full", 20),
        (RAYLEIGH_BENARD, np.array([[PERIODIC] * 2, [WALL] * 2]), (5, 4), "published", 20),
        (TURBULENCE_GRAVITY_COOLING, np.full((3, 2), OPEN), (4, 4, 4), "plain", 48),
    ],
)
def test_variants_repeat_no_symmetry_while_others_remain(system, boundary, grid, symmetries, total):
    assert count_symmetries(system, boundary, grid, symmetries) == total
    found = variants(system, boundary, grid, 2 * total, symmetries)
    assert len(set(found[:total])) == total
    assert set(found[total:]) == set(found[:total])  # and then another round


def test_variants_are_functions_of_the_key_and_the_number():
    boundary = np.full((2, 2), PERIODIC)
    few, many = (variants(EULER, boundary, (16, 16), count) for count in (4, 8))
    assert many[:4] == few
    assert many != variants(EULER, boundary, (16, 16), 8, seed=1)


def test_the_first_variant_is_the_trajectory_itself(x):
    assert torch.equal(variants(EULER, np.full((2, 2), PERIODIC), (8, 8), 1)[0].apply(x), x)
