"""What the numbers of a sweep say, in sentences: every one is computed from the reduced tables."""

from collections.abc import Iterator, Sequence

import pandas as pd

from lola.evaluation.tables.aggregates import WHOLE, Aggregates
from lola.evaluation.tables.derived import RATIO
from lola.evaluation.tables.lead_times import beats_persistence, in_sentence, name_method, name_metric
from lola.evaluation.tables.significance import SIGNIFICANT, paired_table, trajectories_needed
from lola.models.kinds import kind_titles, shown_kinds

CONSTANT = 1.0
"""The VRMSE of the true field's mean, predicted everywhere."""
DISAGREE = 1.25
"""The factor by which a mean of ratios exceeds the pooled ratio where a sentence warns of it."""


def findings(scores: Aggregates) -> list[str]:
    main = scores.main
    ranges = main.system.ranges
    table = main.estimated("vrmse", ranges)
    sentences: list[str] = []
    if len(table):
        sentences += [*_against_baselines(table), *_best_emulators(table)]
        sentences += _headline(table, main.estimated("vrmse_pooled", ranges))
    sentences += [*compare_kinds(main.errors, "vrmse"), *compare_kinds(main.errors, "crps_relative")]
    whole = main.estimated("vrmse", [WHOLE])
    alone = whole[whole["model"] == "autoencoder"]
    if len(alone):
        pairs = zip(alone["value"], alone["compression"], strict=True)
        losses = ", ".join(f"{value:.3f} at {rate:.4g}×" for value, rate in pairs)
        sentences.append(f"Compression alone costs a VRMSE of {losses}.")
    ratio = main.estimated(RATIO, ranges)
    ratio = ratio[ratio["model"].isin(kind_titles()) & (ratio["unstable"] == 0)]
    if len(ratio):
        low, high = ratio["value"].min(), ratio["value"].max()
        sentences.append(
            f"Spread over skill is between {low:.2f} and {high:.2f}; a calibrated ensemble has 1."
        )
    return sentences


def _against_baselines(table: pd.DataFrame) -> Iterator[str]:
    """Where emulators are worse than a constant field and than persistence, and how many are unstable.

    That all beat persistence is worth saying only where none is worse than a constant field.
    """
    emulators = table[table["model"].isin(kind_titles())]
    worse = emulators[~(emulators["value"] < CONSTANT)]
    if len(worse):
        ranges = [str(name).replace("-", "–") for name in worse["range"].unique()]
        yield (
            f"In {len(worse)} of {len(emulators)} table entries, over lead times {_either(ranges, 'and')}, "
            "an emulator is no better than a constant field, the mean of the truth everywhere, whose VRMSE "
            "is 1."
        )
    beats = beats_persistence(table).dropna()
    lost = int((~beats).sum())
    if lost:
        yield f"In {lost} of {len(beats)} table entries, marked ▲, an emulator is no better than persistence."
    elif len(beats) and not len(worse):
        yield f"Every emulator beats persistence at all ranges of lead times ({len(beats)} of {len(beats)})."
    unstable = table[table["unstable"] > 0]
    if len(unstable):
        yield f"In {len(unstable)} table entries, marked unstable, some rollouts became infinite or NaN."


def _best_emulators(table: pd.DataFrame) -> Iterator[str]:
    """The most accurate emulator of each range, and what it does not beat."""
    for name, rows in table.groupby("range", sort=False):
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
        where = f"Lead times {str(name).replace('-', '–')}"
        against = "".join(f", {title} {bound:.3f}" for title, bound in bounds.items())
        unbeaten = [t for t, bound in ({"a constant field": CONSTANT} | bounds).items() if value >= bound]
        if unbeaten:
            yield (
                f"{where}: no emulator is better than {_either(unbeaten)}; the least VRMSE, {value:.3f}, is "
                f"that of {method}{against}."
            )
        else:
            yield f"{where}: {method} is best, VRMSE {value:.3f}{against}."


def _headline(table: pd.DataFrame, pooled: pd.DataFrame) -> Iterator[str]:
    """Which score the sentences are of, why, and where another average says something else."""
    emulators = table["model"].isin(kind_titles()) & (table["unstable"] == 0)
    if not emulators.any() or not len(pooled):
        return
    text = (
        "These sentences are of the VRMSE as the published tables have it: a mean over trajectories of "
        "ratios, which a trajectory with an almost uniform field can dominate. The pooled VRMSE and the "
        "median over trajectories, in a table of their own, have no such trajectory."
    )
    keys = [*table.columns[: table.columns.get_loc("metric")], "range"]
    both = table[emulators].merge(pooled, on=keys, suffixes=("", "_pooled"))
    factor = both["value"] / both["value_pooled"]
    if len(factor) and factor.max() > DISAGREE:
        row = both.loc[factor.idxmax()]
        text += (
            f" Here they disagree: over lead times {row['range'].replace('-', '–')} the VRMSE of "
            f"{in_sentence(name_method(row))} is {row['value']:.3f}, pooled {row['value_pooled']:.3f}; rely "
            "on the pooled one."
        )
    yield text


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
