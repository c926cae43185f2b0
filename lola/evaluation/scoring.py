"""Scoring predicted states, some lead times at once."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lola.evaluation.predicted import Predicted
from lola.evaluation.scores.anomalies import anomaly_correlation, share_valid
from lola.evaluation.scores.ensemble import (
    MemberStatistics,
    Scores,
    join_scores,
    join_statistics,
    score_ensemble,
)
from lola.evaluation.scores.increments import increment_scores
from lola.evaluation.scores.quadrature import Domain, GridAxis
from lola.evaluation.tables.speed import clock


@dataclasses.dataclass(frozen=True)
class Truth:
    """What predictions are scored against: the channels that evolve.

    Arguments:
        known: The last known state, with shape `(C, *grid)`.
        targets: Later states by name, with shape `(C, L, *grid)`.
        climate: The mean of training states at the same times, likewise; None if it is not known.
        valid: True in cells of the domain, with shape `(*grid)`; None if all are.
        axes: How each axis of the grid is treated.
        eps: What is added to variances and power before dividing, in squared units, with shape `(C)`.
    """

    known: Tensor
    targets: dict[str, Tensor]
    climate: Tensor | None
    valid: Tensor | None
    axes: tuple[GridAxis, ...]
    eps: Tensor


@dataclasses.dataclass(frozen=True)
class Scored:
    """Scores by target, statistics of the members, two of them, their moments, seconds of decoding."""

    scores: dict[str, Scores]
    statistics: MemberStatistics
    example: Tensor
    moments: Tensor | None
    seconds: float


def score_prediction(predicted: Predicted, truth: Truth, evolving: Sequence[int], step: int) -> Scored:
    """Score the channels of all members that evolve, `step` lead times at once."""
    seconds, length, last = 0.0, truth.targets["truth"].shape[1], None
    parts: dict[str, list[Scores]] = {name: [] for name in truth.targets}
    statistics, examples, moments = [], [], []
    for first in range(0, length, step):
        times = slice(first, first + step)
        began = clock(predicted.device)
        with np.errstate(over="ignore"):  # a rollout that has blown up
            members = predicted.states(times)
        examples.append(blank(members[:2].cpu(), truth.valid))
        ensemble = torch.stack([members.mean(0), members.std(0, correction=0)])
        moments.append(blank(ensemble.cpu(), truth.valid))
        seconds += clock(predicted.device) - began
        states = {name: target[:, times].to(members) for name, target in truth.targets.items()}
        mean = ensemble[0]
        if len(evolving) < members.shape[1]:
            members, mean = members[:, evolving], mean[evolving]
        valid = None if truth.valid is None else truth.valid.to(members.device)
        spatial = members.ndim - 3
        domain = Domain.of(members, spatial, truth.axes, valid)
        scores, own = score_ensemble(
            states, members, spatial=spatial, valid=valid, axes=truth.axes, eps=truth.eps[:, None]
        )
        statistics.append(own)
        before = truth.known[:, None].to(members) if last is None else last
        last = members[:, :, -1:]
        climate = None if truth.climate is None else domain.cells(truth.climate[:, times].to(members))
        for name, part in scores.items():
            if first == 0:
                start = truth.known[:, None].to(members)
            else:
                start = truth.targets[name][:, first - 1 : first].to(members)
            u = domain.cells(torch.cat([start, states[name]], 1))
            v = domain.cells(torch.cat([before.expand_as(last), members], 2))
            more = increment_scores(u, v, domain.weights)
            if climate is not None:
                anomalies = u[:, 1:], domain.cells(mean), climate
                more["anomaly_correlation"] = anomaly_correlation(*anomalies, domain.weights)
            parts[name].append(dataclasses.replace(part, metrics=part.metrics | more))
    joined = {name: join_scores(part, 1) for name, part in parts.items()}
    if truth.climate is not None:
        for each in joined.values():
            each.metrics["valid"] = share_valid(each.metrics["anomaly_correlation"])
    both = torch.cat(moments, 2) if predicted.members > 1 else None
    return Scored(joined, join_statistics(statistics), torch.cat(examples, 2), both, seconds)


def blank(states: Tensor, valid: Tensor | None) -> Tensor:
    """States `(..., *grid)` as pictures show them: NaN where `valid`, `(*grid)`, is False, if it is given."""
    return states if valid is None else torch.where(valid, states, torch.nan)
