import numpy as np
import pytest
import torch

from lola.data.description import EULER, SYSTEMS
from lola.data.systems import Boundary
from lola.evaluation.scores.conservation import conserved_quantities, drift

WALLS, OPEN, PERIODIC = (np.full((2, 2), code) for code in Boundary)


def test_boundaries_decide_what_is_conserved():
    assert [each.name for each in conserved_quantities(EULER, PERIODIC)] == ["mass", "momentum", "energy"]
    assert [each.name for each in conserved_quantities(EULER, WALLS)] == ["mass", "energy"]
    assert not conserved_quantities(EULER, OPEN)
    assert not conserved_quantities(EULER, np.array([[2, 2], [1, 1]]))
    assert not conserved_quantities(SYSTEMS["rayleigh_benard"], np.array([[2, 2], [0, 0]]))
    assert not conserved_quantities(SYSTEMS["turbulence_gravity_cooling"], np.ones((3, 2)))


def test_drift_is_relative_to_the_known_total():
    known = 2 + 0.5 * torch.rand(1, 8, 8)
    means = known.mean((1, 2)) * torch.tensor([[[1.0, 1.1, 0.5]]])
    assert drift(known, means, spatial=2)[0, 0].tolist() == pytest.approx([0, 0.1, 0.5], abs=1e-6)


def test_a_momentum_of_zero_drifts_relative_to_its_length():
    known = torch.tensor([3.0, -3.0]).repeat(2, 4, 2)
    known[1] *= 4 / 3
    means = torch.tensor([[[0.5]], [[-1.0]]]).transpose(0, 1)
    assert drift(known, means, spatial=2).flatten().tolist() == pytest.approx([0.1, 0.2])
