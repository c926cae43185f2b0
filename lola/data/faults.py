r"""Values that stand out in a training set, and what is said of all faults.

Let $m_i$ and $v_i$ be the medians over the states of trajectory $i$ of the mean and of the variance of a
channel, after its transform. With medians over trajectories, $m = \mathrm{med}\, m_i$ is its centre and

    $s^2 = \mathrm{med}\, v_i + (1.4826\, \mathrm{med} |m_i - m|)^2$

its spread; neither depends on a few values, however large. A trajectory stands out where a value is more than
`MAX_DEVIATIONS` $s$ from $m$, and `MAX_POOLED_DEVIATIONS` standard deviations of all values from their mean.
Where more than half do, the field is like this, and a transform may help. Where the deviation of all is
more than `SPOILT` times that of the others, networks would see little of these, and training is spoilt.
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


def find_faults(rows: Sequence[Row], pooled: Moments, system: System) -> list[Fault]:
    """The faults of trajectories, those that spoil training first.

    Arguments:
        rows: What was found in each trajectory.
        pooled: The moments of all values after their transforms.
        system: The physical system.
    """
    faults = [Fault(**fault) for row in rows for fault in json.loads(row["faults"])]
    sound = [row for row in rows if not is_spoilt(row)]
    if sound:
        faults += _far(sound, pooled, system)
        faults += _constant(pooled, system)
    faults += _equal(rows)
    return sorted(faults, key=lambda fault: not fault.spoils)


def is_spoilt(row: Row) -> bool:
    """Whether values of a trajectory are missing or have no transform, so that its moments mean nothing."""
    return any(fault["spoils"] for fault in json.loads(row["faults"]))


def _columns(rows: Sequence[Row], name: str, half: int = 0) -> np.ndarray:
    """A value of each row and channel; of physical values, or (`half` is 1) of transformed ones."""
    values = np.array([row[name] for row in rows])
    channels = np.array(rows[0]["typical_mean"]).size
    return values[:, half * channels : (half + 1) * channels]


def _far(rows: Sequence[Row], pooled: Moments, system: System) -> list[Fault]:
    means = _columns(rows, "typical_mean")
    centre = np.median(means, 0)
    spread = np.sqrt(
        np.median(_columns(rows, "typical_variance"), 0)
        + np.square(1.4826 * np.median(np.abs(means - centre), 0))
    )
    low, high = _columns(rows, "minimum", 1), _columns(rows, "maximum", 1)
    reach = np.maximum(high - centre, centre - low)
    wide = np.maximum(high - pooled.mean, pooled.mean - low) > MAX_POOLED_DEVIATIONS * pooled.std
    stands_out = (reach > MAX_DEVIATIONS * spread) & wide & (spread > 0)
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
        for i in who:
            above = high[i, channel] - centre[channel] >= centre[channel] - low[i, channel]
            state = rows[i]["highest_state" if above else "lowest_state"][channel]
            value = _columns(rows, "maximum" if above else "minimum")[i, channel]
            text = f"is {value:g}, {reach[i, channel] / spread[channel]:.3g} deviations from its mean,"
            spoils = bool(pooled.std[channel] > SPOILT * others.std[channel])
            faults.append(Fault("far", rows[i]["trajectory"], name, [state], 1, text, spoils))
    return faults


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
    """Raise `DataError` if training would be spoilt; names the first fault, and what to leave out.

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
    else:
        listed = " ".join(names[:EXCLUDED]) + (" ..." if len(names) > EXCLUDED else "")
        remedy = f"leave out with --exclude {listed}"
    raise DataError(f"training would be spoilt: {spoilt[0]}{more}; {remedy}")
