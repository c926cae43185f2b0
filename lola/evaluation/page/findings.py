"""What the numbers of a sweep say, in sentences: every one is computed from the reduced tables."""

from collections.abc import Iterator, Sequence

import pandas as pd

from lola.evaluation.tables.aggregates import WHOLE, Aggregates
from lola.evaluation.tables.derived import RATIO
from lola.evaluation.tables.lead_times import (
    beats_persistence,
    in_sentence,
    name_method,
    name_metric,
    name_range,
)
from lola.evaluation.tables.significance import SIGNIFICANT, paired_table, trajectories_needed
from lola.models.kinds import kind_titles, shown_kinds

CONSTANT = 1.0
"""The VRMSE of the true field's mean, predicted everywhere."""
DISAGREE = 1.25
"""The factor by which a mean of ratios exceeds the pooled ratio where a sentence warns of it."""


def findings(scores: Aggregates) -> list[str]:
    """Sentences on accuracy, compression, calibration, and differences between kinds."""
    errors = scores.main.errors
    return [*headlines(scores), *compare_kinds(errors, "vrmse"), *compare_kinds(errors, "crps_relative")]


def headlines(scores: Aggregates, mark: str = "▲") -> list[str]:
    """Those on accuracy, compression and calibration.

    Accuracy is the VRMSE, or the pooled one where a few trajectories dominate the former.

    Arguments:
        mark: What tables of the VRMSE have where an emulator does not beat persistence.
    """
    main = scores.main
    ranges = main.system.ranges
    published = main.estimated("vrmse", ranges)
    metric, why = _headline(published, main.estimated("vrmse_pooled", ranges))
    table = main.estimated(metric, ranges)
    sentences: list[str] = []
    if len(table):
        sentences += [*_against_baselines(table, mark), *_best_emulators(table, CONSTANT), *why]
    sentences += _best_emulators(main.estimated("crps_relative", ranges))
    sentences += _compression(main, metric)
    ratio = main.estimated(RATIO, ranges)
    ratio = ratio[ratio["model"].isin(kind_titles()) & (ratio["unstable"] == 0)]
    if len(ratio):
        low, high = ratio["value"].min(), ratio["value"].max()
        sentences.append(
            f"Spread over skill is between {low:.2f} and {high:.2f}; a calibrated ensemble has 1."
        )
    return sentences


def _compression(main: Aggregates, metric: str) -> Iterator[str]:
    """What autoencoders alone lose over all lead times, or over the last ones where those are not known."""
    for bounds in (WHOLE, main.system.ranges[-1]):
        table = main.estimated(metric, [bounds])
        alone = table[table["model"] == "autoencoder"]
        if len(alone):
            pairs = zip(alone["value"], alone["compression"], strict=True)
            losses = ", ".join(f"{value:.3f} at {rate:.4g}×" for value, rate in pairs)
            where = "" if bounds == WHOLE else f" over lead times {name_range(bounds).replace('-', '–')}"
            yield f"Compression alone costs a {name_metric(metric)} of {losses}{where}."
            return


def _against_baselines(table: pd.DataFrame, mark: str) -> Iterator[str]:
    """Where emulators are worse than a constant field and than persistence, and how many are unstable.

    That all beat persistence is worth saying only where none is worse than a constant field.
    """
    emulators = table[table["model"].isin(kind_titles())]
    worse = emulators[~(emulators["value"] < CONSTANT)]
    if len(worse):
        ranges = [str(name).replace("-", "–") for name in worse["range"].unique()]
        yield (
            f"In {len(worse)} of {len(emulators)} table entries, over lead times {_either(ranges, 'and')}, "
            "an emulator is no better than a constant field, the mean of the truth everywhere, whose "
            f"{name_metric(table['metric'].iloc[0])} is 1."
        )
    beats = beats_persistence(table).dropna()
    lost = int((~beats).sum())
    if lost:
        marked = f", marked {mark}," if table["metric"].iloc[0] == "vrmse" else ""
        yield f"In {lost} of {len(beats)} table entries{marked} an emulator is no better than persistence."
    elif len(beats) and not len(worse):
        yield f"Every emulator beats persistence at all ranges of lead times ({len(beats)} of {len(beats)})."
    unstable = table[table["unstable"] > 0]
    if len(unstable):
        yield f"In {len(unstable)} table entries, marked unstable, some rollouts became infinite or NaN."


def _best_emulators(table: pd.DataFrame, constant: float | None = None) -> Iterator[str]:
    """The most accurate emulator of each range, and what it does not beat.

    Arguments:
        constant: The score of a constant field, if it has one that is the same everywhere.
    """
    for lead_times, rows in table.groupby("range", sort=False):
        known = rows.groupby("model")["value"].min()
        bounds = {title: known.get(title) for title in ("persistence", "climatology")}
        bounds = {title: float(value) for title, value in bounds.items() if value is not None}
        rows = rows[rows["model"].isin(kind_titles()) & (rows["unstable"] == 0)]
        if not len(rows):
            continue
        best = rows.loc[rows["value"].idxmin()]
        rate = f" at {best['compression']:.4g}×" if best["space"] == "latent" else ""
        steps = f", {best['solver_steps']} solver steps" if best["solver_steps"] else ""
        method, value = in_sentence(name_method(best)) + rate + steps, best["value"]
        where, name = f"Lead times {str(lead_times).replace('-', '–')}", name_metric(best["metric"])
        against = "".join(f", {title} {bound:.3f}" for title, bound in bounds.items())
        if constant is not None:
            bounds = {"a constant field": constant} | bounds
        unbeaten = [title for title, bound in bounds.items() if value >= bound]
        if unbeaten:
            yield (
                f"{where}: no emulator is better than {_either(unbeaten)}; the least {name}, {value:.3f}, is "
                f"that of {method}{against}."
            )
        else:
            yield f"{where}: {method} is best, {name} {value:.3f}{against}."


def _headline(table: pd.DataFrame, pooled: pd.DataFrame) -> tuple[str, list[str]]:
    """The metric of the sentences on accuracy, and why it is that one."""
    emulators = table["model"].isin(kind_titles()) & (table["unstable"] == 0)
    if not emulators.any() or not len(pooled):
        return "vrmse", []
    keys = [*table.columns[: table.columns.get_loc("metric")], "range"]
    both = table[emulators].merge(pooled, on=keys, suffixes=("", "_pooled"))
    factor = both["value"] / both["value_pooled"]
    text = (
        "a mean over trajectories of ratios, which a trajectory with an almost uniform field can dominate. "
        "The pooled VRMSE and the median over trajectories have no such trajectory."
    )
    if not len(factor) or not factor.max() > DISAGREE:
        return "vrmse", [f"These sentences use the VRMSE as the published tables have it: {text}"]
    row = both.loc[factor.idxmax()]
    where = f"over lead times {row['range'].replace('-', '–')}"
    evaluations = f" with {row['solver_steps']} solver steps" if row["solver_steps"] else ""
    return "vrmse_pooled", [
        f"These sentences use the pooled VRMSE, since the published tables' is {text} Here they disagree: "
        f"{where} the VRMSE of {in_sentence(name_method(row))}{evaluations} is {row['value']:.3f}, pooled "
        f"{row['value_pooled']:.3f}."
    ]


def compare_kinds(errors: pd.DataFrame, metric: str) -> Iterator[str]:
    """Every kind against others of its rate, over all lead times, given `trajectory_errors`."""
    table = paired_table(errors, metric, [WHOLE])
    tests = len(table)
    table = table[~table["rival"].str.endswith("in pixel space")]
    name = name_metric(metric).split(" ")[0]
    for (model, rival), rows in table.groupby(["model", "rival"], sort=False):
        pair = f"{shown_kinds()[str(model)].title} against {rival}, {name} over all lead times"
        least, most = rows["attainable"].min(), int(rows["trajectories"].max())
        if least >= SIGNIFICANT:
            yield (
                f"{pair}: {most} trajectories are too few for {tests} {'test' if tests == 1 else 'tests'}, "
                f"whose corrected p is {least:.2g} or more whatever the difference; it takes "
                f"{trajectories_needed(tests)}."
            )
            continue
        sure = rows[rows["p_holm"] < SIGNIFICANT]
        won = sure[sure["better"]]
        parts = [
            f"significantly {word} accurate {_places(part, rows)}"
            for word, part in (("more", won), ("less", sure.drop(won.index)))
            if len(part)
        ]
        results = " and ".join(parts) or f"no significant difference {_places(rows, rows)}"
        yield f"{pair}: {results} (paired by trajectory, Wilcoxon's test, corrected p < {SIGNIFICANT:g})."


def _places(rows: pd.DataFrame, every: pd.DataFrame) -> str:
    """Where of every comparison some are: `at 16×`, `at all 3 rates`, `at 2 of 3 rates (16× and 64×)`."""
    latent = every["space"] == "latent"
    names = [
        f"{row.compression:.4g}×" if row.space == "latent" else "pixel space" for row in rows.itertuples()
    ]
    if len(every) == 1:
        return f"at {names[0]}" if latent.all() else "in pixel space"
    if len(rows) == len(every) and latent.all():
        return "at both rates" if len(every) == 2 else f"at all {len(every)} rates"
    unit = "rates" if latent.all() else "spaces"
    return f"at {len(rows)} of {len(every)} {unit} ({_either(names, 'and')})"


def _either(names: Sequence[str], word: str = "or") -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {word} {names[-1]}"
