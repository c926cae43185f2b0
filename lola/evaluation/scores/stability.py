"""Stability of rollouts.

A rollout is stable until time t if all its fields have been finite, and within [a - (b - a), b + (b - a)], at
every time up to t, where [a, b] is the range of the true field over all times.
"""

from torch import Tensor

from lola.evaluation.scores.ensemble import MemberStatistics


def share_stable(truth: Tensor, members: MemberStatistics) -> Tensor:
    """The share of rollouts that are stable until each lead time, from 0 to 1.

    Arguments:
        truth: The true states, with shape `(C, L, *grid)`.
        members: The extremes of the members in the same units.

    Returns:
        The share, the same for every field, with shape `(C, L)`.
    """
    low, high = (values.unsqueeze(-1).to(members.smallest) for values in truth.flatten(1).aminmax(dim=-1))
    width = high - low
    inside = (members.smallest >= low - width) & (members.largest <= high + width)  # False where NaN
    stable = inside.cumprod(-1).bool().all(1)
    return stable.double().mean(0).expand(len(truth), -1)
