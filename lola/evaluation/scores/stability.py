"""Stability of rollouts, and whether they leave the physical values of fields.

A rollout is stable until time t if all its fields have been finite, and within [a - (b - a), b + (b - a)], at
every time up to t, where [a, b] is the range of the true field over all times. It is out of bounds at a time
if a value of a field is not finite, or outside of the bounds that the system's description gives the field.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lola.data.systems import Bounds
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


def share_out_of_bounds(
    bounds: Sequence[Bounds], channels: Sequence[str], members: MemberStatistics
) -> dict[str, tuple[Sequence[str], Tensor]]:
    """The share of rollouts that are out of bounds at each time, from 0 to 1.

    Arguments:
        bounds: The physical values of channels that have bounds; those of others are left out.
        channels: Those of the members.
        members: The extremes of the members in physical units.

    Returns:
        The metric `out_of_bounds`: names of fields, and values with shape `(fields, L)`; none without bounds.
    """
    own = [each for each in bounds if each.channel in channels]
    shares = []
    for each in own:
        number = channels.index(each.channel)
        low, high = (x[:, number].cpu().numpy() for x in (members.smallest, members.largest))
        shares.append(torch.from_numpy(1 - each.contain(low, high).mean(0)))
    return {"out_of_bounds": ([each.channel for each in own], torch.stack(shares))} if own else {}
