"""The report of a sweep: what its page shows and says.

Every sentence with a number is computed from the tidy tables; limits of the numbers are listed as well.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from lola.evaluation.page import sections
from lola.evaluation.page.figures import Example, example_states
from lola.evaluation.page.film_player import Film
from lola.evaluation.page.page import Page, Section
from lola.evaluation.tables.aggregates import WHOLE, Aggregates
from lola.evaluation.tables.derived import RATIO
from lola.evaluation.tables.lead_times import beats_persistence, in_sentence, name_method
from lola.evaluation.tables.significance import paired_table
from lola.evaluation.tables.speed import Timing, speed_table
from lola.models.kinds import kind_titles, shown_kinds


def make_page(
    scores: Aggregates,
    *,
    film: Film | None = None,
    examples: Sequence[Example] = (),
    timings: Sequence[Timing] = (),
    simulations: Sequence[Section] = (),
    **described: Any,
) -> Page:
    """The page of a sweep.

    Arguments:
        scores: What was scored.
        film: A trajectory to play.
        examples: States to picture.
        timings: Speed by method.
        simulations: Parts that show the simulations themselves.
        described: The title, the settings and the limits of a `Page`.
    """
    return Page(
        system=scores.system,
        findings=[*findings(scores), *_guided(scores)],
        sections=[*_sections(scores, film, examples, timings), *simulations],
        missing=sections.missing(scores, any(timing.model == "simulator" for timing in timings)),
        **described,
    )


def _sections(
    scores: Aggregates, film: Film | None, examples: Sequence[Example], timings: Sequence[Timing]
) -> Iterator[Section]:
    tables = scores.main.tables()
    yield from sections.accuracy(scores)
    if film is not None:
        text = f"{film.title}: every field as every method sees it, on the truth's colours."
        yield Section("film", "Film", text, film=film)
    yield from _example_sections(examples, film is not None)
    yield from sections.compression(scores, tables)
    yield from sections.significance(scores)
    yield from sections.proper(scores)
    yield from sections.calibration(scores)
    yield from sections.spectra(scores)
    yield from sections.sampling(scores, tables)
    yield from sections.conditioning(scores)
    if timings:
        yield Section(
            "speed",
            "Speed",
            "Seconds per emulated state of one member, with encoding and decoding, on the machine of this "
            "run.",
            plain=speed_table(timings, scores.system.name),
        )


def _guided(scores: Aggregates) -> Iterator[str]:
    """VRMSE with and without observations, by range of lead times."""
    table = sections.with_observations(scores)
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


def findings(scores: Aggregates) -> list[str]:
    main = scores.main
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
        sentences.append(
            f"Spread over skill is between {low:.2f} and {high:.2f}; a calibrated ensemble has 1."
        )
    return sentences


def _against_persistence(table: pd.DataFrame) -> Iterator[str]:
    """How many table entries beat persistence, and how many are unstable."""
    beats = beats_persistence(table).dropna()
    lost = int((~beats).sum())
    if len(beats) and not lost:
        yield f"Every emulator beats persistence at all ranges of lead times ({len(beats)} of {len(beats)})."
    elif len(beats):
        yield f"In {lost} of {len(beats)} table entries, marked ▲, an emulator is no better than persistence."
    unstable = table[table["unstable"] > 0]
    if len(unstable):
        yield f"In {len(unstable)} table entries, marked unstable, some rollouts became infinite or NaN."


def _best_emulators(table: pd.DataFrame) -> Iterator[str]:
    """The most accurate emulator of each range, and persistence."""
    for name, rows in table.groupby("range", sort=False):
        held = rows.loc[rows["model"] == "persistence", "value"].min()
        rows = rows[rows["model"].isin(kind_titles()) & (rows["unstable"] == 0)]
        if len(rows):
            best = rows.loc[rows["value"].idxmin()]
            rate = f" at {best['compression']:.4g}×" if best["space"] == "latent" else ""
            steps = f", {best['solver_steps']} solver steps" if best["solver_steps"] else ""
            against = "" if pd.isna(held) else f", persistence {held:.3f}"
            where = str(name).replace("-", "–")
            method = in_sentence(name_method(best))
            yield f"Lead times {where}: {method}{rate}{steps} is best, VRMSE {best['value']:.3f}{against}."


def _paired(main: Aggregates) -> Iterator[str]:
    """Every kind against others of its rate, over all lead times."""
    table = paired_table(main.errors, "vrmse", [WHOLE])
    table = table[~table["rival"].str.endswith("in pixel space")]
    for (model, rival), rows in table.groupby(["model", "rival"], sort=False):
        sure = rows[rows["p_holm"] < 0.05]
        better = int((2 * sure["wins"] > sure["trajectories"]).sum())
        counts = {
            "significantly more accurate": better,
            "significantly less accurate": len(sure) - better,
            "no significant difference": len(rows) - len(sure),
        }
        results = ", ".join(f"{result} at {count}" for result, count in counts.items() if count)
        yield (
            f"{shown_kinds()[str(model)].title} against {rival} over all lead times, of {len(rows)} "
            f"{'rate' if len(rows) == 1 else 'rates'}: {results} "
            "(paired by trajectory, Wilcoxon's test, corrected p < 0.05)."
        )


def demo_limits(
    *,
    train_trajectories: int,
    test_trajectories: int,
    grid: Sequence[int],
    training_steps: int,
    seeds: int = 1,
) -> list[str]:
    """What a run of this size cannot show, compared with the paper's.

    Arguments:
        train_trajectories, test_trajectories: Numbers of simulations for training and for scoring.
        grid: Points along each axis.
        training_steps: Optimiser steps of an emulator.
        seeds: Training seeds of an emulator.
    """
    size = " × ".join(map(str, grid))
    trainings = (
        "1 training per configuration: differences between seeds are unknown, and a difference between "
        "methods may be no larger."
        if seeds == 1
        else f"{seeds} trainings per emulator, on one training of each autoencoder: differences between "
        "methods may be no larger than those between other seeds."
    )
    return [
        f"{train_trajectories:,} training trajectories on a grid of {size} are few. The published study "
        "trained on terabytes, and its finding that compression hardly harms emulation is about that regime. "
        "With little data emulators overfit, more so in a strongly compressed space.",
        f"{test_trajectories:,} test trajectories were scored. The intervals are bootstraps over them: they "
        "show how much other test trajectories would change a number, not how much another training would.",
        trainings,
        f"{training_steps:,} optimiser steps per emulator; the study took 262,144. The ranking of methods "
        "may change with more training.",
        "A coarse grid has few fine scales. The same compression rate loses less detail on a larger grid, "
        "and its bands of wavenumbers are different ones.",
    ]
