"""The numbers that a report needs of the evaluations of a system, which are read and reduced one by one.

Of each method these are estimates by range of lead times, curves over lead time, errors by trajectory and
range, and mean spectra: their size does not grow with the number of evaluated rows.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from lola.data.systems import System
from lola.evaluation.tables.cells import METHOD, CellTable
from lola.evaluation.tables.curves import Curve, curves_of
from lola.evaluation.tables.derived import RATIO
from lola.evaluation.tables.lead_times import (
    COLUMNS,
    SPECTRUM,
    Range,
    estimate_rows,
    name_range,
    sort_methods,
)
from lola.evaluation.tables.mean_spectra import COLUMNS as SPECTRA
from lola.evaluation.tables.mean_spectra import mean_spectra
from lola.evaluation.tables.paper import TABLES, paper_ranges, printed_table, printed_values
from lola.evaluation.tables.reliability import COLUMNS as RELIABILITY
from lola.evaluation.tables.reliability import reliability_table
from lola.evaluation.tables.shown_metrics import UNITS, charted, metric_names
from lola.evaluation.tables.significance import ERRORS, cell_errors
from lola.evaluation.tables.valid_time import COLUMNS as VALID
from lola.evaluation.tables.valid_time import valid_times

TARGETS = ("truth", "autoencoded")
WHOLE: Range = (1, None)
PAIRED = ("vrmse", "crps_relative", "energy_block_relative", RATIO, *SPECTRUM)
"""The metrics whose errors are kept by trajectory."""
OVERALL = ("vrmse", "vrmse_pooled", "crps_relative", "energy_block_relative", RATIO)
"""The metrics that are also estimated over all lead times."""


@dataclasses.dataclass(frozen=True)
class Aggregates:
    """The reduced evaluations of one system, in order of their methods.

    Arguments:
        estimates: Rows of `lead_time_table`s of every metric that is shown, with a column `target`, over
            the paper's ranges of the metric and, of those of `OVERALL`, over all lead times.
        curves: The curves of every metric that is shown, against both targets.
        errors: `trajectory_errors` of those of `PAIRED` over the same ranges.
        spectra: `mean_spectra`.
        reliability: `reliability_table` over the system's ranges.
        valid: `valid_times`.
    """

    system: System
    estimates: pd.DataFrame
    curves: Sequence[Curve]
    errors: pd.DataFrame
    spectra: pd.DataFrame
    reliability: pd.DataFrame
    valid: pd.DataFrame

    @classmethod
    def of(
        cls, system: System, tables: Iterable[tuple[pa.Table, pa.Table]], *, with_curves: bool = True
    ) -> "Aggregates":
        """Reduce pairs of tables of metrics and spectra; all rows of a method are in one pair.

        Arguments:
            with_curves: Whether there are curves, which take the most time.
        """
        estimates: list[dict[str, Any]] = []
        curves: list[Curve] = []
        errors, spectra, reliability, valid = [], [], [], []
        for pair in tables:
            cells = CellTable(pair[0])
            for target in TARGETS:
                for metric in metric_names(cells.metrics(target)):
                    found = cells.of(metric, target)
                    rows = estimate_rows(found, metric, _ranges(system, metric))
                    estimates += [row | {"target": target} for row in rows]
                    if with_curves and charted([metric]):
                        curves += curves_of(found, metric, target)
            for metric in PAIRED:
                errors.append(cell_errors(cells.of(metric), metric, _ranges(system, metric)))
            valid.append(valid_times(cells.of("valid")))
            spectra.append(mean_spectra(pair[1]))
            reliability.append(reliability_table(pair[1], system.ranges))
            del pair, cells  # before the next are read
        return cls(
            system,
            sort_methods(pd.DataFrame(estimates, columns=[*COLUMNS, "target"])),
            sorted(curves, key=lambda curve: tuple(curve.method.values())),
            _joined(errors, ERRORS).sort_values(METHOD, kind="stable"),
            sort_methods(_joined(spectra, SPECTRA)),
            sort_methods(_joined(reliability, RELIABILITY)),
            sort_methods(_joined(valid, VALID)),
        )

    @functools.cached_property
    def main(self) -> "Aggregates":
        """Those of the shortest context and overlap, without guidance."""
        keys = ("context", "overlap")
        least = {key: self.estimates[key].min() for key in keys} | {"guidance": ""}
        return self.where(lambda method: all(method[key] == value for key, value in least.items()))

    def where(self, keep: Callable[[Mapping], bool]) -> "Aggregates":
        """Those of the methods that `keep` accepts, given the values of their columns `METHOD` by name."""

        @functools.cache
        def kept(*values: object) -> bool:
            return keep(dict(zip(METHOD, values, strict=True)))

        frames = [
            frame[np.array([kept(*key) for key in frame[METHOD].itertuples(index=False, name=None)], bool)]
            for frame in (self.estimates, self.errors, self.spectra, self.reliability, self.valid)
        ]
        curves = [curve for curve in self.curves if kept(*curve.method.values())]
        return Aggregates(self.system, frames[0], curves, *frames[1:])

    @property
    def rates(self) -> list[float]:
        latent = self.estimates["space"] == "latent"
        return sorted(self.estimates.loc[latent, "compression"].unique())

    @property
    def metrics(self) -> list[str]:
        """The metrics that charts show."""
        return charted(self.estimates["metric"])

    def estimated(self, metric: str, ranges: Sequence[Range], target: str = "truth") -> pd.DataFrame:
        """The `lead_time_table` of a metric, which has its ranges."""
        rows = self.estimates[(self.estimates["metric"] == metric) & (self.estimates["target"] == target)]
        names = [name_range(bounds) for bounds in ranges]
        return rows[rows["range"].isin(names)].drop(columns="target").reset_index(drop=True)

    def table(self, metric: str, target: str = "truth") -> pd.DataFrame:
        """The estimates of a metric by the paper's ranges, with the paper's figures."""
        table = self.estimated(metric, paper_ranges(self.system, metric), target)
        figures = printed_values(table, self.system.name)
        return table.assign(paper=figures) if target == "truth" and figures.notna().any() else table

    def tables(self) -> pd.DataFrame:
        """The estimates of every metric that charts show, against both targets."""
        parts = [
            self.table(metric, target).assign(target=target)
            for metric in metric_names(self.estimates["metric"])
            if metric not in UNITS
            for target in TARGETS
        ]
        return pd.concat([part for part in parts if len(part)], ignore_index=True)

    def printed(self, kind: str, metrics: list[str]) -> tuple[str, pd.DataFrame] | None:
        """The name of the paper's table of a kind, and its figures, if it studies the system."""
        table = printed_table(self.system.name, metrics)
        return (TABLES[kind][self.system.name], table) if len(table) else None


def _ranges(system: System, metric: str) -> list[Range]:
    whole = (WHOLE,) if metric in OVERALL else ()
    return list(dict.fromkeys((*paper_ranges(system, metric), *whole)))


def _joined(parts: Sequence[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    parts = [part for part in parts if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(columns))
