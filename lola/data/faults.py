r"""Values that stand out of a training set, and what is said of all faults.

Let $m_i$ and $v_i$ be the medians over the states of trajectory $i$ of the mean and of the variance of a
channel, after its transform. With medians over trajectories, $m = \mathrm{med}\, m_i$ is its centre and

    $s^2 = \mathrm{med}\, v_i + (1.4826\, \mathrm{med} |m_i - m|)^2$

its spread; neither depends on a few values, however large. A trajectory stands out where a value is more than
`MAX_DEVIATIONS` $s$ from $m$, and `MAX_POOLED_DEVIATIONS` standard deviations of all values from their mean.
Where more than half do, the field is like this, and a transform may help. Where the deviation of all is
more than `SPOILT` times that of the others, networks would see little of these, and training is spoilt.

Trajectories for validation and tests are compared with the training set, of which they change no number.
Where the deviation of one is more than `SPOILT` times that of the training set, before or after the
transform, its scores are spoilt.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lola.core.errors import DataError
from lola.data.statistics import Moments, is_constant
from lola.data.systems import System
from lola.data.well.scan import Fault

MAX_DEVIATIONS = 100.0
MAX_POOLED_DEVIATIONS = 10.0
SPOILT = 10.0
REPORTED = 20  # faults that are listed one by one
EXCLUDED = 10  # trajectories that an error lists

Row = Mapping[str, Any]
"""What `lola.data.well.scan.ScannedFile` gives of a trajectory."""


def find_faults(
    rows: Sequence[Row], pooled: Moments, system: System, others: Sequence[Row] = ()
) -> list[Fault]:
    """The faults of trajectories, those that spoil training or scores first.

    Arguments:
        rows: What was found in each trajectory of the training set.
        pooled: The moments of all its values after their transforms.
        system: The physical system.
        others: What was found in each trajectory for validation and tests.
    """
    faults = [Fault(**fault) for row in (*rows, *others) for fault in json.loads(row["faults"])]
    sound = [row for row in rows if not is_spoilt(row)]
    if sound:
        centre, spread = _centre(sound)
        faults += _far(sound, centre, spread, pooled, system)
        usual = {fault.field for fault in faults if fault.kind == "far" and not fault.states}
        narrow = [c for c in system.evolving if system.channels[c] not in usual]
        compared = [row for row in others if not is_spoilt(row)]
        both = merged(rows)[0], pooled
        faults += _far_others(compared, narrow, centre, spread, both, system)
        faults += _constant(pooled, system)
    faults += _equal((*rows, *others))
    return sorted(faults, key=lambda fault: not fault.spoils)


def is_spoilt(row: Row) -> bool:
    """Whether values of a trajectory are missing or have no transform, so that its moments mean nothing."""
    return any(fault["spoils"] for fault in json.loads(row["faults"]))


def _columns(rows: Sequence[Row], name: str, half: int = 0) -> np.ndarray:
    """A value of each row and channel; of physical values, or (`half` is 1) of transformed ones."""
    values = np.array([row[name] for row in rows])
    channels = np.array(rows[0]["typical_mean"]).size
    return values[:, half * channels : (half + 1) * channels]


def _centre(rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
    """The centre `m` and the spread `s` of each channel."""
    means = _columns(rows, "typical_mean")
    centre = np.median(means, 0)
    variance = np.median(_columns(rows, "typical_variance"), 0)
    return centre, np.sqrt(variance + np.square(1.4826 * np.median(np.abs(means - centre), 0)))


def _stands_out(
    rows: Sequence[Row], centre: np.ndarray, spread: np.ndarray, pooled: Moments
) -> tuple[np.ndarray, np.ndarray]:
    """The largest distances of values from the centre, and which are too large, with shape `(rows, C)`."""
    low, high = _columns(rows, "minimum", 1), _columns(rows, "maximum", 1)
    reach = np.maximum(high - centre, centre - low)
    wide = np.maximum(high - pooled.mean, pooled.mean - low) > MAX_POOLED_DEVIATIONS * pooled.std
    return reach, (reach > MAX_DEVIATIONS * spread) & wide & (spread > 0)


def _far(
    rows: Sequence[Row], centre: np.ndarray, spread: np.ndarray, pooled: Moments, system: System
) -> list[Fault]:
    """Values of the training set that stand out of it."""
    reach, stands_out = _stands_out(rows, centre, spread, pooled)
    faults = []
    for channel in system.evolving:
        name, who = system.channels[channel], np.flatnonzero(stands_out[:, channel]).tolist()
        if len(who) > len(rows) / 2:
            text = (
                f"is up to {(reach / spread)[:, channel].max():.3g} deviations from its mean in {len(who)} "
                f"of {len(rows)} trajectories; another transform (log, arcsinh) would narrow it"
            )
            faults.append(Fault("far", "all trajectories", name, [], 0, text, False))
            continue
        others = Moments()
        for number in set(range(len(rows))) - set(who):
            others.merge(_moments(rows[number], 1))
        spoils = bool(pooled.std[channel] > SPOILT * others.std[channel])
        for i in who:
            distance = reach[i, channel] / spread[channel]
            faults.append(_far_fault(rows[i], channel, name, centre[channel], distance, spoils, "its"))
    return faults


def _far_others(
    rows: Sequence[Row],
    channels: Sequence[int],
    centre: np.ndarray,
    spread: np.ndarray,
    pooled: tuple[Moments, Moments],
    system: System,
) -> list[Fault]:
    """Values of some channels of other trajectories that stand out of the training set."""
    if not rows:
        return []
    reach, stands_out = _stands_out(rows, centre, spread, pooled[1])
    faults = []
    for i, channel in np.argwhere(stands_out).tolist():
        if channel in channels:
            spoils = any(
                _moments(rows[i], half).std[channel] > SPOILT * moments.std[channel]
                for half, moments in enumerate(pooled)
            )
            distance = reach[i, channel] / spread[channel]
            name = system.channels[channel]
            faults.append(
                _far_fault(rows[i], channel, name, centre[channel], distance, spoils, "the training set's")
            )
    return faults


def _far_fault(
    row: Row, channel: int, name: str, centre: float, distance: float, spoils: bool, whose: str
) -> Fault:
    """The fault of a trajectory's value that is farthest from the centre, and so many spreads."""
    low, high = (_columns([row], part, 1)[0, channel] for part in ("minimum", "maximum"))
    above = high - centre >= centre - low
    state = row["highest_state" if above else "lowest_state"][channel]
    value = _columns([row], "maximum" if above else "minimum")[0, channel]
    text = f"is {value:g}, {distance:.3g} deviations from {whose} mean,"
    return Fault("far", row["trajectory"], name, [state], 1, text, spoils)


def _constant(pooled: Moments, system: System) -> list[Fault]:
    constant = is_constant(pooled.mean, pooled.std)
    return [
        Fault(
            "constant",
            "all trajectories",
            system.channels[channel],
            [],
            0,
            f"is {pooled.mean[channel]:g} everywhere, up to rounding, and keeps its scale",
            False,
        )
        for channel in system.evolving
        if constant[channel]
    ]


def _equal(rows: Sequence[Row]) -> list[Fault]:
    """Trajectories whose states are all those of an earlier one."""
    first: dict[tuple[str, int], str] = {}
    faults = []
    for row in rows:
        earlier = first.setdefault((row["digest"], row["states"]), row["trajectory"])
        if earlier != row["trajectory"]:
            text = f"has the states of {earlier}"
            faults.append(Fault("repeated", row["trajectory"], "", [], 0, text, False))
    return faults


def _moments(row: Row, half: int) -> Moments:
    """The moments of a trajectory, of physical values, or (`half` is 1) of transformed ones."""
    parts = [_columns([row], name, half)[0] for name in ("mean", "squares", "minimum", "maximum")]
    return Moments(row["values"], *parts)


def merged(rows: Sequence[Row]) -> tuple[Moments, Moments]:
    """The moments of all trajectories that are not spoilt, before and after the transforms."""
    both = Moments(), Moments()
    for row in rows:
        if not is_spoilt(row):
            for half, moments in enumerate(both):
                moments.merge(_moments(row, half))
    return both


def describe_faults(faults: Sequence[Fault]) -> list[str]:
    """A line for each of the first faults, and one that counts the others."""
    lines = [str(fault) for fault in faults[:REPORTED]]
    if len(faults) > REPORTED:
        counts = Counter(fault.kind for fault in faults[REPORTED:])
        lines.append("and more: " + ", ".join(f"{kind} {count}" for kind, count in sorted(counts.items())))
    return lines


def require_sound(faults: Sequence[Fault], trajectories: int) -> None:
    """Raise `DataError` if training or scores would be spoilt; names the first fault, and what to leave out.

    Arguments:
        faults: All faults.
        trajectories: How many trajectories there are.
    """
    spoilt = [fault for fault in faults if fault.spoils]
    if not spoilt:
        return
    names = list(dict.fromkeys(fault.trajectory for fault in spoilt))
    more = f" (faults of {len(names)} trajectories)" if len(names) > 1 else ""
    if len(names) > max(1, trajectories / 2):
        fields = ", ".join(dict.fromkeys(fault.field for fault in spoilt))
        remedy = (
            f"that is so in {len(names)} of {trajectories} trajectories: name the fields to use, without "
            f"{fields}, under the key fields of system.yaml, or choose another transform there"
        )
        if any(fault.kind == "missing" for fault in spoilt):
            remedy += "; where values are missing in the same cells, such as land or solids, add its key mask"
    else:
        listed = " ".join(names[:EXCLUDED]) + (" ..." if len(names) > EXCLUDED else "")
        remedy = f"leave out with --exclude {listed}"
    trained = any(name.split("/")[1:2] == ["train"] for name in names)
    what = "training" if trained else "scores"
    raise DataError(f"{what} would be spoilt: {spoilt[0]}{more}; {remedy}")
