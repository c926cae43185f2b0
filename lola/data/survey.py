r"""A survey of a dataset: what a few of its states say about the physics.

With $x_t$ the states of a trajectory and $\sigma$ the standard deviation of a channel over the sample, the
persistence error $\sqrt{\langle (x_{t+s} - x_t)^2 \rangle} / \sigma$, the median over times $t$, says how
much changes in $s$ steps; and the drift $|\langle x_t \rangle - \langle x_0 \rangle| / \sigma$ of the mean
over the grid, whether a total is kept. Missing values (`lola.data.well.scan`) do not count.
"""

import dataclasses

import numpy as np

from lola.core.waiting import Log, describe_progress, progress_reminder
from lola.data.casting import LARGEST
from lola.data.systems import Boundary
from lola.data.well.scan import fill_values
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
        missing: The share of values that are missing. If all are, the others mean nothing.
    """

    low: float
    high: float
    quantiles: tuple[float, ...]
    std: float
    skewness: float
    kurtosis: float
    log_skewness: float
    drift: float
    missing: float


@dataclasses.dataclass(frozen=True)
class Survey:
    """What the sample says of a dataset.

    Arguments:
        trajectories: How many of the training set were read.
        channels: By channel.
        persistence: The persistence error by distance in steps, averaged over the channels that evolve.
        roughness: The root mean squared difference of neighbouring cells along each grid axis, by channel.
        periodic: Grid axes that are periodic in all trajectories.
        gaps: By trajectory, the channels that have missing values, and whether always in the same cells.
        masks: Constant scalar fields that say where values are missing: the value that they have in all of
            these cells, and not everywhere; the one that has it in the fewest cells first.
    """

    trajectories: int
    channels: dict[str, ChannelSurvey]
    persistence: dict[int, float]
    roughness: np.ndarray
    periodic: tuple[int, ...]
    gaps: dict[str, dict[str, bool]] = dataclasses.field(default_factory=dict)
    masks: dict[str, float] = dataclasses.field(default_factory=dict)


def survey(split: WellSplit, log: Log) -> Survey:
    """Read some states of some trajectories, one state at a time.

    Raises:
        DataError: A file cannot be read.
    """
    count = min(TRAJECTORIES, len(split.trajectories))
    chosen = np.unique(np.linspace(0, len(split.trajectories) - 1, count).astype(int)).tolist()
    random = np.random.default_rng(0)
    samples, means = [], []
    changes: dict[int, list[np.ndarray]] = {}
    channels = len(split.system.channels)
    low, high, states = np.full(channels, np.inf), np.full(channels, -np.inf), 0
    rough = np.zeros((channels, len(split.grid)))
    gaps, masks = dict[str, dict[str, bool]](), list[dict[str, float]]()
    done = 0  # trajectories
    reminder = progress_reminder(
        lambda: f"reading {describe_progress(done, count, 'trajectories', reminder.elapsed)}", log
    )
    for i in chosen:
        totals, steps, fills = [], split.trajectories[i].steps, _fills(split, i)
        missing = _Missing(split)
        for start in np.unique(np.linspace(0, steps - 1, TIMES + 1).astype(int)[:TIMES]).tolist():
            first = _state(split, i, start, fills)
            missing.add(first)
            totals.append(_mean(first))
            for lag in (2**k for k in range(20) if start + 2**k < steps):
                change = _mean(np.square(_state(split, i, start + lag, fills) - first))
                changes.setdefault(lag, []).append(change)
                reminder.poll()
            low, high = np.fmin(low, np.fmin.reduce(first, 1)), np.fmax(high, np.fmax.reduce(first, 1))
            cells = random.choice(first.shape[1], min(CELLS, first.shape[1]), replace=False)
            samples.append(first[:, cells])
            rough, states = rough + _roughness(first.reshape(-1, *split.grid)), states + 1
        last = _state(split, i, steps - 1, fills)
        missing.add(last)
        totals.append(_mean(last))
        means.append(np.abs(np.array(totals) - totals[0]).max(0))
        if found := missing.channels():
            gaps[split.trajectories[i].id] = found
            masks.append(missing.masks())
        done += 1
    pooled = np.concatenate(samples, 1)
    known = np.isfinite(pooled).any(1)
    std = np.sqrt(_mean(np.square(pooled - _mean(pooled)[:, None])))
    scale = np.where(std > 0, std, 1)
    evolving = [channel for channel in split.system.evolving if known[channel]]
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
            if evolving
        },
        roughness=np.sqrt(rough / max(states, 1)),
        periodic=tuple(np.flatnonzero((boundary == Boundary.PERIODIC).all((0, 2))).tolist()),
        gaps=gaps,
        masks={
            name: value
            for name, value in (masks[0] if masks else {}).items()
            if all(each.get(name) == value for each in masks)
        },
    )


class _Missing:
    """Which cells of a trajectory have missing values."""

    def __init__(self, split: WellSplit) -> None:
        self.system = split.system
        self.ever = self.always = np.empty(0)
        self.constants = dict[str, np.ndarray]()

    def add(self, state: np.ndarray) -> None:
        """Note the missing values of a state, `(C, cells)`."""
        missing = np.isnan(state)
        if not self.ever.size:
            self.ever, self.always = missing, missing
            for field in self.system.fields:
                if field.role == "constant" and field.order == 0:
                    self.constants[field.name] = state[self.system.channels.index(field.name)]
        else:
            self.ever, self.always = self.ever | missing, self.always & missing

    def channels(self) -> dict[str, bool]:
        """The channels that have missing values, and whether always in the same cells."""
        same = (self.ever == self.always).all(1)
        return {name: bool(same[c]) for c, name in enumerate(self.system.channels) if self.ever[c].any()}

    def masks(self) -> dict[str, float]:
        """The constant scalar fields that have one value in all of these cells, and not everywhere."""
        cells, found = self.ever.any(0), dict[str, float]()
        for name, values in sorted(self.constants.items()):
            inside = np.unique(values[cells])
            if len(inside) == 1 and np.isfinite(inside[0]) and (values != inside[0]).any():
                found[name] = float(inside[0])
        return dict(sorted(found.items(), key=lambda each: int((self.constants[each[0]] == each[1]).sum())))


def _fills(split: WellSplit, i: int) -> np.ndarray:
    """For each channel, the values that its file declares to be none, `(C, 1, n)`, filled up with nan."""
    values = fill_values(split, i)
    most = max(map(len, values))
    return np.array([[*own, *[np.nan] * (most - len(own))] for own in values])[:, None]


def _state(split: WellSplit, i: int, step: int, fills: np.ndarray) -> np.ndarray:
    """A state, `(C, cells)`, in double precision; nan where values are missing."""
    x = split.read(i, step, step + 1, checked=False).numpy().astype(np.float64)
    x = x.reshape(len(split.system.channels), -1)
    missing = ~(np.abs(x) < LARGEST)
    for fill in np.moveaxis(fills, -1, 0):
        missing |= x == fill
    x[missing] = np.nan
    return x


def _mean(x: np.ndarray, axes: tuple[int, ...] = (1,)) -> np.ndarray:
    """The mean of the values that are not missing; 0 if all are."""
    known = np.isfinite(x)
    return np.where(known, x, 0).sum(axes) / np.maximum(known.sum(axes), 1)


def _roughness(x: np.ndarray) -> np.ndarray:
    """The mean squared difference of neighbours along each axis, `(C, d)`."""
    axes = tuple(range(1, x.ndim))
    return np.stack([_mean(np.square(np.diff(x, axis=a)), axes) for a in axes], 1)


def _of_channel(values: np.ndarray, low: float, high: float, drift: float) -> ChannelSurvey:
    missing = float(np.isnan(values).mean())
    values = values[np.isfinite(values)] if missing < 1 else np.zeros(1)
    low, high = (low, high) if missing < 1 else (0.0, 0.0)
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
        missing=missing,
    )


def _moments(values: np.ndarray) -> tuple[float, float]:
    """The third and the fourth standardised moment; 0 and 3 of values that are all the same."""
    deviation = values - values.mean()
    std = deviation.std()
    if std <= 1e-12 * np.abs(values).max():
        return 0.0, 3.0
    return float(np.mean((deviation / std) ** 3)), float(np.mean((deviation / std) ** 4))
