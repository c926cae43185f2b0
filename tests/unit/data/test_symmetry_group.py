"""The symmetries of a system are a group, and act on states and on boundary codes alike."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lola.data.augment import Augmentation, count_symmetries, draw_symmetry
from lola.data.description import EULER, RAYLEIGH_BENARD, TURBULENCE_GRAVITY_COOLING
from lola.data.systems import Boundary

WALL, OPEN, PERIODIC = Boundary


def systems_and_grids():
    """Systems whose grids, boundaries and symmetries are all of them."""
    return st.sampled_from(
        [
            (EULER, np.full((2, 2), PERIODIC), (4, 4), "plain"),
            (EULER, np.array([[PERIODIC] * 2, [WALL, OPEN]]), (3, 5), "plain"),
            (RAYLEIGH_BENARD, np.array([[PERIODIC] * 2, [WALL] * 2]), (5, 4), "plain"),
            (TURBULENCE_GRAVITY_COOLING, np.full((3, 2), OPEN), (3, 3, 3), "plain"),
        ]
    )


def key_of(augmentation, boundary, x):
    """What an augmentation does to distinct values."""
    return augmentation.apply(x).flatten().tolist(), augmentation.boundary(boundary).tolist()


@settings(max_examples=40, deadline=None)
@given(case=systems_and_grids(), seed=st.integers(0, 2**32 - 1), count=st.integers(2, 4))
def test_powers_of_a_symmetry_return_to_the_identity(case, seed, count):
    """Every element of a finite group has an order; the power before it is the inverse."""
    system, boundary, grid, symmetries = case
    symmetry = draw_symmetry(system, boundary, grid, np.random.default_rng(seed), symmetries)
    x = torch.arange(1.0, 1 + len(system.channels) * np.prod(grid)).reshape(-1, 1, *grid)
    codes, start, order = boundary, x, 0
    while order == 0 or not (torch.equal(x, start) and np.array_equal(codes, boundary)):
        x, codes, order = symmetry.apply(x), symmetry.boundary(codes), order + 1
        assert order <= count_symmetries(system, boundary, grid, symmetries) * 2
    inverse = start
    for _ in range(order - 1):
        inverse = symmetry.apply(inverse)
    assert torch.equal(symmetry.apply(inverse), start)


@settings(max_examples=25, deadline=None)
@given(seeds=st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)), wall=st.booleans())
def test_two_symmetries_in_a_row_are_a_symmetry(seeds, wall):
    boundary = np.full((2, 2), WALL if wall else PERIODIC)
    x = torch.arange(1.0, 46.0).reshape(5, 1, 3, 3)
    group = [
        Augmentation(shifts, flips, permutation, EULER.vectors)
        for shifts in ([(0, 0)] if wall else itertools.product(range(3), repeat=2))
        for flips in itertools.product((False, True), repeat=2)
        for permutation in itertools.permutations(range(2))
    ]
    images = [key_of(each, boundary, x) for each in group]
    assert len(group) == count_symmetries(EULER, boundary, (3, 3))
    assert len({str(image) for image in images}) == len(group)
    first, second = (draw_symmetry(EULER, boundary, (3, 3), np.random.default_rng(seed)) for seed in seeds)
    assert key_of(second, boundary, first.apply(x)) in images


@settings(max_examples=40, deadline=None)
@given(case=systems_and_grids(), seed=st.integers(0, 2**32 - 1))
def test_parameters_follow_the_states(case, seed):
    """Cells at the ends of axes that hold the boundary codes show where the codes of an image are."""
    system, boundary, grid, symmetries = case
    drawn = draw_symmetry(system, boundary, grid, np.random.default_rng(seed), symmetries)
    symmetry = dataclasses.replace(drawn, shifts=(0,) * len(grid), vectors=())
    x = torch.full((1, 1, *grid), -1.0)
    middle = tuple(size // 2 for size in grid)
    for axis, side in itertools.product(range(len(grid)), (0, 1)):
        cell = (*middle[:axis], -side, *middle[axis + 1 :])
        x[(0, 0, *cell)] = float(boundary[axis, side])
    image = symmetry.apply(x)[0, 0]
    center = [
        (grid[k] - 1 - grid[k] // 2) if symmetry.flips[k] else grid[k] // 2 for k in symmetry.permutation
    ]
    found = [
        [float(image[(*center[:axis], -side, *center[axis + 1 :])]) for side in (0, 1)]
        for axis in range(len(grid))
    ]
    parameters = symmetry.parameters(torch.tensor([1.4, *boundary.flatten()], dtype=torch.float32))
    assert parameters.tolist() == pytest.approx([1.4, *np.ravel(found)])
