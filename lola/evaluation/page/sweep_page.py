"""The report of a sweep: what its page shows and says.

Every sentence that holds a number is made from the tidy tables; what the numbers cannot show is said too.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import pandas as pd

from lola.evaluation.page import sections
from lola.evaluation.page.figures import Example, example_states
from lola.evaluation.page.film import Film
from lola.evaluation.page.page import Page, Section
from lola.evaluation.tables.aggregates import WHOLE, Aggregates
from lola.evaluation.tables.cells import RATIO
from lola.evaluation.tables.lead_times import EMULATORS, beats_persistence, name_method
from lola.evaluation.tables.significance import paired_table
from lola.evaluation.tables.speed import Timing, speed_table


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """What a report shows.

    Arguments:
        title: The headline.
        settings: Names and values of what was run.
        scores: What was scored.
        film: A trajectory to play.
        examples: States to picture.
        timings: Speed by method.
        simulations: Parts that show the simulations themselves.
        limits: What the numbers cannot show, a sentence or two each.
        links: Names and addresses of related pages.
    """

    title: str
    settings: Sequence[tuple[str, str]]
    scores: Aggregates
    film: Film | None = None
    examples: Sequence[Example] = ()
    timings: Sequence[Timing] = ()
    simulations: Sequence[Section] = ()
    limits: Sequence[str] = ()
    links: Sequence[tuple[str, str]] = ()


def make_page(report: Report) -> Page:
    """The page of a report."""
    scores = report.scores
    simulator = any(timing.model == "simulator" for timing in report.timings)
    return Page(
        title=report.title,
        system=scores.system,
        findings=[*findings(report), *_guided(report)],
        sections=[*_sections(report), *report.simulations],
        missing=sections.missing(scores, simulator),
        settings=report.settings,
        limits=report.limits,
        links=report.links,
    )


def _sections(report: Report) -> Iterator[Section]:
    scores = report.scores
    tables = scores.main.tables()
    yield from sections.accuracy(scores)
    if report.film is not None:
        text = f"{report.film.title}: every field as every method sees it, on the truth's colours."
        yield Section("film", "Film", text, film=report.film)
    yield from _example_sections(report.examples, report.film is not None)
    yield from sections.compression(scores, tables)
    yield from sections.significance(scores)
    yield from sections.calibration(scores)
    yield from sections.spectra(scores)
    yield from sections.sampling(scores, tables)
    yield from sections.conditioning(scores)
    if report.timings:
        yield Section(
            "speed",
            "Speed",
            "Seconds per emulated state of one member, with encoding and decoding, on the machine of this "
            "run.",
            plain=speed_table(report.timings, scores.system.name),
        )


def _guided(report: Report) -> Iterator[str]:
    """What observations bring, over ranges of lead times."""
    table = sections.with_observations(report.scores)
    for (rate, name), rows in table.groupby(["compression", "range"], sort=False):
        without = rows.loc[rows["guidance"] == "", "value"].min()
        for _, row in rows[rows["guidance"] != ""].iterrows():
            yield (
                f"With observations ({row['guidance']}) the VRMSE at {rate:.4g}× over lead times "
                f"{str(name).replace('-', '–')} is {row['value']:.3f}, without {without:.3f}."
            )


def _example_sections(examples: Sequence[Example], folded: bool) -> Iterator[Section]:
    for i, example in enumerate(examples):
        name = "states" if len(examples) == 1 else f"states_{i + 1}"
        title = "Example states" if i == 0 and not folded else ""
        yield Section(name, title, example.title, example_states(example), folded=folded)


def findings(report: Report) -> list[str]:
    """What the tables say, in sentences."""
    main = report.scores.main
    ranges = main.system.ranges
    table = main.estimated("vrmse", ranges)
    sentences = [*_against_persistence(table), *_best_emulators(table), *_paired(main)]
    whole = main.estimated("vrmse", [WHOLE])
    alone = whole[whole["model"] == "autoencoder"]
    if len(alone):
        pairs = zip(alone["value"], alone["compression"], strict=True)
        losses = ", ".join(f"{value:.3f} at {rate:.4g}×" for value, rate in pairs)
        sentences.append(f"Compression alone costs a VRMSE of {losses}.")
    ratio = main.estimated(RATIO, ranges)
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


def _paired(main: Aggregates) -> Iterator[str]:
    """Diffusion against the neural solver of its rate, over all lead times."""
    table = paired_table(main.errors, "vrmse", [WHOLE])
    table = table[table["rival"] == "neural solver"]
    if not len(table):
        return
    sure = table[table["p_holm"] < 0.05]
    better = int((2 * sure["wins"] > sure["trajectories"]).sum())
    yield (
        f"Over all lead times diffusion is more accurate than the neural solver at {better} of "
        f"{len(table)} rates and less at {len(sure) - better}, paired by trajectory (Wilcoxon, p < 0.05 "
        "after correction); elsewhere the difference may be chance."
    )


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
