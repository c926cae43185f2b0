"""The report of a sweep: what its page shows and says.

Every sentence with a number is computed from the tidy tables; limits of the numbers are listed as well.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from lola.evaluation.page import ensemble_sections, sections
from lola.evaluation.page.cost_charts import cost_sections
from lola.evaluation.page.figures import Example, example_states
from lola.evaluation.page.film_player import Film
from lola.evaluation.page.findings import findings
from lola.evaluation.page.page import Page, Section
from lola.evaluation.page.terms import terms
from lola.evaluation.tables.aggregates import Aggregates
from lola.evaluation.tables.lead_times import in_sentence
from lola.evaluation.tables.speed import Timing, speed_table
from lola.models.kinds import shown_kinds


def make_page(
    scores: Aggregates,
    *,
    film: Film | None = None,
    examples: Sequence[Example] = (),
    timings: Sequence[Timing] = (),
    simulations: Sequence[Section] = (),
    contexts: Sequence[int] = (),
    **described: Any,
) -> Page:
    """The page of a sweep.

    Arguments:
        scores: What was scored.
        film: A trajectory to play.
        examples: States to picture.
        timings: Speed by method.
        simulations: Parts that show the simulations themselves.
        contexts: Those of the paper that the same models could also be evaluated with.
        described: The title, the settings and the limits of a `Page`.
    """
    return Page(
        system=scores.system,
        findings=[*findings(scores), *_guided(scores)],
        sections=[*_sections(scores, film, examples, timings), *simulations],
        missing=sections.missing(scores, any(timing.model == "simulator" for timing in timings), contexts),
        **described,
    )


def _sections(
    scores: Aggregates, film: Film | None, examples: Sequence[Example], timings: Sequence[Timing]
) -> Iterator[Section]:
    tables = scores.main.tables()
    yield from sections.accuracy(scores)
    yield from cost_sections(scores, timings)
    if film is not None:
        text = f"{film.title}: every field as every method sees it, on the truth's colours."
        yield Section("film", "Film", text, film=film)
    yield from _example_sections(examples, film is not None)
    yield from sections.compression(scores, tables)
    yield from sections.significance(scores)
    yield from ensemble_sections.proper(scores)
    yield from ensemble_sections.calibration(scores)
    yield from sections.spectra(scores)
    yield from sections.sampling(scores, tables)
    yield from sections.conditioning(scores)
    if timings:
        yield Section(
            "speed",
            "Speed",
            "Seconds per emulated state, with encoding and decoding, on the machine of this run: of all "
            "members, which are predicted in one batch and which the scores of an ensemble need. Gain: the "
            "time of one simulation over that. Each member: its share of the batch, which is less than it "
            "would take alone, so that it does not compare with a method of one member.",
            plain=speed_table(timings, scores.system.name),
        )
    yield terms()


def _guided(scores: Aggregates) -> Iterator[str]:
    """VRMSE with and without observations, by range of lead times."""
    table = sections.with_observations(scores)
    alike = ["model", "compression", "context", "range"]
    for (model, rate, _, name), rows in table.groupby(alike, sort=False):
        unguided = rows.loc[rows["guidance"] == "", "value"]
        method = in_sentence(shown_kinds()[model].title)
        for _, row in rows[rows["guidance"] != ""].iterrows():
            without = f", without {unguided.min():.3f}" if len(unguided) else ""
            yield (
                f"With observations ({row['guidance']}) the VRMSE of {method} "
                f"at {rate:.4g}× over lead times {str(name).replace('-', '–')} is "
                f"{row['value']:.3f}{without}."
            )


def _example_sections(examples: Sequence[Example], folded: bool) -> Iterator[Section]:
    for i, example in enumerate(examples):
        name = "states" if len(examples) == 1 else f"states_{i + 1}"
        title = "Example states" if i == 0 and not folded else ""
        yield Section(name, title, example.title, example_states(example), folded=folded)


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
    if seeds == 1:
        intervals = (
            "The intervals are bootstraps over them: they show how much other test trajectories would change "
            "a number, not how much another training would."
        )
        trainings = (
            "1 training per configuration: differences between seeds are unknown, and a difference between "
            "methods may be no larger."
        )
    else:
        intervals = (
            "Where a method has several training seeds, the intervals resample seeds and trajectories; else "
            "trajectories alone, and say nothing of another training."
        )
        trainings = (
            f"Up to {seeds} trainings per emulator, on one training of each autoencoder: few to know how "
            "much another seed would change, which makes intervals wide, and nothing of other autoencoders. "
            "Tests compare the models at hand."
        )
    return [
        f"{train_trajectories:,} training trajectories on a grid of {size} are few. The published study "
        "trained on terabytes, and its finding that compression hardly harms emulation is about that regime. "
        "With little data emulators overfit, more so in a strongly compressed space.",
        f"{test_trajectories:,} test trajectories were scored. {intervals}",
        trainings,
        f"At most {training_steps:,} optimiser steps per emulator; the study took 262,144. The ranking of "
        "methods may change with more training.",
        "A coarse grid has few fine scales. The same compression rate loses less detail on a larger grid, "
        "and its bands of wavenumbers are different ones.",
    ]
