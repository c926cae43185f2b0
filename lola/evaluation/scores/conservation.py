r"""Drift of what the physics conserves.

Let q be the density of a quantity whose total over the domain stays the same. With <.> the mean over the
grid, u_0 the last state that a rollout knows and v one of its later states,

    drift = | <q(v)> - <q(u_0)> | / < |q(u_0)| >,

where |q| of a vector's component is the length of the vector, so that a total of zero has a drift as well.

What is conserved, and between which boundaries, is a part of a system's description.
"""

import numpy as np
import torch
from torch import Tensor

from lola.data.systems import Invariant, System


def conserved_quantities(system: System, boundary: np.ndarray) -> tuple[Invariant, ...]:
    """What a simulation conserves.

    Arguments:
        boundary: The `Boundary` at both ends of each axis, with shape `(d, 2)`.
    """
    codes = {int(code) for code in boundary.flat}
    return tuple(invariant for invariant in system.conserved if codes <= set(invariant.boundaries))


def drift(known: Tensor, means: Tensor, *, spatial: int) -> Tensor:
    """The drift of a conserved quantity, without unit.

    Arguments:
        known: Its density in the last known state, with shape `(components, *grid)`.
        means: Means over the grid of its density in predicted states, with shape `(..., components, L)`.

    Returns:
        The drift, with shape `(..., components, L)`.
    """
    known = known.double()
    length = torch.linalg.vector_norm(known, dim=0).mean()
    start = known.mean(tuple(range(-spatial, 0))).unsqueeze(-1)
    return (means.double() - start).abs() / length
