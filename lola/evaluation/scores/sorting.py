"""Sorting along the first axis by a network of minima and maxima.

Batcher's odd-even merge exchange (Knuth, The Art of Computer Programming, volume 3, Algorithm 5.2.2M) sorts
M rows by O(M log^2 M) comparisons that do not depend on what is compared, so that each is one minimum and one
maximum of whole rows. A general sort along the first axis instead gathers one column after the other.
"""

import functools

import numpy as np
import torch
from torch import Tensor


def sort_rows(x: Tensor, storage: Tensor | None = None) -> tuple[Tensor, tuple[int, ...]]:
    """The order statistics along the first axis, wherever sorting left them.

    Arguments:
        x: Values with shape `(M, ...)`.
        storage: Scratch memory of `M + 1` rows.

    Returns:
        `M` rows or one more, with shape `(M or M + 1, ...)`, and the number of the row that holds each order
        statistic, from the smallest. The further row repeats values of `x`.
    """
    count = len(x)
    if not x.is_cpu or x.dtype not in (torch.float32, torch.float64) or x.requires_grad:
        rows = list(x)
        for low, high in comparisons(count):
            a, b = rows[low], rows[high]
            rows[low], rows[high] = torch.minimum(a, b), torch.maximum(a, b)
        return torch.stack(rows), tuple(range(count))
    # Of two rows the minima go to a free one, and the row of the first is free then: nothing is allocated.
    # On short rows NumPy's calls take half of torch's time.
    places, free = list(range(count)), count
    storage = x.new_empty(count + 1, *x.shape[1:]) if storage is None else storage
    storage[:count] = x
    storage[count] = x[0]
    rows = list(storage.numpy())
    for low, high in comparisons(count):
        a, b = rows[places[low]], rows[places[high]]
        np.minimum(a, b, out=rows[free])
        np.maximum(a, b, out=b)
        places[low], free = free, places[low]
    return storage, tuple(places)


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
