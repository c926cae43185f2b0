"""Which metrics tables and charts show, and in which order."""

from collections.abc import Iterable

from lola.evaluation.scores.spectra import BANDS
from lola.evaluation.tables.derived import RATIO, SCORES

KNOWN = (
    "vrmse",
    "vrmse_pooled",
    "vrmse_unbiased",
    "vrmse_member",
    "crps_relative",
    RATIO,
    "coverage_50",
    "coverage_90",
    "energy_relative",
    "energy_block_relative",
    "variogram_relative",
    "interval_50_relative",
    "interval_90_relative",
    "correlation",
    "anomaly_correlation",
    "valid",
    "nrmse",
    *(f"spectrum_rmse_{band}" for band in BANDS),
    *(f"{RATIO}_{band}" for band in BANDS),
    "increments",
    "autocorrelation",
    "stability",
    "out_of_bounds",
    "crps",
)
PARTS = (
    *("skill", "spread", "rmse", "variance"),
    *(f"{part}_{band}" for part in ("skill", "spread") for band in BANDS),
    *(score for score in SCORES if score != "crps"),
)
"""Metrics that are left out: parts of others."""
CHARTED = (
    "vrmse",
    "vrmse_pooled",
    "vrmse_member",
    "crps_relative",
    RATIO,
    "coverage_90",
    "energy_block_relative",
    "correlation",
    "anomaly_correlation",
    "valid",
    "nrmse",
    *(f"spectrum_rmse_{band}" for band in BANDS),
    "increments",
    "stability",
    "out_of_bounds",
    "crps",
)
"""Those of charts, and conserved quantities: every metric of a chart makes a page larger."""
UNITS = ("crps",)
"""Metrics in the unit of a field: their mean over fields is meaningless."""


def metric_names(found: Iterable[str]) -> list[str]:
    """The metrics of all these that are shown, known ones first."""
    found = set(found)
    known = [name for name in KNOWN if name in found]
    return known + sorted(found - set(known) - set(PARTS))


def charted(found: Iterable[str]) -> list[str]:
    """The metrics of all these that charts show."""
    return [name for name in metric_names(found) if name in CHARTED or name not in KNOWN]
