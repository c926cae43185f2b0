"""Sorting along the first axis by a network of minima and maxima.

Batcher's odd-even merge exchange (Knuth, The Art of Computer Programming, volume 3, Algorithm 5.2.2M) sorts
M rows by O(M log^2 M) comparisons that do not depend on what is compared, so that each is one minimum and one
maximum of whole rows. A general sort along the first axis instead gathers every column by itself.
"""

import functools

import torch
from torch import Tensor


def sort_first(x: Tensor) -> list[Tensor]:
    """The order statistics along the first axis, from the smallest.

    Arguments:
        x: Values with shape `(M, ...)`.

    Returns:
        `M` tensors with shape `(...)`. A column that holds a NaN may hold more of them afterwards.
    """
    rows = list(x)
    for low, high in comparisons(len(rows)):
        a, b = rows[low], rows[high]
        rows[low], rows[high] = torch.minimum(a, b), torch.maximum(a, b)
    return rows


@functools.cache
def comparisons(count: int) -> tuple[tuple[int, int], ...]:
    """The pairs of rows that a network for `count` rows compares, in order."""
    pairs = []
    top = 1 << max(0, (count - 1).bit_length() - 1)
    p = top
    while p > 0:
        q, r, d = top, 0, p
        while True:
            pairs += [(i, i + d) for i in range(count - d) if i & p == r]
            if q == p:
                break
            d, q, r = q - p, q // 2, p
        p //= 2
    return tuple(pairs)
