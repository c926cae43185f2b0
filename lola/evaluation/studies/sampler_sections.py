"""The page of a sampler study: tables, figures and sentences of what `studies.samplers` finds."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lola.evaluation.page.figures import COLOURS, MARKERS, draw_curve, name_metric, new_panels, styled
from lola.evaluation.page.page import Section
from lola.evaluation.studies.samplers import ALL, COMMON, FINE, OWN, PRESENT, SHARED, fewest_steps, log_errors
from lola.evaluation.tables.cells import RATIO

DASHES: Any = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.2, 1, 1.2)), (0, (2, 2)))
CHOICES = {OWN: "this model", SHARED: "all models", PRESENT: "in use"}
HIGHEST = 2.5  # times the reference's error; methods that are worse leave the figure


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """What a sampler study found.

    Arguments:
        metric: The error that the choice was made by.
        tolerance: By how much an error may be larger.
        candidates: Titles of the samplers and of their spacings, in order, by title of the candidate.
        fine: The sampler of the fine reference, and its steps.
        models: Names for people of the emulators, in order.
        scores: The table of scores of `lola.evaluation.studies.samplers`.
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
    """The parts of the page."""
    error, percent = name_metric(study.metric), f"{100 * study.tolerance:g} %"
    return [
        Section(
            "choices",
            "How many network evaluations are enough",
            f"Each sampler was chosen on the validation split by its {error} with as many evaluations; the "
            f"figures are those of the test split. Errors are over those of the same model at {study.most} "
            "evaluations, with 95 % intervals of a bootstrap over trajectories, paired. A column "
            f"tells whether the error over all lead times is within {percent}: for sure if its interval is.",
            error_of_choices(study),
            plain=choice_table(study),
            note="Over all lead times stands the geometric mean of the ranges.",
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
            f"{error} over that of the fine reference, as the geometric mean over ranges of lead times: what "
            "the choice was made by. Least errors are of what was chosen, so that they look better than "
            "they are.",
            error_of_candidates(study),
            plain=candidate_table(study),
        ),
    ]


def choice_table(study: Study) -> pd.DataFrame:
    """Every choice and its error against the most steps, over all lead times and by range.

    Over all lead times there are also the other error, and the same against the fine reference.
    """
    ratios = study.compared(f"{study.most} steps")
    other = "crps" if study.metric == "vrmse" else "vrmse"
    beside = {
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
        for title, found in beside.items():
            same = found[["emulator", "steps", "sampler", "range"]] == [name, steps, sampler, ALL]
            row[title] = with_interval(found[same.all(axis=1)].iloc[0])
        rows.append(row)
    return _in_order(pd.DataFrame(rows), study)


def verdict(row: pd.Series, tolerance: float) -> str:
    """Whether a ratio is within a tolerance: for sure where its interval is too."""
    if row["low"] > 1 + tolerance or not np.isfinite(row["ratio"]):
        return "no"
    if row["ratio"] > 1 + tolerance:
        return "no, but not for sure"
    return "yes" if row["high"] <= 1 + tolerance else "yes, but not for sure"


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
                title = f"{'spread/skill' if metric == RATIO else name_metric(metric)} {cell['range']}"
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


@styled
def error_of_candidates(study: Study) -> Figure:
    """Error on the validation split against network evaluations, a line per sampler and spacing."""
    errors = relative_errors(study)
    samplers = list(dict.fromkeys(sampler for sampler, _ in study.candidates.values()))
    spacings = list(dict.fromkeys(spacing for _, spacing in study.candidates.values()))
    looks = {name: (COLOURS[i % len(COLOURS)], MARKERS[i // len(COLOURS)]) for i, name in enumerate(samplers)}
    dashes = {name: DASHES[i % len(DASHES)] for i, name in enumerate(spacings)}
    figure, panels = new_panels(len(study.models), height=4.4)
    for axes, (name, title) in zip(panels, study.models.items(), strict=True):
        for candidate, rows in errors[errors["emulator"] == name].groupby("sampler", sort=False):
            sampler, spacing = study.candidates[str(candidate)]
            colour, marker = looks[sampler]
            line: Any = {"color": colour, "linestyle": dashes[spacing], "linewidth": 1.1}
            axes.plot(rows["steps"], rows["ratio"], marker=marker, markersize=3.5, **line)
        _finish(axes, title, study)
    panels[0].set_ylabel(f"{name_metric(study.metric)} / fine reference")
    handles = [Line2D([], [], color=looks[each][0], marker=looks[each][1], label=each) for each in samplers]
    handles += [Line2D([], [], color="#2b3138", linestyle=dashes[each], label=each) for each in spacings]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8)
    return figure


@styled
def error_of_choices(study: Study) -> Figure:
    """Error on the test split of what was chosen against network evaluations, with intervals."""
    ratios = study.compared(FINE)
    ratios = ratios[ratios["range"] == ALL]
    figure, panels = new_panels(len(study.models), height=3.8)
    choices = [choice for choice in CHOICES if (ratios["choice"] == choice).any()]
    for axes, (name, title) in zip(panels, study.models.items(), strict=True):
        for i, choice in enumerate(choices):
            rows = ratios[(ratios["emulator"] == name) & (ratios["choice"] == choice)].sort_values("steps")
            rows = rows.rename(columns={"ratio": "value"}).replace(np.inf, np.nan)
            line = {"color": COLOURS[1 + i], "marker": MARKERS[i]}
            draw_curve(axes, rows["steps"], rows, f"chosen for {CHOICES[choice]}", **line)
        _finish(axes, title, study)
    panels[0].set_ylabel(f"{name_metric(study.metric)} / fine reference")
    labels = [
        "in use" if choice == PRESENT else f"chosen on validation for {CHOICES[choice]}" for choice in choices
    ]
    handles = [
        Line2D([], [], color=COLOURS[1 + i], marker=MARKERS[i], label=label) for i, label in enumerate(labels)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _finish(axes: Axes, title: str, study: Study) -> None:
    steps = sorted(study.chosen["steps"].unique())
    axes.axhspan(1, 1 + study.tolerance, color="#8a929c", alpha=0.2, linewidth=0)
    axes.axhline(1, color="#8a929c", linewidth=1)
    axes.set(title=title, xlabel="network evaluations per window", xscale="log")
    axes.set_xticks(steps, [str(step) for step in steps])
    axes.set_ylim(top=min(HIGHEST, axes.get_ylim()[1]))
    axes.xaxis.minorticks_off()


def findings(study: Study) -> Iterator[str]:
    """What the numbers say."""
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
    order = list(study.names.values())
    keyed = table.assign(place=table["model"].map(order.index)) if len(table) else table.assign(place=[])
    keyed = keyed.sort_values(["place", "evaluations"], kind="stable") if len(table) else keyed
    return keyed.drop(columns="place").fillna("–").reset_index(drop=True)
