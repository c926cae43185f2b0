r"""Metrics of means: statistics are averaged over trajectories first, and combined last.

With <x> the mean over trajectories of a statistic x, in a cell of field and lead time, and M the members,

    spread_skill_ratio    sqrt( <spread^2> / <skill^2> ), also by band of wavenumbers: `..._low` to `..._tail`
    vrmse_pooled          sqrt( <skill^2> / <variance> )
    vrmse_unbiased        sqrt( <skill^2 - spread^2 / (M + 1)> / <variance> )
    crps_relative         <crps> / sqrt <variance>, likewise other scores in the unit of a field

The mean of ratios, such as the paper's VRMSE, explodes where the variance of one trajectory vanishes; the
ratio of means does not. The error of the ensemble's mean has a part that is due to the finite ensemble,
s^2 / M = spread^2 / (M + 1) of members with variance s^2, which `vrmse_unbiased` takes off: it does not
depend on M in expectation.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from lola.evaluation.scores.spectra import BANDS

RATIO = "spread_skill_ratio"
SCORES = ("crps", "energy", "energy_block", "variogram", "interval_50", "interval_90")
"""Scores in the unit of a field."""
SQUARED = {f"{part}{band}" for part in ("skill", "spread") for band in ("", *(f"_{name}" for name in BANDS))}
"""Metrics whose squares are averaged: over training seeds, trajectories and the starts of each."""


@dataclasses.dataclass(frozen=True)
class Derived:
    """A metric of means.

    Arguments:
        parts: The metrics that it is made of; `SQUARED` ones are squared before they are averaged.
        combine: Maps the means of these to the metric.
        ensemble: Whether it is of two members or more alone.
        sampling: Whether the second part, over M + 1, is taken off the first, and no part of its own.
    """

    parts: tuple[str, ...]
    combine: Callable[[np.ndarray], np.ndarray]
    ensemble: bool = False
    sampling: bool = False

    def statistics(self, values: Sequence[np.ndarray], members: int) -> list[np.ndarray]:
        """The statistics that are averaged over trajectories, of the values of the parts."""
        if not self.sampling:
            return list(values)
        with np.errstate(invalid="ignore"):
            return [values[0] - values[1] / (members + 1), *values[2:]]


def _root(means: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum(means[0], 0) / means[1])


def _relative(means: np.ndarray) -> np.ndarray:
    return means[0] / np.sqrt(means[1])


DERIVED: Mapping[str, Derived] = {
    RATIO: Derived(("spread", "skill"), _root, ensemble=True),
    **{
        f"{RATIO}_{band}": Derived((f"spread_{band}", f"skill_{band}"), _root, ensemble=True)
        for band in BANDS
    },
    "vrmse_pooled": Derived(("skill", "variance"), _root),
    "vrmse_unbiased": Derived(("skill", "spread", "variance"), _root, ensemble=True, sampling=True),
    **{f"{score}_relative": Derived((score, "variance"), _relative) for score in SCORES},
}
"""All of them by name."""


def combine(metric: str, means: np.ndarray) -> np.ndarray:
    """The estimate of a metric, given the means `(P, ...)` of its statistics over trajectories."""
    if metric not in DERIVED:
        return means[0]
    with np.errstate(divide="ignore", invalid="ignore"):
        return DERIVED[metric].combine(means)
