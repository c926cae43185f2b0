"""The page of a sampler study: tables, charts and sentences of what `studies.sampler_choice` finds."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from lola.evaluation.page.charts import Axis, Chart, Choice, Series
from lola.evaluation.page.page import Section
from lola.evaluation.studies.sampler_choice import (
    ALL,
    COMMON,
    FINE,
    OWN,
    PRESENT,
    SHARED,
    fewest_steps,
    log_errors,
)
from lola.evaluation.tables.derived import RATIO
from lola.evaluation.tables.lead_times import name_metric

CHOICES = {OWN: "this model", SHARED: "all models", PRESENT: "in use"}
HIGHEST = 2.5
"""Times the reference's error; candidates that are worse are not drawn."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """What a sampler study found.

    Arguments:
        candidates: Titles of the samplers and of their spacings, in order, by title of the candidate.
        fine: The sampler of the fine reference, and its steps.
        models: Names for people of the emulators, in order.
        scores: The table of scores of `lola.evaluation.studies.sampler_choice`.
        levels: Rows of `lead_time_table` on the test split, with the column `emulator`.
        chosen, ratios: What `choose` and `ratio_table` gave.
    """

    metric: str
    tolerance: float
    candidates: dict[str, tuple[str, str]]
    fine: tuple[str, int]
    models: dict[str, str]
    scores: pd.DataFrame
    levels: pd.DataFrame
    chosen: pd.DataFrame
    ratios: pd.DataFrame

    @property
    def most(self) -> int:
        """The most network evaluations that were chosen for."""
        return int(self.chosen["steps"].max())

    @property
    def names(self) -> dict[str, str]:
        """Names for people of the emulators and of all of them together."""
        return self.models | {COMMON: COMMON}

    def compared(self, reference: str, metric: str | None = None) -> pd.DataFrame:
        """The ratios to one reference, by default of the metric of the choice."""
        same = self.ratios["metric"] == (metric or self.metric)
        return self.ratios[same & (self.ratios["reference"] == reference)]


def sections(study: Study) -> list[Section]:
    error, percent = name_metric(study.metric), f"{100 * study.tolerance:g} %"
    return [
        Section(
            "choices",
            "How many network evaluations are enough",
            f"Each sampler was chosen on the validation split by its {error} at its number of evaluations; "
            "all numbers are of the test split. Errors are divided by those of the same model at "
            f"{study.most} evaluations, with 95 % intervals of a paired bootstrap over trajectories. "
            f"`within {percent}` compares the error over all lead times; it is sure if the interval is "
            "within.",
            plain=choice_table(study),
            chart=choice_chart(study),
            note="All lead times: the geometric mean of the ranges.",
        ),
        Section(
            "levels",
            "Errors and calibration",
            "The same on the test split, in absolute terms: VRMSE of the ensemble's mean, CRPS, and spread "
            f"over skill. The last rows are the fine reference, {study.fine[0]} with {study.fine[1]} "
            "evaluations.",
            plain=level_table(study),
        ),
        Section(
            "defaults",
            "Against the sampler in use",
            f"Errors over those of {_present(study)} with as many evaluations, on the test split.",
            plain=default_table(study),
        ),
        Section(
            "candidates",
            "All candidates, on the validation split",
            f"{error} over that of the fine reference, as the geometric mean over ranges of lead times: the "
            "criterion of the choice. The chosen candidates (*) look better here than on the test split, "
            "because they were chosen by these numbers.",
            plain=candidate_table(study),
            chart=candidate_chart(study),
        ),
    ]


def choice_table(study: Study) -> pd.DataFrame:
    """Every choice and its error against the most steps, over all lead times and by range.

    Over all lead times it also has the other error, and the same error over the fine reference's.
    """
    ratios = study.compared(f"{study.most} steps")
    other = "crps" if study.metric == "vrmse" else "vrmse"
    others = {
        f"{name_metric(other)}, all": study.compared(f"{study.most} steps", other),
        "over the fine reference": study.compared(FINE),
    }
    rows = []
    for (name, steps, sampler), group in ratios.groupby(["emulator", "steps", "sampler"], sort=False):
        whole = group[group["range"] == ALL].iloc[0]
        row = {
            "model": study.names[name],
            "evaluations": steps,
            "sampler": sampler,
            "chosen for": ", ".join(CHOICES[choice] for choice in group["choice"].unique()),
        }
        for span, part in group.groupby("range", sort=False):
            row["all lead times" if span == ALL else str(span)] = with_interval(part.iloc[0])
        row[f"within {100 * study.tolerance:g} %"] = verdict(whole, study.tolerance)
        for title, found in others.items():
            same = found[["emulator", "steps", "sampler", "range"]] == [name, steps, sampler, ALL]
            row[title] = with_interval(found[same.all(axis=1)].iloc[0])
        rows.append(row)
    return _in_order(pd.DataFrame(rows), study)


def verdict(row: pd.Series, tolerance: float) -> str:
    """Whether a ratio is within a tolerance, and surely so: its whole interval is on the same side."""
    if row["low"] > 1 + tolerance or not np.isfinite(row["ratio"]):
        return "no"
    if row["ratio"] > 1 + tolerance:
        return "no, not surely"
    return "yes" if row["high"] <= 1 + tolerance else "yes, not surely"


def default_table(study: Study) -> pd.DataFrame:
    """Every choice against the sampler in use with as many steps."""
    rows = []
    for metric in ("vrmse", "crps"):
        ratios = study.compared(PRESENT, metric)
        ratios = ratios[(ratios["range"] == ALL) & (ratios["choice"] != PRESENT)]
        for (name, steps, sampler), group in ratios.groupby(["emulator", "steps", "sampler"], sort=False):
            whole = group.iloc[0]
            rows.append(
                {
                    "model": study.names[name],
                    "evaluations": steps,
                    "sampler": sampler,
                    "chosen for": ", ".join(CHOICES[choice] for choice in group["choice"].unique()),
                    "error": name_metric(metric),
                    "over the one in use": with_interval(whole),
                    "better on": f"{whole['wins']}/{whole['trajectories']}",
                    "p": f"{whole['p']:.2g}",
                }
            )
    return _in_order(pd.DataFrame(rows), study)


def level_table(study: Study) -> pd.DataFrame:
    """VRMSE, CRPS and spread over skill on the test split by range."""
    rows = []
    keys = ["emulator", "solver_steps", "sampler"]
    for (name, steps, sampler), group in study.levels.groupby(keys, sort=False):
        row = {"model": study.names[name], "evaluations": steps, "sampler": sampler}
        for metric in ("vrmse", "crps", RATIO):
            for _, cell in group[group["metric"] == metric].iterrows():
                title = f"{name_metric(metric)} {cell['range']}"
                row[title] = f"{cell['value']:.3f} ({cell['low']:.3f}–{cell['high']:.3f})"
        rows.append(row)
    return _in_order(pd.DataFrame(rows), study)


def candidate_table(study: Study) -> pd.DataFrame:
    """Errors on the validation split over the fine reference's; what was chosen has a star."""
    rows: dict[tuple[str, str], dict] = {}
    best = set(study.chosen[["emulator", "steps", "sampler"]].itertuples(index=False, name=None))
    for row in relative_errors(study).itertuples():
        sampler, spacing = study.candidates[row.sampler]
        place = {"model": study.models[row.emulator], "sampler": sampler, "spacing": spacing}
        star = " *" if (row.emulator, row.steps, row.sampler) in best else ""
        rows.setdefault((row.emulator, row.sampler), place)[str(row.steps)] = f"{row.ratio:.3f}{star}"
    return pd.DataFrame(list(rows.values())).fillna("–")


def relative_errors(study: Study) -> pd.DataFrame:
    """`ratio` of each candidate's error on the validation split to the fine reference's."""
    errors = log_errors(study.scores[study.scores["split"] == "valid"], study.metric)
    finest = (errors["sampler"] == study.fine[0]) & (errors["steps"] == study.fine[1])
    reference = errors[finest].set_index("emulator")["error"]
    errors = errors.assign(ratio=np.exp(errors["error"] - errors["emulator"].map(reference)))
    steps = study.chosen["steps"].unique()
    return errors[errors["sampler"].isin(study.candidates) & errors["steps"].isin(steps)].sort_values(
        ["steps"], kind="stable"
    )


def candidate_chart(study: Study) -> Chart:
    """Error on the validation split against network evaluations, by model and spacing."""
    errors = relative_errors(study)
    samplers = list(dict.fromkeys(sampler for sampler, _ in study.candidates.values()))
    series = []
    for (model, candidate), rows in errors.groupby(["emulator", "sampler"], sort=False):
        sampler, spacing = study.candidates[str(candidate)]
        i = samplers.index(sampler)
        keys = {"model": str(model), "spacing": spacing}
        shown = rows["ratio"].where(rows["ratio"] <= HIGHEST)
        places = rows["steps"].to_numpy(float)
        colour, dash = f"shade-{i % 6}", "" if i < 6 else "6 3"
        series.append(Series(sampler, colour, keys, places, shown.to_numpy(float), dash=dash))
    spacings = list(dict.fromkeys(spacing for _, spacing in study.candidates.values()))
    spaced = Choice("spacing", "spacing", [(each, each) for each in spacings], spacings[0])
    return _ratio_chart(study, "Errors of samplers on the validation split", series, [spaced], "spacing")


def choice_chart(study: Study) -> Chart:
    """Error on the test split of what was chosen against network evaluations, with intervals."""
    ratios = study.compared(FINE)
    series = []
    for (model, choice), rows in ratios[ratios["range"] == ALL].groupby(["emulator", "choice"], sort=False):
        if model in study.models:
            rows = rows.sort_values("steps").replace(np.inf, np.nan)
            label = "in use" if choice == PRESENT else f"chosen on validation for {CHOICES[choice]}"
            columns = (rows[name].to_numpy(float) for name in ("steps", "ratio", "low", "high"))
            colour = f"shade-{list(CHOICES).index(choice) * 2}"
            series.append(Series(label, colour, {"model": str(model)}, *columns))
    return _ratio_chart(study, "Errors of the chosen samplers on the test split", series)


def _ratio_chart(
    study: Study, about: str, series: list[Series], choices: Sequence[Choice] = (), rows: str = ""
) -> Chart:
    """Ratios to the fine reference against network evaluations, with the tolerance marked."""
    tolerated = (1 + study.tolerance, f"+{100 * study.tolerance:g} %")
    return Chart(
        about,
        Axis("network evaluations per window", log=True),
        Axis(f"{name_metric(study.metric)} / fine reference", marks=[(1, ""), tolerated]),
        series,
        [Choice("model", "model", list(study.models.items()), next(iter(study.models))), *choices],
        rows=rows,
        columns="model",
    )


def findings(study: Study) -> Iterator[str]:
    error = name_metric(study.metric)
    percent = f"{100 * study.tolerance:g} %"
    for row in fewest_steps(study.ratios, study.metric, study.tolerance).itertuples():
        name = study.models[row.emulator]
        if row.steps == study.most:
            yield f"{name}: no fewer than {study.most} evaluations come within {percent} of their {error}."
            continue
        surely = "" if row.sure else f", though the interval reaches beyond {percent}"
        yield (
            f"{name}: {row.steps} evaluations with {row.sampler}, chosen on validation, have {row.ratio:.3f} "
            f"({row.low:.3f} to {row.high:.3f}) times the {error} of {study.most} on test{surely}."
        )
    common = study.compared(PRESENT)
    several = (common["emulator"] == COMMON).any()
    common = common[(common["range"] == ALL) & (common["choice"] == (SHARED if several else OWN))]
    for row in common[(common["emulator"] == COMMON) | (not several)].itertuples():
        if row.sampler != _present(study):
            yield (
                f"{study.names[row.emulator]}, {row.steps} evaluations: {row.sampler} has {row.ratio:.3f} "
                f"({row.low:.3f} to {row.high:.3f}) times the {error} of "
                f"{_present(study)}, the sampler in use."
            )


def with_interval(row: pd.Series) -> str:
    """A ratio with its interval, for people."""
    if not np.isfinite(row["ratio"]):
        return "unstable"
    interval = "" if np.isnan(row["low"]) else f" ({row['low']:.3f}–{row['high']:.3f})"
    return f"{row['ratio']:.3f}{interval}"


def _present(study: Study) -> str:
    return str(study.ratios.loc[study.ratios["choice"] == PRESENT, "sampler"].iloc[0])


def _in_order(table: pd.DataFrame, study: Study) -> pd.DataFrame:
    """By model as they are named, then by steps."""
    if table.empty:
        return table
    order = list(study.names.values())
    table = table.assign(place=table["model"].map(order.index))
    table = table.sort_values(["place", "evaluations"], kind="stable", ignore_index=True)
    return table.drop(columns="place").fillna("–")
