r"""Random symmetries of the physics: rolls, flips and permutations of the grid axes.

On a grid with axes $k = 1 .. d$ of $n_k$ cells, an augmentation is, in this order,

    roll      $x(\dots, i_k, \dots) \to x(\dots, i_k - s_k \bmod n_k, \dots)$, on periodic axes only,
    flip      $x(\dots, i_k, \dots) \to x(\dots, n_k - 1 - i_k, \dots)$ and $u_k \to -u_k$,
    permute   axis $j$ becomes what axis $\pi(j)$ was, and $u_j$ what $u_{\pi(j)}$ was,

where $u$ is every vector field, with one component per grid axis. The boundary codes, a row of (first end,
last end) per axis, follow: a flip exchanges a row's ends and a permutation its rows.
"""

import dataclasses

import numpy as np
import torch
from torch import Tensor

from lola.data.systems import System

PERIODIC = 2  # The Well's codes: wall 0, open 1, periodic 2.


@dataclasses.dataclass(frozen=True)
class Augmentation:
    r"""One symmetry, to be applied to a trajectory and to its parameters alike.

    Arguments:
        shifts: The cells $s_k$ by which each grid axis is rolled.
        flips: Whether each grid axis is reversed.
        permutation: The axis $\pi(j)$ that each grid axis $j$ takes its values from.
        vectors: Channel numbers of each vector field's components.
    """

    shifts: tuple[int, ...]
    flips: tuple[bool, ...]
    permutation: tuple[int, ...]
    vectors: tuple[tuple[int, ...], ...]

    def apply(self, x: Tensor) -> Tensor:
        """The augmented trajectory, with shape `(C, L, *grid)` but for the order of the grid axes.

        The input is never written to.
        """
        first = x.ndim - len(self.flips)
        source, sign = list(range(len(x))), [1.0] * len(x)
        for vector in self.vectors:
            for channel, axis in zip(vector, self.permutation, strict=True):
                source[channel] = vector[axis]
                sign[channel] = -1.0 if self.flips[axis] else 1.0
        flipped = [first + axis for axis, flip in enumerate(self.flips) if flip]
        order = [*range(first), *(first + axis for axis in self.permutation)]
        if any(self.shifts):
            x = torch.roll(x, self.shifts, dims=tuple(range(first, x.ndim)))
        x = torch.flip(x, flipped).permute(order)
        return x[source] * x.new_tensor(sign).view(-1, *[1] * (x.ndim - 1))

    def boundary(self, codes: np.ndarray) -> np.ndarray:
        """The augmented boundary codes, with shape `(dimensions, 2)`."""
        flips = np.array(self.flips)[:, None]
        return np.where(flips, codes[:, ::-1], codes)[list(self.permutation)]

    def parameters(self, p: Tensor) -> Tensor:
        """The augmented parameters `(P,)`: the last `2 * dimensions` are the boundary codes, flattened."""
        constants, codes = p.split([len(p) - 2 * len(self.flips), 2 * len(self.flips)])
        augmented = self.boundary(codes.view(-1, 2).numpy())
        return torch.cat([constants, torch.from_numpy(augmented).flatten()])


def draw(
    system: System, boundary: np.ndarray, grid: tuple[int, ...], generator: np.random.Generator
) -> Augmentation:
    """Draw a symmetry of the system, uniformly.

    Arguments:
        system: The physical system, which says what its symmetries are.
        boundary: The boundary codes, with shape `(dimensions, 2)`.
        grid: The number of cells along each grid axis. Axes are exchanged only when all are equal.
        generator: The source of randomness.
    """
    axes = range(system.dimensions)
    periodic = (np.asarray(boundary) == PERIODIC).all(axis=1)
    exchange = system.permute and len(set(grid)) == 1
    return Augmentation(
        shifts=tuple(int(generator.integers(grid[k])) if system.roll and periodic[k] else 0 for k in axes),
        flips=tuple(bool(generator.integers(2)) if k in system.flips else False for k in axes),
        permutation=tuple(int(k) for k in (generator.permutation(len(axes)) if exchange else axes)),
        vectors=system.vectors,
    )
