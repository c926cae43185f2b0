"""The results of a finished sweep in a folder that is small enough to commit.

It has `scores.parquet` (`lola.evaluation.tables.reduced`), the settings in `about.json`, figures of the
report as PNG, and a README.md whose sentences and tables are computed from the first two alone: anyone can
compute them again with `render`.
"""

import contextlib
import dataclasses
import datetime
import io
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from lola.core.config import require
from lola.core.filesystem import translate_os_errors
from lola.core.strict_json import dumps, loads
from lola.data.systems import System
from lola.evaluation.page.ensemble_sections import explain_coverage
from lola.evaluation.page.findings import headlines
from lola.evaluation.page.sections import paired_rows
from lola.evaluation.page.study_findings import by_rate, study_findings
from lola.evaluation.scores.rows import SPECTRA_SCHEMA
from lola.evaluation.tables.aggregates import WHOLE, Aggregates
from lola.evaluation.tables.cost_table import cost_table
from lola.evaluation.tables.derived import RATIO
from lola.evaluation.tables.formats import markdown, plain_markdown
from lola.evaluation.tables.lead_times import SPECTRUM, layout, name_range, skill_scores
from lola.evaluation.tables.medians import median_table
from lola.evaluation.tables.paper import paper_ranges
from lola.evaluation.tables.reduced import EMULATED, reduce_metrics, sort_reduced, write_reduced
from lola.evaluation.tables.references import reference_table, shown_shares
from lola.evaluation.tables.significance import paired_table, trajectory_errors
from lola.evaluation.tables.speed import Timing
from lola.models.kinds import KINDS, arm_kind, require_kind, shown_with
from lola.storage.remote import AnyPath, file_exists, read_bytes
from lola.storage.stages import atomic_path, open_folder
from lola.training.peak import processor_name
from lola.workflows.plan import SweepPlan
from lola.workflows.sweep_report import describe_settings, evaluated_tables, shown_arms, timings

SCORES, ABOUT, README = "scores.parquet", "about.json", "README.md"
FIGURES = ("crps", "spread_skill", "cost", "rates", "spectra", "states", "states_2")
"""Pictures of the report that are copied, where it has them; of several of states, the second."""
REFERENCE = "diffusion"
TRAINED = ("autoencoders", "emulators")
MAIN = ["context", "overlap"]  # tables are of the least of both
GLANCES = {
    "crps_relative": "CRPS over the deviation of the true field",
    "vrmse_pooled": "Pooled VRMSE of the ensemble's mean, 1 for the best constant field",
    RATIO: "Spread over skill, 1 in a calibrated ensemble",
}
"""Metrics by kind and rate at the top, and what is said of them."""
COSTS = {
    "crps_relative": "CRPS / deviation",
    "vrmse_pooled": "pooled VRMSE",
    "energy_block_relative": "energy score",
}


def open_results(folder: str) -> Path:
    """The folder of results, which may have earlier ones but nobody else's files of their names.

    Raises:
        ConfigError: It has such files.
        StorageError: It cannot be written.
    """
    path = open_folder(folder, "results")
    written = (SCORES, README, ABOUT, *(f"{name}.png" for name in FIGURES))
    taken = [name for name in written if (path / name).exists()]
    require(
        not taken or _is_about(path / ABOUT),
        f"--results {folder} would replace {', '.join(taken)}, which no sweep wrote; name another folder",
    )
    return path


def _is_about(path: Path) -> bool:
    """Whether a file describes kept results."""
    try:
        found = loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and {"system", "command", "settings", "timings"} <= found.keys()


def keep_results(plan: SweepPlan, report: AnyPath, folder: Path) -> None:
    """Write the results of a sweep whose report is written, in place of earlier ones.

    Arguments:
        report: The folder of the report.

    Raises:
        StorageError: The folder cannot be written.
    """
    tables = [reduce_metrics(metrics) for metrics, _ in evaluated_tables(plan)]
    scores = sort_reduced(pa.concat_tables(tables))
    figures = [name for name in FIGURES if file_exists(report / f"{name}.png")]
    about = {
        "system": plan.system.name,
        "command": describe_command(sys.argv),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{processor_name()}, {os.cpu_count()} cores",
        "software": plan.evaluations[0].steps[0].stage.manifest()["software"],
        "settings": describe_settings(plan),
        "arms": [
            {"name": arm.name, "title": arm.title, "kind": require_kind(config.model).name}
            for arm, config in zip(shown_arms(plan), plan.config.arms, strict=True)
        ],
        "warm_starts": {one.name: one.model.warm_start for one in plan.emulators if one.model.warm_start},
        "trainings": [*_trainings(plan)],
        "timings": [dataclasses.asdict(timing) for timing in timings(plan)],
        "figures": figures,
    }
    with translate_os_errors(folder, "write"):
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(folder / ABOUT) as tmp_path:
            tmp_path.write_text(dumps(about, indent=1) + "\n", "utf-8")
        for name in FIGURES:
            (folder / f"{name}.png").unlink(missing_ok=True)
        for name in figures:
            (folder / f"{name}.png").write_bytes(_smaller(read_bytes(report / f"{name}.png")))
        write_reduced(scores, folder / SCORES)
        (folder / README).write_text(render(folder, plan.system), "utf-8")


def _smaller(picture: bytes) -> bytes:
    """A PNG in 256 colours, which takes a fraction of the bytes."""
    found = io.BytesIO()
    whole = Image.open(io.BytesIO(picture)).convert("RGB")
    whole.quantize(dither=Image.Dither.NONE).save(found, "png", optimize=True)
    return found.getvalue()


def _trainings(plan: SweepPlan) -> Iterator[dict[str, Any]]:
    """What trainings say of overfitting: their last losses. Imported models have none."""
    for stage in (step.stage for step in plan.steps if step.stage.kind in TRAINED):
        manifest = stage.manifest()
        if metrics := manifest.get("metrics"):
            losses = {name: metrics[f"{name}/loss"] for name in ("train", "valid")}
            yield {"name": stage.what, "steps": manifest["config"]["training"]["steps"], **losses}


def describe_command(arguments: Sequence[str]) -> str:
    """A command line without where it keeps things; for other programs than scripts, the function."""
    program, *options = arguments
    if not program.endswith(".py"):
        return "lola.run_sweep(...)"
    words = ["python", f"experiments/{Path(program).name}"]
    places = ("--storage", "--results", "--well")
    for previous, word in zip(["", *options], options, strict=False):
        if not word.startswith(places) and previous not in places:
            words.append(word)
    return shlex.join(words)


def render(folder: Path, system: System) -> str:
    """The README of results, from their scores and settings."""
    with _read(folder, system) as (about, scores):
        found = [Timing(**timing) for timing in about["timings"]]
        emulated = pq.read_table(folder / SCORES, filters=[("target", "=", "autoencoded")])
        tables = [*_tables(scores, found), *_against_autoencoded(emulated, system)]
        tables += _losses(about.get("trainings", []))
        return "\n".join(_lines(scores, about, tables)) + "\n"


def describe_rates(rates: Sequence[float]) -> str:
    """What results of these compression rates are on; none is pixel space alone."""
    if len(rates) > 1:
        return "what compression costs"
    return f"emulators at {rates[0]:.4g} times compression" if rates else "emulators in pixel space"


def summarise_results(folder: Path, system: System) -> str:
    """The headlines of results in Markdown: tables by kind and rate, over all lead times."""
    with _read(folder, system) as (_, scores):
        return "\n".join(
            f"{text}:\n\n{plain_markdown(by_rate(scores, name))}" for name, text in GLANCES.items()
        )


@contextlib.contextmanager
def _read(folder: Path, system: System) -> Iterator[tuple[dict[str, Any], Aggregates]]:
    """Settings and scores of results, while tables know their arms."""
    about = loads((folder / ABOUT).read_bytes())
    arms = [arm_kind(KINDS[arm["kind"]], arm["name"], arm["title"], i) for i, arm in enumerate(about["arms"])]
    with shown_with(arms):
        tables = [(pq.read_table(folder / SCORES), SPECTRA_SCHEMA.empty_table())]
        yield about, Aggregates.of(system, tables, with_curves=False).main


def _lines(
    scores: Aggregates, about: dict[str, Any], tables: Sequence[tuple[str, str, pd.DataFrame]]
) -> Iterator[str]:
    yield f"# {scores.system.name}: {describe_rates(scores.rates)}\n"
    yield (
        f"Computed from this folder's `{SCORES}`, scores by trajectory, and `{ABOUT}`, the settings. "
        "Parentheses have 95 % intervals over test trajectories and, where a method has several, training "
        "seeds; the best are bold.\n"
    )
    yield "## Findings\n"
    yield from (f"- {sentence}" for sentence in headlines(scores, mark="\\*"))
    if compared := study_findings(scores, about.get("warm_starts")):
        yield f"\n{compared[0]}\n"
        yield from (f"- {sentence}" for sentence in compared[1:])
        for name, text in GLANCES.items():
            yield f"\n{text}, over all lead times:\n"
            yield plain_markdown(by_rate(scores, name)).rstrip()
    for title, text, table in tables:
        if len(table):
            yield f"\n## {title}\n\n{text}\n"
            yield (markdown(layout(table)) if "metric" in table else plain_markdown(table)).rstrip()
    yield from (f"\n![{name}]({name}.png)" for name in about["figures"])
    versions = ", ".join(f"{name} {version}" for name, version in about["software"].items())
    yield f"\n## How\n\n```bash\n{about['command']}\n```\n"
    yield f"Kept on {about['date']}, {about['machine']}. Evaluated with {versions}.\n"
    yield from (f"- {name}: {value}" for name, value in about["settings"])


def _tables(scores: Aggregates, found: Sequence[Timing]) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Titles, explanations, and tables: rows of `lead_time_table`s, or strings."""
    ranges = scores.system.ranges
    crps = scores.estimated("crps_relative", ranges)
    yield (
        "CRPS",
        "Over the deviation of the true field; of a single prediction it is the absolute error. The skill is "
        "against the climatological ensemble, whose own is taken as it is: 1 is perfect, 0 no better.",
        pd.concat([crps, skill_scores(crps)]),
    )
    yield from _comparisons(scores)
    yield (
        "Calibration",
        "Spread over skill: 1 is calibrated, less is overconfident.",
        scores.estimated(RATIO, ranges),
    )
    coverage = [scores.estimated(f"coverage_{level}", ranges) for level in (50, 90)]
    yield "Coverage", explain_coverage(coverage), pd.concat(coverage)
    energy = scores.estimated("energy_block_relative", ranges)
    yield "Energy score", "The fair one, of blocks of cells, over the deviation of the true field.", energy
    errors = [scores.estimated(metric, ranges) for metric in ("vrmse_pooled", "vrmse")]
    yield (
        "VRMSE",
        "Pooled and as a median over trajectories, which no trajectory can dominate; and as the published "
        "tables have it, a mean of ratios. `*`: no better than persistence.",
        pd.concat([errors[0], median_table(scores.errors, "vrmse", ranges), errors[1]]),
    )
    yield (
        "Power spectra",
        "Relative errors in three bands of wavenumbers, at the last lead times: medians over trajectories.",
        _spectra(scores.errors, scores.system),
    )
    whole = scores.estimates[scores.estimates["target"] == "truth"]
    yield (
        "Cost",
        "Seconds per state of all members, and minutes of training, with those of the models that weights "
        "started from: by the clock, on a machine that other work shared, so that those of equal networks "
        "may differ by a factor of two. Errors are over all lead times. On the Pareto front, no other method "
        "is better and cheaper; training then counts with that of the autoencoder.",
        cost_table(whole[whole["range"] == name_range(WHOLE)], found, COSTS),
    )


def _against_autoencoded(metrics: pa.Table, system: System) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """The table of errors of emulation alone, of rows against the auto-encoded truth."""
    if len(metrics):
        ranges = dict.fromkeys((*system.ranges, *paper_ranges(system, SPECTRUM[0])))
        errors = trajectory_errors(metrics, EMULATED, [*ranges], "autoencoded")
        errors = errors[(errors[MAIN] == errors[MAIN].min()).all(axis=1)]
        yield (
            "Against the auto-encoded truth",
            "Errors of emulation alone, as medians over trajectories: VRMSE, and power spectra at the last "
            "lead times.",
            _stacked([median_table(errors, "vrmse", system.ranges), _spectra(errors, system)]),
        )


def _spectra(errors: pd.DataFrame, system: System) -> pd.DataFrame:
    """Median errors of power spectra at the last lead times."""
    return _stacked([median_table(errors, band, paper_ranges(system, band)[-1:]) for band in SPECTRUM])


def _stacked(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Tables one above the other: empty ones, whose columns have no type, are left out."""
    tables = [table for table in tables if len(table)]
    return pd.concat(tables) if tables else pd.DataFrame()


def _comparisons(scores: Aggregates) -> Iterator[tuple[str, str, pd.DataFrame]]:
    ranges, errors = [*scores.system.ranges, WHOLE], scores.errors
    steps = errors.loc[errors["model"] == REFERENCE, "solver_steps"]
    if len(steps):
        reference = {"model": REFERENCE, "solver_steps": int(steps.max())}
        table = reference_table(errors, "crps_relative", ranges, reference)
        yield (
            f"CRPS against {REFERENCE} with {steps.max()} evaluations",
            "Relative differences on the same trajectories, negative where a method is better; `*` is "
            "significant (Wilcoxon's test over trajectories, p < 0.05 by Holm's correction for this table).",
            shown_shares(table) if len(table) else table,
        )
    paired = paired_table(errors, "crps_relative", [WHOLE])
    yield (
        "CRPS in pairs",
        "Kinds against each other, and other recipes against what is of their kind, over all lead times. "
        "Where numbers of seeds differ, intervals are over trajectories alone.",
        paired_rows(paired).drop(columns=["lead times", "p"]) if len(paired) else pd.DataFrame(),
    )


def _losses(trainings: Sequence[dict[str, Any]]) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """The table of the last losses, where they are kept."""
    if trainings:
        rows = [
            {
                "model": one["name"],
                "steps": one["steps"],
                **{
                    split: f"{one[name]:.4g}"
                    for name, split in (("train", "training"), ("valid", "validation"))
                },
            }
            for one in trainings
        ]
        yield (
            "Losses",
            "On the training and the validation split, at the last report. Each kind has its own loss, and "
            "each rate its own latents.",
            pd.DataFrame(rows),
        )
