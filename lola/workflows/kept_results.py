"""The results of a finished sweep in a folder that is small enough to commit.

It has `scores.parquet` (`lola.evaluation.tables.reduced`), the settings in `about.json`, figures of the
report as PNG, and a README.md whose sentences and tables are computed from the first two alone: anyone can
compute them again with `render`.
"""

import dataclasses
import datetime
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lola.core.strict_json import dumps, loads
from lola.data.systems import System
from lola.evaluation.page.findings import headlines
from lola.evaluation.page.sections import paired_rows
from lola.evaluation.scores.rows import SPECTRA_SCHEMA
from lola.evaluation.tables.aggregates import WHOLE, Aggregates
from lola.evaluation.tables.cost_table import cost_table
from lola.evaluation.tables.derived import RATIO
from lola.evaluation.tables.formats import markdown, plain_markdown
from lola.evaluation.tables.lead_times import SPECTRUM, name_range, skill_scores
from lola.evaluation.tables.medians import median_table
from lola.evaluation.tables.reduced import reduce_metrics, write_reduced
from lola.evaluation.tables.references import reference_table, shown_shares
from lola.evaluation.tables.significance import paired_table
from lola.evaluation.tables.speed import Timing
from lola.models.kinds import KINDS, EmulatorKind, arm_kind, shown_with
from lola.storage.remote import AnyPath
from lola.storage.stages import software
from lola.training.peak import processor_name
from lola.workflows.plan import SweepPlan
from lola.workflows.sweep_report import describe_settings, evaluated_tables, shown_arms, timings

SCORES, ABOUT, README = "scores.parquet", "about.json", "README.md"
FIGURES = ("crps", "spread_skill", "cost", "rates", "spectra", "states")
"""Pictures of the report that are copied, where it has them."""
REFERENCE = "diffusion"
COSTS = {"crps_relative": "CRPS / deviation", "vrmse": "VRMSE", "energy_block_relative": "energy score"}


def keep_results(plan: SweepPlan, report: AnyPath, folder: Path) -> None:
    """Write the results of a sweep whose report is written, in place of earlier ones.

    Arguments:
        report: The folder of the report.

    Raises:
        StorageError: The folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tables = [reduce_metrics(metrics) for metrics, _ in evaluated_tables(plan)]
    write_reduced(pa.concat_tables(tables).unify_dictionaries(), folder / SCORES)
    figures = [name for name in FIGURES if (report / f"{name}.png").exists()]
    for name in figures:
        shutil.copyfile(report / f"{name}.png", folder / f"{name}.png")
    about = {
        "system": plan.system.name,
        "command": shlex.join(["python", *sys.argv]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{processor_name()}, {os.cpu_count()} cores",
        "software": software(),
        "settings": describe_settings(plan),
        "arms": [
            {"name": arm.name, "title": arm.title, "kind": kind}
            for arm, kind in zip(shown_arms(plan), _kinds(plan), strict=True)
        ],
        "timings": [dataclasses.asdict(timing) for timing in timings(plan)],
        "figures": figures,
    }
    (folder / ABOUT).write_text(dumps(about, indent=1) + "\n")
    (folder / README).write_text(render(folder, plan.system))


def render(folder: Path, system: System) -> str:
    """The README of results, from its scores and settings."""
    about = loads((folder / ABOUT).read_bytes())
    arms = [arm_kind(KINDS[arm["kind"]], arm["name"], arm["title"], i) for i, arm in enumerate(about["arms"])]
    with shown_with(arms):
        spectra = SPECTRA_SCHEMA.empty_table()
        scores = Aggregates.of(system, [(pq.read_table(folder / SCORES), spectra)]).main
        found = [Timing(**timing) for timing in about["timings"]]
        return "\n".join(_lines(scores, about, found)) + "\n"


def _lines(scores: Aggregates, about: dict[str, Any], found: Sequence[Timing]) -> Iterator[str]:
    yield f"# {scores.system.name}: what compression costs\n"
    yield (
        f"Computed from this folder's `{SCORES}`, scores by trajectory, and `{ABOUT}`, the settings. "
        "Parentheses have 95 % intervals over training seeds and test trajectories; the best are bold.\n"
    )
    yield "## Findings\n"
    yield from (f"- {sentence}" for sentence in headlines(scores))
    for title, text, table in _tables(scores, found):
        if len(table):
            yield f"\n## {title}\n\n{text}\n"
            yield (markdown(table) if "metric" in table else plain_markdown(table)).rstrip()
    yield from (f"\n![{name}]({name}.png)" for name in about["figures"])
    versions = ", ".join(f"{name} {version}" for name, version in about["software"].items())
    yield f"\n## How\n\n```bash\n{about['command']}\n```\n"
    yield f"{about['date']}, {about['machine']}; {versions}.\n"
    yield from (f"- {name}: {value}" for name, value in about["settings"])


def _tables(scores: Aggregates, found: Sequence[Timing]) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Titles, explanations, and tables: rows of `lead_time_table`s, or strings."""
    ranges = scores.system.ranges
    crps = scores.estimated("crps_relative", ranges)
    yield (
        "CRPS",
        "Over the deviation of the true field; of a single prediction it is the absolute error. The skill is "
        "against the climatological ensemble: 1 is perfect, 0 no better.",
        pd.concat([crps, skill_scores(crps)]),
    )
    yield from _comparisons(scores)
    yield (
        "Calibration",
        "Spread over skill: 1 is calibrated, less is overconfident.",
        scores.estimated(RATIO, ranges),
    )
    coverage = [scores.estimated(f"coverage_{level}", ranges) for level in (50, 90)]
    yield "Coverage", "Of the central 50 % and 90 % intervals of members.", pd.concat(coverage)
    energy = scores.estimated("energy_block_relative", ranges)
    yield "Energy score", "The fair one, of blocks of cells, over the deviation of the true field.", energy
    errors = [scores.estimated(metric, ranges) for metric in ("vrmse_pooled", "vrmse")]
    yield (
        "VRMSE",
        "Pooled and as a median over trajectories, which no trajectory can dominate; and as the published "
        "tables have it, a mean of ratios.",
        pd.concat([errors[0], median_table(scores.errors, "vrmse", ranges), errors[1]]),
    )
    bands = [scores.estimated(band, ranges[-1:]) for band in SPECTRUM]
    yield (
        "Power spectra",
        "Relative errors in three bands of wavenumbers, at the last lead times.",
        pd.concat(bands),
    )
    whole = scores.estimates[scores.estimates["target"] == "truth"]
    yield (
        "Cost",
        "Seconds per state of all members, and minutes of training, with those of the models that weights "
        "started from; errors are over all lead times.",
        cost_table(whole[whole["range"] == name_range(WHOLE)], found, COSTS),
    )


def _comparisons(scores: Aggregates) -> Iterator[tuple[str, str, pd.DataFrame]]:
    ranges, errors = [*scores.system.ranges, WHOLE], scores.errors
    steps = errors.loc[errors["model"] == REFERENCE, "solver_steps"]
    if len(steps):
        reference = {"model": REFERENCE, "solver_steps": int(steps.max())}
        table = reference_table(errors, "crps_relative", ranges, reference)
        yield (
            f"CRPS against {REFERENCE} with {steps.max()} evaluations",
            "Relative differences on the same trajectories, negative where a method is better; `*` is "
            "significant (Wilcoxon's test over trajectories, Holm's correction, p < 0.05).",
            shown_shares(table) if len(table) else table,
        )
    paired = paired_table(errors, "crps_relative", [WHOLE])
    yield (
        "CRPS in pairs",
        "Kinds against each other, and other recipes against what is of their kind, over all lead times.",
        paired_rows(paired).drop(columns=["lead times", "p"]) if len(paired) else pd.DataFrame(),
    )


def _kinds(plan: SweepPlan) -> list[str]:
    """The names of the kinds of the sweep's arms."""
    kinds: dict[type, EmulatorKind] = {kind.config: kind for kind in KINDS.values()}
    return [kinds[type(arm.model)].name for arm in plan.config.arms]
