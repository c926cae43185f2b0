r"""Proper scores of whole fields, which see whether members have the structure of the truth.

For an ensemble v_1, ..., v_M of a truth u, ||.|| the root of the mean square over cells, the fair energy
score (Gneiting and Raftery, 2007, Eq. 22; fair as in Ferro, 2014) is

    energy = 1/M sum_m ||v_m - u|| - 1/(2 M (M - 1)) sum_{m,n} ||v_m - v_n||,

of the whole grid, and of blocks of `BLOCK` cells along each axis, averaged by how many
cells each has (the last ones may have fewer): the score of whole fields hardly sees small scales. The
variogram score of order 1/2 (Scheuerer and Hamill, 2015) is the mean over pairs (i, j) of cells that are
`LAGS` cells apart along an axis, no pair across the grid's ends, of

    ( |u_i - u_j|^(1/2) - 1/M sum_m |v_mi - v_mj|^(1/2) )^2.

It is not fair: that of few members is larger, by the variance of their mean. All are in the unit of the
field. Cells, and pairs by the mean of both, count by their quadrature weights. With a mask, means are over
cells of the domain, and pairs that are not inside are left out.
"""

import torch
from torch import Tensor

from lola.nn.grid_blocks import block_sums, split_blocks

BLOCK = 8  # cells along each axis
LAGS = (1, 4)  # cells


def member_distances(centred: Tensor, spatial: int, shares: Tensor | None) -> tuple[Tensor, Tensor]:
    """Half the mean distance of two different members, of whole fields and by block.

    Arguments:
        centred: Members less their mean, which is more precise, with shape `(M, N, *grid)`.
        shares: How much each cell counts, with shape `(*grid)`; None if all count the same.

    Returns:
        Distances with shapes `(N)` and `(N, blocks)`, of blocks without a cell that counts 0 or NaN.
    """
    if shares is None:
        shares = centred.new_ones(centred.shape[-spatial:])
    else:
        centred = centred * shares.sqrt()
    blocks = block_sums(shares, BLOCK, spatial).flatten()
    whole = _half_mean_distance(centred.flatten(-spatial)) / shares.sum().sqrt()
    split = split_blocks(centred, BLOCK, spatial).flatten(-spatial - 1, -2)
    return whole, _half_mean_distance(split) / blocks.sqrt()


def _half_mean_distance(values: Tensor) -> Tensor:
    """Half the mean distance of two different members, given `(M, ..., cells)`."""
    count = len(values)
    rows = values.movedim(0, -2)
    gram = rows @ rows.mT
    squares = gram.diagonal(dim1=-2, dim2=-1)
    distances = (squares.unsqueeze(-1) + squares.unsqueeze(-2) - 2 * gram).clamp_(min=0).sqrt_()
    # Rounding leaves the distance of a member to itself above zero
    own = torch.eye(count, dtype=torch.bool, device=values.device)
    return distances.masked_fill_(own, 0).sum((-2, -1)) / (2 * count * (count - 1))


def block_energy_score(
    squares: Tensor, distances: Tensor | None, spatial: int, shares: Tensor | None
) -> Tensor:
    """The fair energy score of blocks, averaged by how much their cells count.

    Arguments:
        squares: (v - u)^2 times the shares, with shape `(M, N, *grid)`.
        distances: Half the mean distance of two members by block, `(N, blocks)`; None of a single member.
        shares: How much each cell counts, with shape `(*grid)`; None if all count the same.

    Returns:
        The score with shape `(N)`.
    """
    counts = block_sums(
        torch.ones_like(squares[0, 0]) if shares is None else shares, BLOCK, spatial
    ).flatten()
    sums = block_sums(squares, BLOCK, spatial).flatten(-spatial)
    scores = (sums / counts).sqrt_().mean(0)
    scores = scores if distances is None else scores - distances
    if shares is None and all(size % BLOCK == 0 for size in squares.shape[-spatial:]):
        return scores.mean(-1)
    inside = counts > 0
    return scores[..., inside] @ (counts[inside] / counts.sum())


def variogram(v: Tensor, spatial: int) -> list[Tensor]:
    """|v_i - v_j|^(1/2) by axis and lag, averaged over members.

    Arguments:
        v: Members with shape `(M, N, *grid)`.

    Returns:
        Pairs with shape `(N, *grid)`, but for the axis, which is shorter by the lag.
    """
    return [
        torch.sub(*_pairs(v, axis, lag)).abs_().sqrt_().mean(0) for axis, lag in _steps(v.shape[-spatial:])
    ]


def variogram_score(u: Tensor, drawn: list[Tensor], shares: Tensor | None) -> Tensor:
    """The variogram score of order 1/2.

    Arguments:
        u: The truth, with shape `(N, *grid)`.
        drawn: The variogram of the members.
        shares: How much each cell counts, with shape `(*grid)`; None if all count the same.

    Returns:
        The score with shape `(N)`; NaN if no pair of cells is inside.
    """
    total, count = u.new_zeros(len(u)), 0.0
    for (axis, lag), pairs in zip(_steps(u.shape[1:]), drawn, strict=True):
        squares = torch.sub(*_pairs(u, axis, lag)).abs_().sqrt_().sub_(pairs).square_()
        if shares is None:
            count += squares[0].numel()
        else:
            first, second = _pairs(shares, axis, lag)
            weights = (first + second) / 2 * ((first > 0) & (second > 0))
            squares, count = squares * weights, count + float(weights.sum())
        total += squares.flatten(1).sum(1)
    return total / count if count else total.fill_(torch.nan)


def _steps(grid: tuple[int, ...]) -> list[tuple[int, int]]:
    """Axes, from the end, and lags."""
    return [(axis, lag) for axis in range(-len(grid), 0) for lag in LAGS if lag < grid[axis]]


def _pairs(x: Tensor, axis: int, lag: int) -> tuple[Tensor, Tensor]:
    count = x.shape[axis] - lag
    return x.narrow(axis, lag, count), x.narrow(axis, 0, count)
