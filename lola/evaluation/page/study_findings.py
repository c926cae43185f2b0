"""What a study of compression says, in sentences whose numbers have intervals and tests.

Methods are compared on the same test trajectories: by the CRPS over the deviation of the true field, whose
means are compared, and by spread over skill and errors of power spectra, of which geometric means are, since
a trajectory with an almost uniform field can dominate others. Kinds are represented by the first emulator of
each, at its most evaluations per window, and compared at the rate with the most training seeds, the middle
one of several: nothing is chosen by its score. All tests of the sentences are one family for Holm's
correction.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from lola.evaluation.tables.aggregates import WHOLE, Aggregates
from lola.evaluation.tables.derived import RATIO
from lola.evaluation.tables.lead_times import REFERENCES, Range, in_sentence, name_range
from lola.evaluation.tables.paper import paper_ranges
from lola.evaluation.tables.significance import by_seed, compare, compare_shares, holm, same_seeds
from lola.models.kinds import EmulatorKind, shown_kinds

CRPS = "crps_relative"
HIGH = "spectrum_rmse_high"
ALONE = "autoencoder"
NAMES = {CRPS: "CRPS", "vrmse": "VRMSE", HIGH: "error of the high wavenumbers' power"}
CERTAIN = 0.001  # p below this are not given
Place = tuple[str, str, float]
"""The space, the model and the compression of a method at its most evaluations."""


@dataclasses.dataclass(frozen=True)
class Contrast:
    """One comparison of a sentence.

    Arguments:
        subject: What is compared, such as `diffusion`.
        place: Where, or of what, such as `at 80×`.
        found: The result of `compare_shares`.
    """

    subject: str
    place: str
    found: Mapping[str, float]

    def text(self, p: float) -> str:
        change, low, high = (_percent(self.found[name]) for name in ("relative", "low", "high"))
        notes = [f"{low} to {high} %"] if low and high else []
        notes += [f"p = {p:.2g}"] if p >= CERTAIN else []
        note = f" ({', '.join(notes)})" if notes else ""
        seeded = "†" if self.found["over_seeds"] else ""
        return f"{self.place} {f'{change} %' if change else 'not finite'}{note}{seeded}".strip()


@dataclasses.dataclass(frozen=True)
class Finding:
    """What a list is on, how it begins, its comparisons, and its last item, if any."""

    title: str
    start: str
    contrasts: Sequence[Contrast]
    end: str = ""


class Methods:
    """The errors of a sweep by method, and which methods represent their kinds.

    Arguments:
        scores: Those of one context, without guidance.
        sources: The names of the emulators whose weights others started from, by the names of these.
    """

    def __init__(self, scores: Aggregates, sources: Mapping[str, str | None] | None = None) -> None:
        self.scores = scores
        self.sources = sources or {}
        self.kinds = shown_kinds()
        keys = ["model", "space", "compression", "solver_steps"]
        self.errors = dict(iter(scores.errors.groupby([*keys, "metric", "range"])))
        found = scores.errors[keys].drop_duplicates()
        found = found[found["model"].isin([*self.kinds, ALONE])]
        self.steps: dict[Place, list[int]] = {
            (space, model, rate): sorted(group["solver_steps"])
            for (space, model, rate), group in found.groupby(["space", "model", "compression"])
        }
        self.rates = sorted({rate for space, _, rate in self.steps if space == "latent"})

    @property
    def middle(self) -> float:
        """The rate of most training seeds, the middle one of several."""
        latent = self.scores.errors[self.scores.errors["space"] == "latent"]
        seeds = latent.groupby("compression")["training_seed"].nunique()
        most = sorted(seeds[seeds == seeds.max()].index)
        return float(most[len(most) // 2])

    def first(self, kind: type, space: str, rate: float | None = None) -> EmulatorKind | None:
        """The first emulator of a kind in latent or pixel space; at a rate, or at any."""
        return next(iter(self.alike(kind, space, rate)), None)

    def alike(self, kind: type, space: str, rate: float | None = None) -> list[EmulatorKind]:
        """All emulators of a kind."""
        names = {name for where, name, at in self.steps if where == space and rate in (None, at)}
        return [one for one in self.kinds.values() if one.config is kind and one.name in names]

    def every(self) -> Iterator[type]:
        """All kinds, in the order of tables."""
        yield from dict.fromkeys(kind.config for kind in self.kinds.values())

    def of(self, place: Place, metric: str, bounds: Range, steps: int | None = None) -> pd.DataFrame:
        """Errors by trajectory and seed at so many evaluations, or at the most; none if there are none."""
        space, model, rate = place
        steps = self.steps.get(place, [0])[-1] if steps is None else steps
        group = self.errors.get((model, space, rate, steps, metric, name_range(bounds)))
        return pd.DataFrame() if group is None else by_seed(group)


def study_findings(scores: Aggregates, sources: Mapping[str, str | None] | None = None) -> list[str]:
    """Lists on accuracy, spaces, kinds, calibration, evaluations per window and recipes, in Markdown.

    Those without anything to compare are left out. Before them is how to read them.

    Arguments:
        scores: Those of one context, without guidance.
        sources: The names of the emulators whose weights others started from, by the names of these.
    """
    methods = Methods(scores, sources)
    if not methods.rates:
        return []
    parts = (_rates, _spaces, _kinds, _calibration, _evaluations, _distilled, _recipes)
    findings = [finding for part in parts for finding in part(methods) if finding.contrasts]
    tests = [contrast for finding in findings for contrast in finding.contrasts]
    if not tests:
        return []
    corrected = iter(holm(np.array([contrast.found["p"] for contrast in tests])))
    sentences = []
    for finding in findings:
        by_subject: dict[str, list[str]] = {}
        for contrast in finding.contrasts:
            by_subject.setdefault(contrast.subject, []).append(contrast.text(next(corrected)))
        items = [f"{subject}: {', '.join(texts)}" for subject, texts in by_subject.items()]
        items += filter(None, [finding.end])
        sentences.append("\n  - ".join([f"**{finding.title}.** {finding.start}:", *items]))
    counts = sorted({int(contrast.found["trajectories"]) for contrast in tests})
    shared = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return [
        f"The following compare methods on the same {shared} test trajectories: change, 95 % interval, and "
        "p of Wilcoxon's signed-rank test over trajectories, corrected by Holm's method for these "
        f"{len(tests)} tests; it is below {CERTAIN:g} where none is given. Intervals with † are over "
        "trajectories and training seeds; others are over trajectories alone and, like every p, of the "
        "models at hand: they say nothing of other trainings. CRPS means that over the deviation of the true "
        "field, over all lead times if none are named; VRMSE, power and spread over skill are compared by "
        "their geometric means over trajectories.",
        *sentences,
    ]


def by_rate(scores: Aggregates, metric: str) -> pd.DataFrame:
    """A metric over all lead times as strings, with intervals: the first of each kind down, rates across.

    Arguments:
        scores: Those of one context, without guidance.
        metric: One that is estimated over all lead times (`lola.evaluation.tables.aggregates.OVERALL`).
    """
    methods = Methods(scores)
    table = scores.estimated(metric, [WHOLE])
    most = table.groupby(["model", "space", "compression"])["solver_steps"].transform("max")
    table = table[table["solver_steps"] == most]
    columns = [
        ("pixel", None, "no compression"),
        *(("latent", rate, f"{rate:.4g}×") for rate in methods.rates),
    ]
    alike = [[one.name for one in methods.kinds.values() if one.config is kind] for kind in methods.every()]
    titles = REFERENCES | {one.name: one.title for one in methods.kinds.values()}
    rows = []
    for names in (*([name] for name in REFERENCES), *alike):
        cells, shown = {}, []
        for space, rate, heading in columns:
            found = table[(table["space"] == space) & (rate is None or table["compression"] == rate)]
            name = next((name for name in names if name in set(found["model"])), "")
            cells[heading] = _estimate(found[found["model"] == name].iloc[0]) if name else "–"
            shown += [name] if name else []
        if shown:  # of the rates: in pixel space it may be another one
            rows.append({"method": titles[shown[-1]]} | cells)
    return pd.DataFrame(rows)


def _estimate(row: pd.Series) -> str:
    if row["unstable"]:
        return f"unstable {row['unstable']}/{row['trajectories']}"
    interval = "" if np.isnan(row["low"]) else f" ({row['low']:.3f}–{row['high']:.3f})"
    return f"{row['value']:.3f}{interval}"


def _rates(methods: Methods) -> Iterator[Finding]:
    """CRPS at higher rates against the least rate."""
    least, *others = methods.rates
    names = {ALONE: "autoencoder alone"} | {
        one.name: in_sentence(one.title) for kind in methods.every() if (one := methods.first(kind, "latent"))
    }
    places = [f"at {rate:.4g}×" for rate in others]
    contrasts = [
        Contrast(name, place, found)
        for model, name in names.items()
        for rate, place in zip(others, places, strict=True)
        if (found := _change(methods, ("latent", model, rate), ("latent", model, least))) is not None
    ]
    yield Finding("Accuracy against rate", f"CRPS against that at {least:.4g}×", contrasts)


def _spaces(methods: Methods) -> Iterator[Finding]:
    """CRPS of latent emulators against that of their kind in pixel space."""
    contrasts = []
    for kind in methods.every():
        pixel = methods.first(kind, "pixel")
        for rate in methods.rates:
            latent = methods.first(kind, "latent", rate)
            if pixel is not None and latent is not None:
                one, other = ("latent", latent.name, rate), ("pixel", pixel.name, _only_rate(methods, pixel))
                found = _change(methods, one, other)
                if found is not None:
                    contrasts.append(Contrast(in_sentence(latent.title), f"at {rate:.4g}×", found))
    yield Finding("Latent against pixel space", "CRPS against that of the fields' emulator", contrasts)


def _kinds(methods: Methods) -> Iterator[Finding]:
    """Generative emulators, also those that started from others' weights, against the deterministic one."""
    rate, ranges = methods.middle, methods.scores.system.ranges
    found_kinds = [
        one for kind in methods.every() if (one := methods.first(kind, "latent", rate)) is not None
    ]
    if not found_kinds or found_kinds[0].stochastic:
        return
    deterministic, *generative = found_kinds
    warm = [one for kind in methods.every() for one in methods.alike(kind, "latent", rate)]
    generative += [one for one in warm if one.stochastic and methods.sources.get(one.name)]
    generative = list({one.name: one for one in generative}.values())
    contrasts = []
    for one in generative:
        pair = ("latent", one.name, rate), ("latent", deterministic.name, rate)
        last = paper_ranges(methods.scores.system, HIGH)[-1]
        shown = ((CRPS, ranges[0]), (CRPS, ranges[-1]), ("vrmse", ranges[-1]), (HIGH, last))
        for metric, bounds in shown:
            found = _change(methods, *pair, metric, bounds)
            if found is not None:
                place = f"{NAMES[metric]} {name_range(bounds).replace('-', '–')}"
                contrasts.append(Contrast(in_sentence(one.title), place, found))
    name = in_sentence(deterministic.title)
    yield Finding("Generative against deterministic", f"Against the {name} at {rate:.4g}×", contrasts)


def _calibration(methods: Methods) -> Iterator[Finding]:
    """Spread over skill at higher rates against the least rate, and whether it changes alike by kind."""
    least, *others = methods.rates
    contrasts, levels, changes = [], [], []
    estimates = methods.scores.estimated(RATIO, [WHOLE])
    for kind in methods.every():
        one = methods.first(kind, "latent")
        if one is None or not one.stochastic:
            continue
        name = in_sentence(one.title)
        rows = estimates[(estimates["model"] == one.name) & (estimates["space"] == "latent")]
        most = rows.groupby("compression")["solver_steps"].transform("max")
        rows = rows[rows["solver_steps"] == most]
        values = [f"{row.value:.2f} at {row.compression:.4g}×" for row in rows.itertuples()]
        levels.append(f"{name} {', '.join(values)}")
        for rate in others:
            found = _change(methods, ("latent", one.name, rate), ("latent", one.name, least), RATIO)
            if found is not None:
                contrasts.append(Contrast(name, f"at {rate:.4g}×", found))
        if others:
            ends = [methods.of(("latent", one.name, rate), RATIO, WHOLE) for rate in (least, others[-1])]
            changes.append((name, ends))
    for name, ends in changes[1:]:
        first, compared = changes[0]
        found = _logarithmic(*ends[::-1], *compared[::-1])
        if found is not None:
            contrasts.append(Contrast(f"{name} from {least:.4g}× on", f"against the {first}'s", found))
    yield Finding(
        "Calibration against rate",
        f"Spread over skill against that at {least:.4g}×",
        contrasts,
        f"levels over all lead times, 1 if calibrated: {'; '.join(levels)}",
    )


def _evaluations(methods: Methods) -> Iterator[Finding]:
    """CRPS with fewer evaluations per window against the most."""
    rate = methods.middle
    contrasts = []
    for kind in methods.every():
        one = methods.first(kind, "latent", rate)
        place = ("latent", one.name if one else "", rate)
        *fewer, most = methods.steps.get(place, [0])
        for steps in fewer:
            found = _change(methods, place, place, steps=(steps, most))
            if one is not None and found is not None:
                contrasts.append(Contrast(in_sentence(one.title), f"with {steps}", found))
    counts = sorted({methods.steps[place][-1] for place in methods.steps if len(methods.steps[place]) > 1})
    most_of = " or ".join(map(str, counts))
    start = f"CRPS against that with {most_of} evaluations at {rate:.4g}×"
    yield Finding("Evaluations per window", start, contrasts)


def _distilled(methods: Methods) -> Iterator[Finding]:
    """CRPS of emulators of few evaluations against those that they started from, at the most of these."""
    rate = methods.middle
    contrasts = []
    for name, source in methods.sources.items():
        one, other = ("latent", name, rate), ("latent", str(source), rate)
        counts = methods.steps.get(one, [0])
        most = methods.steps.get(other, [0])[-1]
        if counts[-1] and methods.kinds[name].config is not methods.kinds[str(source)].config:
            for steps in (count for count in counts if count < most):
                found = _change(methods, one, other, steps=(steps, most))
                if found is not None:
                    pair = " against ".join(
                        in_sentence(methods.kinds[each[1]].title) for each in (one, other)
                    )
                    contrasts.append(Contrast(pair, f"with {steps}", found))
    yield Finding("Fewer evaluations than the teacher's", f"CRPS at {rate:.4g}×", contrasts)


def _recipes(methods: Methods) -> Iterator[Finding]:
    """CRPS of other recipes against the first of their kind."""
    rate = methods.middle
    contrasts = []
    for kind in methods.every():
        alike = methods.alike(kind, "latent", rate)
        for other in alike[1:]:
            found = _change(methods, ("latent", other.name, rate), ("latent", alike[0].name, rate))
            if found is not None:
                name = f"{in_sentence(other.title)} ({in_sentence(alike[0].title)})"
                contrasts.append(Contrast(name, "", found))
    yield Finding("Recipes", f"CRPS at {rate:.4g}× against that of the emulator in parentheses", contrasts)


def _change(
    methods: Methods,
    one: Place,
    other: Place,
    metric: str = CRPS,
    bounds: Range = WHOLE,
    steps: tuple[int | None, int | None] = (None, None),
) -> Mapping[str, float] | None:
    """A method against another; None where one of them was not scored."""
    tables = [methods.of(place, metric, bounds, n) for place, n in zip((one, other), steps, strict=True)]
    if any(table.empty for table in tables) or tables[0].index.intersection(tables[1].index).empty:
        return None
    return compare_shares(*tables) if metric == CRPS else _logarithmic(*tables)


def _logarithmic(
    one: pd.DataFrame,
    other: pd.DataFrame,
    rival: pd.DataFrame | None = None,
    rival_other: pd.DataFrame | None = None,
) -> Mapping[str, float] | None:
    """The ratio of geometric means over trajectories, less one; or of two such ratios.

    None where a value is 0, which has no logarithm; what is not finite has no ratio, but a test.
    """
    tables = [table for table in (one, other, rival, rival_other) if table is not None]
    common = sorted(set.intersection(*(set(table.index) for table in tables)))
    values = [table.loc[common].to_numpy().T for table in tables]
    if not common or not all((value > 0).all() for value in values):
        return None
    alike = same_seeds(*tables)
    if not all(np.isfinite(value).all() for value in values):
        return compare(values[0], values[1], alike) if len(values) == 2 else None
    logs = [np.log(value) if alike else np.log(value).mean(0) for value in values]
    pair = (logs[0] - logs[1], logs[2] - logs[3]) if len(logs) == 4 else (logs[0], logs[1])
    found = compare(*pair)
    ratios = {name: np.expm1(found[name]) for name in ("low", "high")}
    return found | ratios | {"relative": np.expm1(found["difference"])}


def _only_rate(methods: Methods, pixel: EmulatorKind) -> float:
    """The value of the column `compression` of an emulator in pixel space."""
    return next(rate for space, model, rate in methods.steps if space == "pixel" and model == pixel.name)


def _percent(share: float) -> str:
    """A share in percent with its sign; empty if it is not finite."""
    text = f"{100 * share:+.0f}"
    return ("+0" if text == "-0" else text) if np.isfinite(share) else ""
