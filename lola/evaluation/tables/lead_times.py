r"""Tables of the tidy metrics by lead-time range, as the paper's Tables 6 to 10.

A method is scored for training seeds s = 1 ... S, on trajectories t = 1 ... T, fields f and lead times l.
With v_s and w_t the weights of a seed and of a trajectory, a metric x and one that `derived` makes of means,
such as the spread-skill ratio, are over a range R of lead times

    x_R     = mean_{f, l in R} sum_st v_s w_t x_stfl,
    ratio_R = mean_{f, l in R} sqrt( sum_st v_s w_t Spread_stfl^2 / sum_st v_s w_t Skill_stfl^2 ).

The estimate has v_s = 1 / S and w_t = 1 / T. Its 95 % confidence interval is that of `bootstrap`, in which
S v and T w are multinomial: seeds and trajectories are independent, fields and lead times of one are not.
With one seed the interval is over trajectories alone.

Trajectories that end before a lead time, or before R, have no weight there: the sums are over those that have
a value, and so are the weights, which sum to one.

A trajectory with a value that is not finite in R, of any seed, is unstable there. It is counted, never left
out: the method's estimate over R is then infinite.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from lola.evaluation.scores.intervals import COVERAGES, nominal_coverage
from lola.evaluation.tables.bootstrap import (
    DRAWS,
    LEVELS,
    bootstrap_weights,
    resample_seeds,
    weighted_means,
)
from lola.evaluation.tables.cells import METHOD, Cells, CellTable
from lola.evaluation.tables.derived import RATIO, combine
from lola.models.kinds import kind_titles

Range = tuple[int, int | None]

REFERENCES = {
    "climatology": "Climatology",
    "persistence": "Persistence",
    "autoencoded_persistence": "Persistence, auto-encoded",
    "autoencoder": "Autoencoder alone",
    "autoencoder_ema": "Autoencoder alone (EMA)",
}
"""What emulators are compared with, by the `model` column."""
UNTRAINED = ("climatology", "persistence")
SKILL = "crps_skill"
SPECTRUM = ("spectrum_rmse_low", "spectrum_rmse_mid", "spectrum_rmse_high")
_CELL = ["target", "metric", "field", "lead_time", "trajectory"]
COLUMNS = [*METHOD, "metric", "range", "value", "low", "high", "seeds", "trajectories", "unstable"]


def model_titles() -> dict[str, str]:
    """The names for people of all values of the `model` column, in the order of tables."""
    return REFERENCES | kind_titles()


def name_range(lead_times: Range) -> str:
    """The name of an inclusive range of lead times: `1-20`, or `61-end`."""
    first, last = lead_times
    return f"{first}-{'end' if last is None else last}"


def lead_time_table(
    metrics: pa.Table, metric: str, ranges: Sequence[Range], *, target: str = "truth", draws: int = DRAWS
) -> pd.DataFrame:
    """Estimates of a metric by method and lead-time range.

    Arguments:
        metrics: Tidy rows of one system.
        metric: The name of a metric of the rows, or of a derived one.
        ranges: Inclusive ranges of lead times in simulation steps; None is the end.
        target: What was scored against, `truth` or `autoencoded`.

    Returns:
        One row per method and range, in the order of the paper's tables: the columns of `METHOD`,
        `metric`, `range`, `value`, `low`, `high` (the interval, NaN for one trajectory), `seeds` (how many
        trainings the value is the mean of), `trajectories` and `unstable` (how many of these are). Methods
        that lack the metric have no rows.
    """
    return estimate_cells(CellTable(metrics).of(metric, target), metric, ranges, draws)


def estimate_cells(
    cells: Sequence[Cells], metric: str, ranges: Sequence[Range], draws: int = DRAWS
) -> pd.DataFrame:
    """The `lead_time_table` of cells of one metric."""
    rows = [*estimate_rows(cells, metric, ranges, draws)]
    return sort_methods(pd.DataFrame(rows)) if rows else pd.DataFrame(columns=COLUMNS)


def estimate_rows(
    cells: Sequence[Cells], metric: str, ranges: Sequence[Range], draws: int = DRAWS
) -> Iterator[dict[str, Any]]:
    """The rows of the `lead_time_table` of cells of one metric, as the cells are ordered."""
    for part, bounds in itertools.product(cells, ranges):
        values = values_within(part, bounds)
        if values.size:
            key = dict(zip(METHOD, part.method, strict=True)) | {"metric": metric}
            yield key | {"range": name_range(bounds)} | _estimate(values, metric, draws)


def values_within(cells: Cells, bounds: Range) -> np.ndarray:
    """The values in a range of lead times, `(P, S, T, K)`, of the T trajectories and K cells that have any.

    They are NaN where a trajectory lacks a cell.
    """
    first, last = bounds
    lead = (cells.lead_times >= first) & (cells.lead_times <= (np.inf if last is None else last))
    values = cells.values[..., lead].reshape(*cells.values.shape[:3], -1)
    missing = np.isnan(values)
    return values[..., ~missing.all((0, 1, 2))][:, :, ~missing.all((0, 1, 3))]


def _estimate(parts: np.ndarray, metric: str, draws: int) -> dict[str, float]:
    """The estimate of a metric of statistics with shape `(P, S, T, K)`."""
    seeds, count = parts.shape[1:3]
    unstable = int(np.isinf(parts).any(axis=(0, 1, 3)).sum())
    numbers = {"seeds": seeds, "trajectories": count, "unstable": unstable}
    if unstable:
        return {"value": np.inf, "low": np.nan, "high": np.nan, **numbers}

    def estimate(means: np.ndarray) -> np.ndarray:
        # A resampling may have no trajectory that is long enough for a lead time
        cells = combine(metric, means)
        existing = ~np.isnan(cells)
        with np.errstate(invalid="ignore"):
            return np.where(existing, cells, 0).sum(1) / existing.sum(1)

    estimates = resample_seeds(weighted_means(bootstrap_weights(count, draws), parts), estimate)
    with np.errstate(invalid="ignore"):  # resampled trajectories of a constant truth have no ratio
        low, high = np.quantile(estimates[1:], LEVELS) if count > 1 else (np.nan, np.nan)
    return {"value": estimates[0], "low": low, "high": high, **numbers}


def estimate_means(means: np.ndarray, draws: int = DRAWS) -> dict[str, float]:
    """The estimate, with its interval, of means over lead times and fields, with shape `(S, T)`."""
    return _estimate(means[None, ..., None], "", draws)


def sort_methods(table: pd.DataFrame) -> pd.DataFrame:
    """What emulators are compared with, then emulators: pixel space first, by rate and solver steps.

    Names that no title is known of (`lola.models.kinds.shown_with`) are last.
    """
    known = model_titles()
    names = [*known, *sorted(set(table["model"]) - known.keys())]
    order = table.assign(model=table["model"].map(names.index), space=table["space"] == "latent")
    index = order.sort_values(METHOD, kind="stable").index
    return table.loc[index].reset_index(drop=True)


def beats_persistence(table: pd.DataFrame) -> pd.Series:
    """Whether each row of a `lead_time_table` is below persistence over the same range.

    Rows of persistence and of autoencoders, which do not predict, and ranges without persistence, are NA.
    """
    persistence = table[table["model"] == "persistence"].groupby("range")["value"].min()
    bound = table["range"].map(persistence)
    emulator = table["model"].isin(kind_titles()) & bound.notna()
    return (table["value"] < bound).astype("boolean").where(emulator)


def skill_scores(table: pd.DataFrame) -> pd.DataFrame:
    """One less the ratio of a score to climatology's over the same range, as the metric `crps_skill`.

    Intervals are those of the score: climatology's estimate is taken as it is. Without climatology, no rows.

    Arguments:
        table: The `lead_time_table` of `crps_relative`.
    """
    climatology = table[table["model"] == "climatology"].set_index("range")["value"]
    bound = table["range"].map(climatology[~climatology.index.duplicated()])
    kept = bound.notna() & (table["model"] != "climatology")
    skill = {
        "value": 1 - table["value"] / bound,
        "low": 1 - table["high"] / bound,
        "high": 1 - table["low"] / bound,
    }
    return table.assign(metric=SKILL, **skill)[kept].drop(columns="paper", errors="ignore")


def summarise(
    metrics: pa.Table, ranges: Sequence[Range], spectrum_ranges: Sequence[Range] = (), split: str = "test"
) -> dict[str, float]:
    """One method's metrics by range, as `<split>/<metric>/<range>`, and as `autoencoded/...` against that.

    Arguments:
        metrics: Tidy rows of one method.
        ranges: Inclusive ranges of lead times in simulation steps; None is the end.
        spectrum_ranges: Those of power spectra, if they differ.
        split: The split that the rows are of.
    """
    cells = CellTable(metrics)
    summary: dict[str, float] = {}
    for target, prefix in (("truth", split), ("autoencoded", "autoencoded")):
        for metric in cells.metrics(target):
            own = spectrum_ranges if spectrum_ranges and metric.startswith("spectrum") else ranges
            for row in estimate_cells(cells.of(metric, target), metric, own, draws=1).itertuples():
                summary[f"{prefix}/{metric}/{row.range}"] = float(row.value)
    return summary


def count_diverged(metrics: pa.Table) -> int:
    """The rollouts of one method, one per trajectory and start, with an error that is not finite."""
    errors = metrics.filter(pc.equal(metrics["metric"], "vrmse"))
    lost = errors.filter(pc.invert(pc.fill_null(pc.is_finite(errors["value"]), False)))
    return lost.unify_dictionaries().group_by(["trajectory", "start"]).aggregate([]).num_rows


@dataclasses.dataclass(frozen=True)
class Cell:
    """What a table shows of one estimate: `best` of the emulators, or `flagged` for losing to persistence.

    `paper` is the figure that the paper prints in its place, if it has one.
    """

    text: str
    interval: str = ""
    paper: str = ""
    best: bool = False
    flagged: bool = False


@dataclasses.dataclass(frozen=True)
class Layout:
    """A table to print: columns are pairs of metric and range, rows method, rate, steps, seeds and cells."""

    columns: list[tuple[str, str]]
    rows: list[tuple[str, str, str, str, list[Cell]]]


def layout(table: pd.DataFrame) -> Layout:
    """Lay out one or several concatenated `lead_time_table`s, methods down, metrics and ranges across.

    A column `paper`, if there is one, holds the figures that the paper prints (see `tables/paper.py`).
    """
    columns = list(dict.fromkeys(zip(table["metric"], table["range"], strict=True)))
    table = table.reset_index(drop=True)
    table = sort_methods(table.assign(flagged=_flags(table), best=_best(table)))
    # Keys in which methods of one model differ, so that their names must contain them
    keys = ["sampler", "members", "context", "overlap", "guidance"]
    varying = [key for key, most in table.groupby("model")[keys].nunique().max().items() if most > 1]
    rows = []
    for _, group in table.groupby(METHOD, sort=False):
        row = group.iloc[0]
        cells = {(cell["metric"], cell["range"]): _cell(cell) for _, cell in group.iterrows()}
        rate = f"{row['compression']:.4g}" if row["space"] == "latent" else "–"
        steps = str(row["solver_steps"]) if row["solver_steps"] else "–"
        seeds = "–" if row["model"] in UNTRAINED else str(row["seeds"])
        shown = [cells.get(column, Cell("–")) for column in columns]
        rows.append((name_method(row, varying), rate, steps, seeds, shown))
    return Layout(columns, rows)


def name_method(row: Mapping | pd.Series, keys: Sequence[str] = ()) -> str:
    """A method's name for people, with the keys in which it differs from others of its model."""
    emulator = row["model"] in kind_titles()
    where = " in pixel space" if emulator and row["space"] == "pixel" else ""
    words = {"guidance": "guided by"}
    differing = [f", {words.get(key, key)} {row[key]}" for key in keys if emulator and row[key] != ""]
    return model_titles().get(row["model"], row["model"]) + where + "".join(differing)


def in_sentence(name: str) -> str:
    """A name for people within a sentence: small at the start, unless its first word has other capitals."""
    first, space, rest = name.partition(" ")
    return f"{first.lower() if first[1:].islower() else first}{space}{rest}"


def name_metric(metric: str) -> str:
    names = {"vrmse": "VRMSE", "crps": "CRPS", "crps_relative": "CRPS / deviation", SKILL: "CRPS skill"}
    names |= {RATIO: "spread/skill", "vrmse_pooled": "pooled VRMSE", "vrmse_median": "median VRMSE"}
    names |= {"energy_block_relative": "energy score"}
    return names.get(metric, metric.replace("spectrum_rmse", "power,").replace("_", " "))


def _flags(table: pd.DataFrame) -> pd.Series:
    """Emulators whose VRMSE is not below persistence; spectra and ratios are not compared with it."""
    parts = [beats_persistence(part) for _, part in table.groupby("metric")]
    return (~pd.concat(parts).reindex(table.index)).fillna(False).astype(bool) & (table["metric"] == "vrmse")


def _best(table: pd.DataFrame) -> pd.Series:
    """The best emulator of each column: the least error, the ratio nearest to 1 as a factor, the coverage
    nearest to that of a calibrated ensemble."""
    finite = table["value"].where(np.isfinite(table["value"]) & table["model"].isin(kind_titles()))
    badness = finite.where(table["metric"] != RATIO, np.log(finite.where(table["metric"] == RATIO)).abs())
    badness = badness.where(table["metric"] != SKILL, -finite)
    for coverage in COVERAGES:
        nominal = table["members"].map(lambda members, share=coverage: nominal_coverage(share, members))
        badness = badness.where(table["metric"] != f"coverage_{100 * coverage:.0f}", (finite - nominal).abs())
    return badness == badness.groupby([table["metric"], table["range"]]).transform("min")


def _cell(row: pd.Series) -> Cell:
    figure = row.get("paper", np.nan)
    paper = "" if pd.isna(figure) else f"{figure:.3f}"
    best, flagged = bool(row["best"]), bool(row["flagged"])
    if row["unstable"]:
        return Cell(f"unstable {row['unstable']}/{row['trajectories']}", paper=paper, flagged=flagged)
    interval = "" if np.isnan(row["low"]) else f"{row['low']:.3f}–{row['high']:.3f}"
    return Cell(f"{row['value']:.3f}", interval, paper, best, flagged)


def heading(column: tuple[str, str]) -> str:
    """A column's heading for people, such as `1–20`, or `low 1–20` for a band of the spectrum."""
    metric, lead_times = column
    band = metric.removesuffix("_median")
    prefix = band.removeprefix("spectrum_rmse_") + " " if band in SPECTRUM else ""
    prefixes = {SKILL: "skill ", "vrmse_pooled": "pooled ", "vrmse_median": "median "}
    prefixes |= {"vrmse_unbiased": "unbiased "}
    prefixes |= {
        f"coverage_{100 * coverage:.0f}": f"{coverage:.0%} ".replace("%", " %") for coverage in COVERAGES
    }
    prefix = prefixes.get(metric, prefix)
    return prefix + lead_times.replace("-", "–")
