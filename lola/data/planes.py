"""Pictures of states on grids of any number of axes are planes."""

from collections.abc import Sequence

import numpy as np

THICKNESS = 8
"""A line of so many cells is drawn as a bar one cell thick."""


def as_plane(values: np.ndarray, dimensions: int) -> np.ndarray:
    """Values `(..., *grid)` as `(..., X, Y)`: a line as a bar, a volume by the middle of its last axis."""
    if dimensions == 1:
        shape = (*values.shape, plane_shape(values.shape[-1:])[1])
        return np.broadcast_to(values[..., None], shape)
    return values if dimensions == 2 else values[..., values.shape[-1] // 2]


def plane_shape(grid: Sequence[int]) -> tuple[int, int]:
    """The shape of the plane that shows a grid."""
    return (grid[0], max(1, grid[0] // THICKNESS)) if len(grid) == 1 else (grid[0], grid[1])
