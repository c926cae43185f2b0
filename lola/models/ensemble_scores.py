r"""Proper scores of small ensembles, as objectives.

With `x_1 ... x_M` an ensemble and `x` what it predicts, the almost fair CRPS of an element is (Lang et al.,
2024, arXiv 2412.15832)

    C = 1/M sum_j |x_j - x|  -  (1 - (1 - alpha) / M) / (2 M (M - 1)) sum_jk |x_j - x_k|

For alpha = 1 its expectation is that of the CRPS of the distribution that members are drawn from, but the
last member is free when all others are right; below 1 it is not. Equal members have no gradient of their
distance.

The CRPS sees one element at a time: members may be rough of which every element is right. The energy score
(Gneiting and Raftery, 2007) sees many at once. With `|x|_b` the root of the mean square of the elements of a
block `b`, some cells of one state with all of their channels,

    E = 1/M sum_j |x_j - x|_b  -  (1 - (1 - alpha) / M) / (2 M (M - 1)) sum_jk |x_j - x_k|_b

which is C for a block of a single element.
"""

import itertools

import torch
from torch import Tensor

from lola.nn.grid_blocks import split_blocks


def almost_fair_crps(ensemble: Tensor, x: Tensor, alpha: float) -> Tensor:
    """C of every element.

    Arguments:
        ensemble: Members with shape `(B, M, *)`, M >= 2.
        x: What they predict, with shape `(B, *)`.
        alpha: 1 for the fair CRPS, 0 for that of the ensemble's own distribution.

    Returns:
        The scores, with shape `(B, *)`; those of fair ensembles may be negative.
    """
    error = (ensemble - x[:, None]).abs().mean(dim=1)
    distances = [one.abs() for one in _differences(ensemble)]
    return error - _pair_weight(ensemble, alpha) * torch.stack(distances).sum(dim=0)


def energy_scores(
    ensemble: Tensor, x: Tensor, alpha: float, block: int, valid: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """E of every block.

    Arguments:
        ensemble: Members with shape `(B, M, C, L, *grid)`, M >= 2.
        x: What they predict, with shape `(B, C, L, *grid)`.
        alpha: As for `almost_fair_crps`.
        block: Cells of a block along each grid axis; the last ones may have fewer.
        valid: True in cells of the domain, with shape `(B, 1, 1, *grid)`; others are left out. None if all
            are.

    Returns:
        The scores `(B, 1, L, *blocks)`, and the cells of each block, with shape `(B, 1, 1, *blocks)`.
    """
    inside = torch.ones_like(x[:, :1, :1]) if valid is None else valid.to(x)
    cells = split_blocks(inside, block, x.ndim - 3).sum(dim=-1)
    scale = (cells * x.shape[1]).clamp(min=1).rsqrt()

    def norm(difference: Tensor) -> Tensor:
        blocks = split_blocks(difference * inside, block, x.ndim - 3).movedim(1, -1).flatten(-2)
        return torch.linalg.vector_norm(blocks, dim=-1)[:, None] * scale

    error = torch.stack([norm(member - x) for member in ensemble.unbind(dim=1)]).mean(dim=0)
    distances = torch.stack([norm(difference) for difference in _differences(ensemble)]).sum(dim=0)
    return error - _pair_weight(ensemble, alpha) * distances, cells


def weighted_mean(scores: Tensor, weights: Tensor) -> Tensor:
    """The mean over samples of the weighted mean over each one's blocks."""
    scores, weights = (each.expand(scores.shape).flatten(1) for each in (scores, weights))
    return ((scores * weights).sum(dim=1) / weights.sum(dim=1)).mean()


def _differences(ensemble: Tensor) -> list[Tensor]:
    """The differences `(B, *)` of every pair of members of an ensemble `(B, M, *)`."""
    members = ensemble.unbind(dim=1)
    return [one - other for one, other in itertools.combinations(members, 2)]


def _pair_weight(ensemble: Tensor, alpha: float) -> float:
    """The weight of the distance of a pair of members."""
    members = ensemble.shape[1]
    return (1 - (1 - alpha) / members) / (members * (members - 1))
