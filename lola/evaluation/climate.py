"""The climate that anomalies are taken from: the mean of training trajectories at the same time."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lola.core.errors import DataError
from lola.core.keys import numpy_generator
from lola.data.well.datasets import Datasets
from lola.data.well.splits import WellSplit
from lola.evaluation.evaluation_config import EvaluationConfig

TRAJECTORIES = 64
"""Training trajectories that are averaged, at most."""
READ_BYTES, KEPT_BYTES = 2**35, 2**30
"""What is read of large trajectories, if not of 8, and the size from which times are averaged as well."""


@dataclasses.dataclass(frozen=True)
class Climate:
    """Means of training states, by the first start state with the same remainder by the stride.

    Arguments:
        means: In physical units, with shape `(C, L, *grid)`: every `stride` steps from that start; or `L` is
            1 and the mean is over these times too. After the end of the longest trajectory the last holds.
    """

    means: dict[int, np.ndarray]

    def at(self, start: int, config: EvaluationConfig, length: int, channels: Sequence[int]) -> Tensor:
        """The climate of some channels at `length` lead times after a start, `(channels, length, *grid)`."""
        first = max(each for each in self.means if (start - each) % config.stride == 0)
        means = self.means[first][list(channels)]
        if means.shape[1] == 1:  # large: it must not be copied for every lead time
            return torch.from_numpy(means).expand(-1, length, *means.shape[2:])
        places = (start - first) // config.stride + config.context + np.arange(length)
        return torch.from_numpy(means[:, places.clip(max=means.shape[1] - 1)])


def find_climate(
    datasets: Datasets, split: WellSplit, config: EvaluationConfig
) -> tuple[Climate | None, str]:
    """The climate of the training data of a split's system, or None and why there is none."""
    try:
        training = datasets.open(split.system, "train")
        return mean_states(training, config), ""
    except DataError as error:
        return None, f"no anomaly correlation and valid time are scored: {error}"


def mean_states(training: WellSplit, config: EvaluationConfig) -> Climate:
    """The mean of training trajectories, drawn by the seed.

    Raises:
        DataError: A trajectory cannot be read.
    """
    firsts: dict[int, int] = {}
    for start in sorted(config.starts):
        firsts.setdefault(start % config.stride, start)
    state = 4 * len(training.system.channels) * int(np.prod(training.grid))
    times = len(range(min(config.starts), training.steps, config.stride))
    count = min(TRAJECTORIES, max(8, READ_BYTES // (state * max(1, times))))
    order = numpy_generator(config.seed, "climate").permutation(len(training.trajectories))[:count].tolist()
    pooled = state * times * len(firsts) > KEPT_BYTES
    return Climate({first: _mean(training, order, first, config.stride, pooled) for first in firsts.values()})


def _mean(training: WellSplit, order: list[int], first: int, stride: int, pooled: bool) -> np.ndarray:
    """The mean of some trajectories' states from a state on, with shape `(C, L, *grid)`."""
    steps = {index: training.trajectories[index].steps for index in order}
    length = len(range(first, max(steps.values()), stride))
    if not length:
        raise DataError(f"no training trajectory of {training.system.name} has a state {first}")
    total = np.zeros((len(training.system.channels), 1 if pooled else length, *training.grid), np.float32)
    counts = np.zeros((total.shape[1], *[1] * len(training.grid)), np.float32)
    for index in (index for index in order if steps[index] > first):
        x = training.read(index, first, steps[index], stride).numpy()
        x = x.mean(1, keepdims=True) if pooled else x
        total[:, : x.shape[1]] += x
        counts[: x.shape[1]] += 1
    return total / counts
