r"""Drift of what the physics conserves.

Let q be the density of a quantity whose total over the domain stays the same. With <.> the mean over the
domain, u_0 the last state that a rollout knows and v one of its later states,

    drift = | <q(v)> - <q(u_0)> | / < |q(u_0)| >,

where |q| of a vector's component is the length of the vector, so that a total of zero has a drift as well.

What is conserved, and between which boundaries, is a part of a system's description.
"""

import numpy as np
import torch
from torch import Tensor

from lola.data.systems import Invariant, System
from lola.evaluation.scores.quadrature import grid_mean


def conserved_quantities(system: System, boundary: np.ndarray) -> tuple[Invariant, ...]:
    """What a simulation conserves.

    Arguments:
        boundary: The `Boundary` at both ends of each axis, with shape `(d, 2)`.
    """
    codes = {int(code) for code in boundary.flat}
    return tuple(invariant for invariant in system.conserved if codes <= set(invariant.boundaries))


def drift(known: Tensor, means: Tensor, *, spatial: int, weights: Tensor | None = None) -> Tensor:
    """The drift of a conserved quantity, without unit.

    Arguments:
        known: Its density in the last known state, with shape `(components, *grid)`.
        means: Means over the domain of its density in predicted states, with shape `(..., components, L)`.
        weights: Those of the cells, with shape `(cells)`; None if all count the same.

    Returns:
        The drift, with shape `(..., components, L)`.
    """
    known = known.double()
    length = grid_mean(torch.linalg.vector_norm(known, dim=0), spatial, weights)
    start = grid_mean(known, spatial, weights).unsqueeze(-1)
    return (means.double() - start).abs() / length
