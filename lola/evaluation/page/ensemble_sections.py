"""The parts of a sweep's page on ensembles: proper scores, calibration and ranks."""

from collections.abc import Iterator, Sequence

import pandas as pd

from lola.evaluation.page.charts import Axis
from lola.evaluation.page.page import Section
from lola.evaluation.page.sweep_charts import binned_chart, lead_time_chart
from lola.evaluation.scores.intervals import nominal_coverage
from lola.evaluation.tables.aggregates import Aggregates
from lola.evaluation.tables.cells import METHOD
from lola.evaluation.tables.derived import RATIO
from lola.evaluation.tables.formats import name_columns
from lola.evaluation.tables.lead_times import skill_scores


def proper(scores: Aggregates) -> Iterator[Section]:
    """Scores of ensembles and single predictions that none can improve on by hedging."""
    main = scores.main
    table = main.table("crps_relative")
    if not len(table):
        return
    yield Section(
        "crps",
        "Proper scores",
        "CRPS over the deviation of the true field, both averaged over trajectories before dividing. Of a "
        "single prediction it is the mean absolute error. The skill compares it to climatology, an ensemble "
        "of training trajectories at the same times: 1 is perfect, 0 no better. The energy score is of "
        "blocks of 8 cells, and sees whether members have the structure of the truth.",
        table=pd.concat([table, skill_scores(table)], ignore_index=True),
        chart=lead_time_chart(main.curves, ["crps_relative", "energy_block_relative", "vrmse_pooled"]),
    )


def calibration(scores: Aggregates) -> Iterator[Section]:
    """Spread over skill, coverage, and rank histograms."""
    main = scores.main
    ratio = main.table(RATIO)
    if len(ratio):
        yield Section(
            "spread_skill",
            "Calibration of the ensembles",
            "Corrected spread of the ensemble over the error of its mean. A calibrated ensemble has 1; "
            "below 1 it is overconfident, above 1 too wide. Squares are averaged over trajectories before "
            "dividing.",
            table=ratio,
            chart=lead_time_chart(main.curves, [RATIO]),
        )
    coverage = [main.table(f"coverage_{level}") for level in (50, 90)]
    if all(map(len, coverage)):
        text = explain_coverage(coverage)
        yield Section("coverage", "Coverage", text, table=pd.concat(coverage, ignore_index=True))
    if (main.spectra["metric"] == "rank_histogram").any():
        yield Section(
            "ranks",
            "Ranks",
            "How often the truth has each rank among the members, point by point, on all trajectories and of "
            "all training seeds. With a calibrated ensemble "
            "all ranks are equally frequent; an overconfident one has peaks at both ends. The reliability "
            "index is the sum of the differences from equal shares, averaged over fields: 0 at best; in "
            "parentheses what chance alone gives so few trajectories, given how much they differ.",
            plain=_reliability(main.reliability),
            chart=binned_chart(
                main.spectra, "rank_histogram", Axis("rank of the truth"), Axis("share"), scores.system.shown
            ),
        )


def _reliability(table: pd.DataFrame) -> pd.DataFrame:
    """The reliability index, methods down and ranges of lead times across."""
    methods = table.drop_duplicates(METHOD)
    cells = {(*row[METHOD], row["range"]): row for _, row in table.iterrows()}
    columns = {
        name.replace("-", "–"): [_index(cells.get((*row[METHOD], name))) for _, row in methods.iterrows()]
        for name in dict.fromkeys(table["range"])
    }
    return pd.DataFrame(name_columns(methods) | columns)


def _index(cell: pd.Series | None) -> str:
    if cell is None:
        return "–"
    chance = "" if pd.isna(cell["by_chance"]) else f" ({cell['by_chance']:.2f})"
    return "not finite" if pd.isna(cell["value"]) else f"{cell['value']:.2f}{chance}"


def explain_coverage(tables: Sequence[pd.DataFrame]) -> str:
    """What the table of coverages is, and what a calibrated ensemble has."""
    members = sorted({int(count) for table in tables for count in table["members"]})
    nominal = [
        f"{nominal_coverage(0.5, count):.1%} and {nominal_coverage(0.9, count):.1%} with {count} members"
        for count in members
    ]
    return (
        "Of the central 50 % and 90 % intervals of members. A calibrated ensemble covers "
        f"{', '.join(nominal)}: few members cannot cover more."
    )
