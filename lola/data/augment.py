r"""Random symmetries of the physics: rolls, flips and permutations of the grid axes.

On a grid with axes $k = 1 .. d$ of $n_k$ cells, an augmentation is, in this order,

    roll      $x(\dots, i_k, \dots) \to x(\dots, i_k - s_k \bmod n_k, \dots)$, on periodic axes only,
    flip      $x(\dots, i_k, \dots) \to x(\dots, n_k - 1 - i_k, \dots)$ and $u_k \to -u_k$,
    permute   axis $j$ becomes what axis $\pi(j)$ was, and $u_j$ what $u_{\pi(j)}$ was,

where $u$ is every vector field, with one component per grid axis; both indices of a second-order field follow
likewise, so that $T_{jk}$ changes sign where just one of its axes is flipped. The boundary codes, a row of
(first end, last end) per axis, follow: a flip exchanges a row's ends and a permutation its rows.

Some reversals are symmetries only if scalar fields change as well. Rayleigh-Bénard convection,

    $\partial_t u + u \cdot \nabla u = \nu \nabla^2 u - \nabla p + b e_z$,
    $\partial_t b + u \cdot \nabla b = \kappa \nabla^2 b$,  $\nabla \cdot u = 0$,

with $b = 1$ at the bottom $z = 0$ and $b = 0$ at the top $z = 1$, is turned over by $z \to 1 - z$ and
$w \to -w$. To keep the walls, buoyancy must become $b'(z) = 1 - b(1 - z)$. The vertical momentum of the
reversed flow then lacks a unit of buoyancy, which the pressure has to give: $\partial_z p' = 1 +
\partial_z [p(1 - z)]$. In the gauge of the data, $\int p = 0$, that is

    $p'(z) = p(1 - z) + z - 1/2$.

The conducting state $b = 1 - z$, $p = z - z^2 / 2 - 1/3$ is its own image. The equations have this symmetry;
the initial states of The Well's runs, $b = \Delta (1 - z)$, do not unless $\Delta = 1$.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lola.core.config import require
from lola.core.keys import Key, numpy_generator
from lola.data.systems import Boundary, Symmetries, System


@dataclasses.dataclass(frozen=True)
class Augmentation:
    r"""One symmetry, to be applied to a trajectory and to its parameters alike."""

    shifts: tuple[int, ...]  # the cells $s_k$ by which each grid axis is rolled
    flips: tuple[bool, ...]  # whether each grid axis is reversed
    permutation: tuple[int, ...]  # the axis $\pi(j)$ that each grid axis $j$ takes its values from
    vectors: tuple[tuple[int, ...], ...]  # channel numbers of each vector field's components
    # pairs (channel number, c) of the scalar fields that become $c - x$ at last
    complements: tuple[tuple[int, float], ...] = ()
    # triples (channel number, grid axis, values along it) that are added at last
    tilts: tuple[tuple[int, int, tuple[float, ...]], ...] = ()
    # channel numbers of each second-order field's components, row by row
    tensors: tuple[tuple[int, ...], ...] = ()

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
        pairs = list(itertools.product(self.permutation, repeat=2))
        for tensor in self.tensors:
            for channel, (row, column) in zip(tensor, pairs, strict=True):
                source[channel] = tensor[row * len(self.flips) + column]
                sign[channel] = -1.0 if self.flips[row] != self.flips[column] else 1.0
        flipped = [first + axis for axis, flip in enumerate(self.flips) if flip]
        order = [*range(first), *(first + axis for axis in self.permutation)]
        if any(self.shifts):
            x = torch.roll(x, self.shifts, dims=tuple(range(first, x.ndim)))
        x = torch.flip(x, flipped).permute(order)
        x = x[source] * x.new_tensor(sign).view(-1, *[1] * (x.ndim - 1))
        for channel, constant in self.complements:
            x[channel] = constant - x[channel]
        for channel, axis, values in self.tilts:
            x[channel] += x.new_tensor(values).view(-1, *[1] * (len(self.flips) - 1 - axis))
        return x

    def boundary(self, codes: np.ndarray) -> np.ndarray:
        """The augmented boundary codes, with shape `(dimensions, 2)`."""
        flips = np.array(self.flips)[:, None]
        return np.where(flips, codes[:, ::-1], codes)[list(self.permutation)]

    def parameters(self, p: Tensor) -> Tensor:
        """The augmented parameters `(P,)`: the last `2 * dimensions` are the boundary codes, flattened."""
        constants, codes = p.split([len(p) - 2 * len(self.flips), 2 * len(self.flips)])
        augmented = self.boundary(codes.view(-1, 2).numpy())
        return torch.cat([constants, torch.from_numpy(augmented).flatten()])


def draw_symmetry(
    system: System,
    boundary: np.ndarray,
    grid: tuple[int, ...],
    generator: np.random.Generator,
    symmetries: Symmetries = "plain",
    coordinates: Sequence[np.ndarray] = (),
) -> Augmentation:
    """Draw a symmetry of the system, uniformly.

    Arguments:
        system: The physical system, which says what its symmetries are.
        boundary: The boundary codes, with shape `(dimensions, 2)`.
        grid: The number of cells along each grid axis. Axes are exchanged only when all are equal.
        generator: The source of randomness.
        symmetries: `plain` are those that move cells and vectors alone, `full` also those that change scalar
            fields. `published` reverses every axis of a system that has any reversal, as the published
            training did: for Rayleigh-Bénard convection that turns gravity over.
        coordinates: Those of the cells along each grid axis; `full` needs them.

    Raises:
        ConfigError: Cells along an axis to be reversed do not lie symmetrically.
    """
    axes = range(system.dimensions)
    reflections = {reflection.axis: reflection for reflection in system.reflections if symmetries == "full"}
    heights = {axis: _heights(system, axis, coordinates) for axis in reflections}
    rolls, may_flip, exchange = _freedom(system, boundary, grid, symmetries)
    shifts = tuple(int(generator.integers(rolls[k])) if rolls[k] > 1 else 0 for k in axes)
    flips = tuple(bool(generator.integers(2)) if may_flip[k] else False for k in axes)
    reflected = [reflection for axis, reflection in reflections.items() if flips[axis]]
    number = system.channels.index
    return Augmentation(
        shifts=shifts,
        flips=flips,
        permutation=tuple(int(k) for k in (generator.permutation(len(axes)) if exchange else axes)),
        vectors=system.vectors,
        tensors=system.tensors,
        complements=tuple(
            (number(name), c) for reflection in reflected for name, c in reflection.complements
        ),
        tilts=tuple(
            (number(name), reflection.axis, tuple(c * heights[reflection.axis]))
            for reflection in reflected
            for name, c in reflection.tilts
        ),
    )


def count_symmetries(
    system: System, boundary: np.ndarray, grid: tuple[int, ...], symmetries: Symmetries = "plain"
) -> int:
    """How many symmetries `draw_symmetry` chooses from, the identity among them."""
    rolls, may_flip, exchange = _freedom(system, boundary, grid, symmetries)
    return math.prod(rolls) * 2 ** sum(may_flip) * (math.factorial(len(grid)) if exchange else 1)


def draw_variant(
    system: System,
    boundary: np.ndarray,
    grid: tuple[int, ...],
    key: Key,
    variant: int,
    symmetries: Symmetries = "plain",
    coordinates: Sequence[np.ndarray] = (),
) -> Augmentation:
    """The symmetry of a numbered variant: a pure function of the key and the number.

    Variant 0 is the identity. Each of the next is drawn from the stream `(*key, number)` until it is none of
    those before it; when all symmetries have been used, another round begins.

    Arguments:
        system, boundary, grid, symmetries, coordinates: As for `draw_symmetry`.
        key: Names the trajectory, such as `(seed, id)`.
        variant: The number.
    """
    axes = tuple(range(system.dimensions))
    identity = Augmentation(
        (0,) * len(axes), (False,) * len(axes), axes, system.vectors, tensors=system.tensors
    )
    total = count_symmetries(system, boundary, grid, symmetries)
    chosen, used = identity, {identity}
    for number in range(1, variant + 1):
        if len(used) == total:
            used = set()
        generator = numpy_generator(*key, number)
        chosen = draw_symmetry(system, boundary, grid, generator, symmetries, coordinates)
        while chosen in used:
            chosen = draw_symmetry(system, boundary, grid, generator, symmetries, coordinates)
        used.add(chosen)
    return chosen


def _freedom(
    system: System, boundary: np.ndarray, grid: tuple[int, ...], symmetries: Symmetries
) -> tuple[list[int], list[bool], bool]:
    """The number of shifts of each axis, whether it may be reversed, and whether axes may be exchanged."""
    axes = range(system.dimensions)
    periodic = (np.asarray(boundary) == Boundary.PERIODIC).all(axis=1)
    reflected = {reflection.axis for reflection in system.reflections if symmetries == "full"}
    everywhere = symmetries == "published" and bool(system.flips)
    rolls = [grid[k] if system.roll and periodic[k] else 1 for k in axes]
    return (
        rolls,
        [k in system.flips or k in reflected or everywhere for k in axes],
        system.permute and len(set(grid)) == 1,
    )


def _heights(system: System, axis: int, coordinates: Sequence[np.ndarray]) -> np.ndarray:
    """The cells' coordinates along a reflected axis, from its middle."""
    require(
        len(coordinates) == system.dimensions,
        f"full symmetries of {system.name} need the coordinates of its cells",
    )
    z = np.asarray(coordinates[axis], dtype=np.float64)
    heights = z - (z[0] + z[-1]) / 2
    require(
        bool(np.allclose(heights, -heights[::-1], atol=1e-4 * float(np.ptp(z)))),
        f"cells of {system.name} along axis {axis} do not lie symmetrically; use plain symmetries",
    )
    return heights
