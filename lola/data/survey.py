r"""A survey of a dataset: what a few of its states say about the physics.

With $x_t$ the states of a trajectory and $\sigma$ the standard deviation of a channel over the sample, the
persistence error $\sqrt{\langle (x_{t+s} - x_t)^2 \rangle} / \sigma$, the median over times $t$, says how
much changes in $s$ steps; and the drift $|\langle x_t \rangle - \langle x_0 \rangle| / \sigma$ of the mean
over the grid, whether a total is kept.
"""

import dataclasses

import numpy as np

from lola.core.waiting import Log, describe_progress, progress_reminder
from lola.data.systems import Boundary
from lola.data.well.splits import WellSplit

TRAJECTORIES = 8
TIMES = 4  # of a trajectory, from which states at growing distances follow
CELLS = 4096  # of a state and channel, for quantiles
QUANTILES = (0.001, 0.01, 0.5, 0.99, 0.999)


@dataclasses.dataclass(frozen=True)
class ChannelSurvey:
    """What the sample says of a channel.

    Arguments:
        low, high: The extremes.
        quantiles: Those of `QUANTILES`.
        std: The standard deviation.
        skewness, kurtosis: The third and the fourth standardised moment; 0 and 3 of a normal distribution.
        log_skewness: The skewness of the logarithm, of a positive channel.
        drift: The largest drift of the mean over the grid.
    """

    low: float
    high: float
    quantiles: tuple[float, ...]
    std: float
    skewness: float
    kurtosis: float
    log_skewness: float
    drift: float


@dataclasses.dataclass(frozen=True)
class Survey:
    """What the sample says of a dataset.

    Arguments:
        trajectories: How many of the training set were read.
        channels: By channel.
        persistence: The persistence error by distance in steps, averaged over the channels that evolve.
        roughness: The root mean squared difference of neighbouring cells along each grid axis, by channel.
        periodic: Grid axes that are periodic in all trajectories.
    """

    trajectories: int
    channels: dict[str, ChannelSurvey]
    persistence: dict[int, float]
    roughness: np.ndarray
    periodic: tuple[int, ...]


def survey(split: WellSplit, log: Log) -> Survey:
    """Read some states of some trajectories, one state at a time.

    Raises:
        DataError: A file cannot be read, or holds values that are not finite.
    """
    count = min(TRAJECTORIES, len(split.trajectories))
    chosen = np.unique(np.linspace(0, len(split.trajectories) - 1, count).astype(int)).tolist()
    random = np.random.default_rng(0)
    samples, means = [], []
    changes: dict[int, list[np.ndarray]] = {}
    channels = len(split.system.channels)
    low, high, states = np.full(channels, np.inf), np.full(channels, -np.inf), 0
    rough = np.zeros((channels, len(split.grid)))
    done = 0  # trajectories
    reminder = progress_reminder(
        lambda: f"reading {describe_progress(done, count, 'trajectories', reminder.elapsed)}", log
    )
    for i in chosen:
        totals, steps = [], split.trajectories[i].steps
        for start in np.unique(np.linspace(0, steps - 1, TIMES + 1).astype(int)[:TIMES]).tolist():
            first = _state(split, i, start)
            totals.append(first.mean(1))
            for lag in (2**k for k in range(20) if start + 2**k < steps):
                change = np.square(_state(split, i, start + lag) - first).mean(1)
                changes.setdefault(lag, []).append(change)
                reminder.poll()
            low, high = np.minimum(low, first.min(1)), np.maximum(high, first.max(1))
            cells = random.choice(first.shape[1], min(CELLS, first.shape[1]), replace=False)
            samples.append(first[:, cells])
            rough, states = rough + _roughness(first.reshape(-1, *split.grid)), states + 1
        totals.append(_state(split, i, steps - 1).mean(1))
        means.append(np.abs(np.array(totals) - totals[0]).max(0))
        done += 1
    pooled = np.concatenate(samples, 1)
    std = pooled.std(1)
    scale = np.where(std > 0, std, 1)
    evolving = list(split.system.evolving)
    boundary = np.array([split.trajectories[i].boundary for i in range(len(split.trajectories))])
    return Survey(
        trajectories=len(chosen),
        channels={
            name: _of_channel(pooled[c], float(low[c]), float(high[c]), float(np.max(means, 0)[c] / scale[c]))
            for c, name in enumerate(split.system.channels)
        },
        persistence={
            lag: float((np.sqrt(np.median(each, 0)) / scale)[evolving].mean())
            for lag, each in changes.items()
        },
        roughness=np.sqrt(rough / max(states, 1)),
        periodic=tuple(np.flatnonzero((boundary == Boundary.PERIODIC).all((0, 2))).tolist()),
    )


def _state(split: WellSplit, i: int, step: int) -> np.ndarray:
    """A state, `(C, cells)`, in double precision."""
    return split.read(i, step, step + 1).numpy().astype(np.float64).reshape(len(split.system.channels), -1)


def _roughness(x: np.ndarray) -> np.ndarray:
    """The mean squared difference of neighbours along each axis, `(C, d)`."""
    axes = range(1, x.ndim)
    return np.stack(
        [
            np.square(np.diff(x, axis=a)).mean(tuple(axes)) if x.shape[a] > 1 else np.zeros(len(x))
            for a in axes
        ],
        1,
    )


def _of_channel(values: np.ndarray, low: float, high: float, drift: float) -> ChannelSurvey:
    skewness, kurtosis = _moments(values)
    return ChannelSurvey(
        low=low,
        high=high,
        quantiles=tuple(np.quantile(values, QUANTILES).tolist()),
        std=float(values.std()),
        skewness=skewness,
        kurtosis=kurtosis,
        log_skewness=_moments(np.log(values))[0] if low > 0 else 0.0,
        drift=drift,
    )


def _moments(values: np.ndarray) -> tuple[float, float]:
    """The third and the fourth standardised moment; 0 and 3 of values that are all the same."""
    deviation = values - values.mean()
    std = deviation.std()
    if std <= 1e-12 * np.abs(values).max():
        return 0.0, 3.0
    return float(np.mean((deviation / std) ** 3)), float(np.mean((deviation / std) ** 4))
