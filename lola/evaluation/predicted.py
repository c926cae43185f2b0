"""Predictions that are scored, and climatology, which makes some of training data."""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from lola.core.errors import DataError
from lola.core.keys import numpy_generator
from lola.data.well.splits import TrajectoryRef, WellSplit
from lola.evaluation.evaluation_config import EvaluationConfig


@dataclasses.dataclass(frozen=True)
class Predicted:
    """How many members there are, a function of lead times that gives their states `(M, C, l, *grid)` in
    physical units, and the device that makes them."""

    members: int
    states: Callable[[slice], Tensor]
    device: torch.device


def climatology(
    config: EvaluationConfig, training: WellSplit | None, trajectory: TrajectoryRef, start: int, length: int
) -> Predicted:
    """Trajectories of the training data, drawn by the seed and the trajectory, at the same times.

    They are those that last as long, or the longest, which then stay in their last states.

    Raises:
        DataError: There are no training data.
    """
    if training is None:
        raise DataError(f"climatology at {trajectory.id} needs the training data, which were not opened")
    first = start + config.context * config.stride
    stop = first + (length - 1) * config.stride + 1
    needed = min(stop, max(each.steps for each in training.trajectories))
    candidates = [i for i, each in enumerate(training.trajectories) if each.steps >= needed]
    order = numpy_generator(config.seed, "climatology", trajectory.id).permutation(candidates)
    chosen = [int(index) for index in order[: config.members]]

    def states(times: slice) -> Tensor:
        steps = [first + i * config.stride for i in range(*times.indices(length))]
        return torch.stack([_read_or_hold(training, index, steps) for index in chosen])

    return Predicted(len(chosen), states, torch.device("cpu"))


def _read_or_hold(split: WellSplit, index: int, steps: list[int]) -> Tensor:
    """States of a trajectory at evenly spaced steps, with shape `(C, L, *grid)`; after its end the last."""
    last = split.trajectories[index].steps - 1
    inside = [step for step in steps if step <= last]
    stride = steps[1] - steps[0] if len(steps) > 1 else 1
    parts = [split.read(index, inside[0], inside[-1] + 1, stride)] if inside else []
    if len(inside) < len(steps):
        parts.append(split.read(index, last, last + 1).expand(-1, len(steps) - len(inside), *split.grid))
    return torch.cat(parts, 1)
