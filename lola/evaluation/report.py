"""The report of a sweep: what its page shows and says.

Every sentence that holds a number is made from the tidy tables; what the numbers cannot show is said too.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from lola.data.systems import System
from lola.evaluation.figures import (
    Example,
    accuracy_over_steps,
    error_over_lead_time,
    example_states,
    guidance_over_lead_time,
    spectra_at,
    spread_skill_over_lead_time,
)
from lola.evaluation.page import Page, Section, write_page
from lola.evaluation.tables import (
    EMULATORS,
    RATIO,
    SPECTRUM,
    beats_persistence,
    lead_time_table,
    name_method,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds per state of a method.

    Arguments:
        method: Its name for people.
        seconds: Seconds per state of one member.
        compression: Its compression rate, if it works in latent space.
        solver_steps: Steps of its sampler, if it has one.
        simulator: Whether this is what the others are compared with.
    """

    method: str
    seconds: float
    compression: float | None = None
    solver_steps: int = 0
    simulator: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """What a report shows.

    Arguments:
        title: The headline.
        system: The physical system, whose lead-time ranges the tables take.
        settings: Names and values of what was run.
        metrics, spectra: The tidy tables.
        examples: States to picture.
        timings: Speed by method.
        simulations: Parts that show the simulations themselves.
        limits: What the numbers cannot show, a sentence or two each.
        links: Names and addresses of related pages.
    """

    title: str
    system: System
    settings: Sequence[tuple[str, str]]
    metrics: pa.Table
    spectra: pa.Table
    examples: Sequence[Example] = ()
    timings: Sequence[Timing] = ()
    simulations: Sequence[Section] = ()
    limits: Sequence[str] = ()
    links: Sequence[tuple[str, str]] = ()


def write_report(folder: Path, report: Report) -> Path:
    """Write `report.html` and the files beside it (see `write_page`); returns the path of the page."""
    plain = dataclasses.replace(report, metrics=_unguided(report.metrics), spectra=_unguided(report.spectra))
    return write_page(
        folder,
        Page(
            title=report.title,
            system=report.system,
            findings=[*findings(plain), *_guided_findings(report)],
            sections=[*_sections(plain), *_guided_sections(report), *report.simulations],
            timings=_timing_rows(report.timings),
            settings=report.settings,
            limits=report.limits,
            links=report.links,
        ),
    )


def _sections(report: Report) -> Iterator[Section]:
    metrics, ranges = report.metrics, report.system.ranges
    yield Section(
        "vrmse",
        "Accuracy",
        "Error of the ensemble's mean, over fields and lead times (simulation steps since the last known "
        "state), as VRMSE: root mean squared error over standard deviation of the true field, so that "
        "the field's mean, everywhere, scores 1. Persistence holds the last known state. The autoencoder "
        "alone shows what compression loses before anything is predicted.",
        error_over_lead_time(metrics),
        lead_time_table(metrics, "vrmse", ranges),
    )
    autoencoded = lead_time_table(metrics, "vrmse", ranges, target="autoencoded")
    if len(autoencoded):
        yield Section(
            "vrmse_autoencoded",
            "Accuracy against the auto-encoded truth",
            "The same error with the reconstruction of the truth as the target: what remains is the fault "
            "of the emulator, not of compression.",
            table=autoencoded,
        )
    yield from _example_sections(report.examples)
    ratio = lead_time_table(metrics, RATIO, ranges)
    if len(ratio):
        yield Section(
            "spread_skill",
            "Calibration of the ensembles",
            "Corrected spread of the ensemble over the error of its mean. 1 is necessary for a calibrated "
            "ensemble; below 1 it is too sure of itself, above 1 too wide. Squares are averaged over "
            "trajectories before dividing.",
            spread_skill_over_lead_time(metrics),
            ratio,
        )
    shown = report.system.shown
    yield Section(
        "spectra",
        "Power spectra",
        f"Isotropic power of {shown} over wavenumber, truth in black. The table holds the relative error of "
        "the power in three bands of wavenumbers, over all fields: near 0 every scale has its power, near 1 "
        "the power is lost.",
        spectra_at(report.spectra, shown, _few(report.spectra["lead_time"], 3)),
        pd.concat([lead_time_table(metrics, metric, ranges) for metric in SPECTRUM], ignore_index=True),
    )
    if max(metrics["solver_steps"].unique().to_pylist()) > 0:
        yield Section(
            "solver_steps",
            "Accuracy against solver steps",
            "Each step of the sampler is one evaluation of the network. Dashed lines are the neural solvers, "
            "which need one.",
            accuracy_over_steps(metrics, ranges),
        )


def _unguided(table: pa.Table) -> pa.Table:
    return table.filter(pc.equal(table["guidance"], ""))


def _with_observations(report: Report) -> pd.DataFrame:
    """Estimates of the diffusion models, guided and as many solver steps without; empty if none is."""
    table = lead_time_table(report.metrics, "vrmse", report.system.ranges)
    guided = table[table["guidance"] != ""]
    return table[(table["model"] == "diffusion") & table["solver_steps"].isin(guided["solver_steps"])]


def _guided_sections(report: Report) -> Iterator[Section]:
    table = _with_observations(report)
    if len(table):
        yield Section(
            "guidance",
            "Emulation with observations",
            "Diffusion models whose draws are guided by partial, noisy observations of the test trajectory, "
            "and the same without any. The error is over all points, observed or not.",
            guidance_over_lead_time(report.metrics),
            table,
        )


def _guided_findings(report: Report) -> Iterator[str]:
    table = _with_observations(report)
    for (rate, name), rows in table.groupby(["compression", "range"], sort=False):
        without = rows.loc[rows["guidance"] == "", "value"].min()
        for _, row in rows[rows["guidance"] != ""].iterrows():
            yield (
                f"With observations ({row['guidance']}) the VRMSE at {rate:.4g}× over lead times "
                f"{str(name).replace('-', '–')} is {row['value']:.3f}, without {without:.3f}."
            )


def _example_sections(examples: Sequence[Example]) -> Iterator[Section]:
    for i, example in enumerate(examples):
        name = "states" if len(examples) == 1 else f"states_{i + 1}"
        yield Section(name, "Example states" if i == 0 else "", example.title, example_states(example))


def _few(lead_times: pa.ChunkedArray, count: int) -> list[int]:
    """First, last and evenly spaced lead times between."""
    times = sorted(lead_times.unique().to_pylist())
    return sorted({times[round(i * (len(times) - 1) / (count - 1))] for i in range(count)})


def findings(report: Report) -> list[str]:
    """What the tables say, in sentences."""
    ranges = report.system.ranges
    table = lead_time_table(report.metrics, "vrmse", ranges)
    sentences = [*_against_persistence(table), *_best_emulators(table)]
    whole = lead_time_table(report.metrics, "vrmse", [(1, None)])
    alone = whole[whole["model"] == "autoencoder"]
    if len(alone):
        pairs = zip(alone["value"], alone["compression"], strict=True)
        losses = ", ".join(f"{value:.3f} at {rate:.4g}×" for value, rate in pairs)
        sentences.append(f"Compression alone costs a VRMSE of {losses}.")
    ratio = lead_time_table(report.metrics, RATIO, ranges)
    ratio = ratio[ratio["unstable"] == 0]
    if len(ratio):
        low, high = ratio["value"].min(), ratio["value"].max()
        sentences.append(f"Spread over skill is {low:.2f} to {high:.2f}; a calibrated ensemble has 1.")
    return sentences


def _against_persistence(table: pd.DataFrame) -> Iterator[str]:
    """How often emulators beat persistence, and how many of them were unstable."""
    beats = beats_persistence(table).dropna()
    lost = int((~beats).sum())
    if len(beats) and not lost:
        yield f"Every emulator beats persistence at every range of lead times ({len(beats)} of {len(beats)})."
    elif len(beats):
        yield f"Emulators do not beat persistence in {lost} of {len(beats)} entries, which the table marks."
    unstable = table[table["unstable"] > 0]
    if len(unstable):
        yield f"{len(unstable)} entries have rollouts that did not stay finite; they count as lost."


def _best_emulators(table: pd.DataFrame) -> Iterator[str]:
    """The most accurate emulator of each range, beside persistence."""
    for name, rows in table.groupby("range", sort=False):
        held = rows.loc[rows["model"] == "persistence", "value"].min()
        rows = rows[rows["model"].isin(EMULATORS) & (rows["unstable"] == 0)]
        if len(rows):
            best = rows.loc[rows["value"].idxmin()]
            rate = f" at {best['compression']:.4g}×" if best["space"] == "latent" else ""
            steps = f", {best['solver_steps']} solver steps" if best["solver_steps"] else ""
            against = "" if pd.isna(held) else f", persistence {held:.3f}"
            where = str(name).replace("-", "–")
            method = name_method(best).lower()
            yield f"Lead times {where}: best is {method}{rate}{steps}: VRMSE {best['value']:.3f}{against}."


def demo_limits(
    *,
    train_trajectories: int,
    test_trajectories: int,
    grid: Sequence[int],
    training_steps: int,
    training_seeds: int = 1,
) -> list[str]:
    """What a run of this size cannot show, next to the paper's.

    Arguments:
        train_trajectories, test_trajectories: Simulations that were learned from and scored on.
        grid: Points along each axis.
        training_steps: Optimiser steps of an emulator.
        training_seeds: Trainings per configuration.
    """
    size = " × ".join(map(str, grid))
    return [
        f"{train_trajectories:,} training trajectories on a grid of {size} are few. The published study "
        "learned from terabytes, and its finding that emulation hardly suffers from compression is about "
        "that regime; with little data emulators overfit, the more so in a strongly compressed space.",
        f"{test_trajectories:,} test trajectories were scored. The intervals are bootstraps over them: they "
        "tell how much another choice of trajectories would change a number, not how much another "
        "training would.",
        f"{training_seeds} training per configuration: differences as small as those between seeds mean "
        "nothing, and their size is not known from this run."
        if training_seeds == 1
        else f"{training_seeds} trainings per configuration: few to tell small differences from chance.",
        f"{training_steps:,} optimiser steps per emulator, where the study took 262,144: an order of "
        "methods that holds here may turn over with more training.",
        "A coarse grid has few fine scales to lose. A compression rate here is not the same loss as the "
        "equal rate on a larger grid, and the high-frequency band is not the same band.",
    ]


def _timing_rows(timings: Sequence[Timing]) -> list[dict[str, str]]:
    base = next((timing.seconds for timing in timings if timing.simulator), None)
    return [
        {
            "method": timing.method,
            "rate": f"{timing.compression:.4g}" if timing.compression else "–",
            "steps": str(timing.solver_steps or "–"),
            "seconds": f"{timing.seconds:.3g} s" if timing.seconds >= 1 else f"{1e3 * timing.seconds:.3g} ms",
            "factor": f"{base / timing.seconds:.3g}×" if base else "–",
        }
        for timing in timings
    ]
