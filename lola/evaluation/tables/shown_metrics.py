"""Which metrics tables and charts show, and in which order."""

from collections.abc import Iterable

from lola.evaluation.tables.cells import RATIO

KNOWN = (
    "vrmse",
    "vrmse_member",
    RATIO,
    "crps",
    "nrmse",
    "spectrum_rmse_low",
    "spectrum_rmse_mid",
    "spectrum_rmse_high",
    "spectrum_rmse_tail",
    "stability",
    "out_of_bounds",
)
PARTS = ("skill", "spread", "rmse")
"""Metrics that are left out: parts of others."""
UNITS = ("crps",)
"""Metrics in the unit of a field: their mean over fields is meaningless."""


def metric_names(found: Iterable[str]) -> list[str]:
    """The metrics of all these that are shown, known ones first."""
    found = set(found)
    known = [name for name in KNOWN if name in found]
    return known + sorted(found - set(known) - set(PARTS))
