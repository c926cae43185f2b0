import numpy as np
import pytest

from lola.data.planes import as_plane, plane_shape


@pytest.mark.parametrize("grid", [(5,), (32,), (6, 4), (6, 4, 3)])
def test_states_are_shown_as_planes(grid):
    values = np.random.default_rng(0).normal(size=(2, 3, *grid))
    plane = as_plane(values, len(grid))
    assert plane.shape == (2, 3, *plane_shape(grid))
    expected = {1: values[..., None], 2: values, 3: values[..., 1]}[len(grid)]
    assert np.array_equal(plane, np.broadcast_to(expected, plane.shape))
