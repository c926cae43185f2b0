"""The parts of a sweep's page, with their tables and charts.

Parts without numbers are left out. Main tables and charts are of the shortest context without
guidance; contexts and guidance have parts of their own.
"""

from collections.abc import Iterator, Sequence

import pandas as pd

from lola.evaluation.page.charts import Axis
from lola.evaluation.page.page import Section
from lola.evaluation.page.sweep_charts import (
    binned_chart,
    lead_time_chart,
    rate_chart,
    reconstruction_chart,
    spectrum_chart,
    steps_chart,
)
from lola.evaluation.tables.aggregates import Aggregates
from lola.evaluation.tables.contexts import context_table
from lola.evaluation.tables.derived import RATIO
from lola.evaluation.tables.formats import name_columns
from lola.evaluation.tables.lead_times import SPECTRUM
from lola.evaluation.tables.medians import median_table
from lola.evaluation.tables.significance import SIGNIFICANT, paired_table, trajectories_needed
from lola.models.kinds import shown_kinds

SURVEYED = ("vrmse", *SPECTRUM, RATIO)


def accuracy(scores: Aggregates) -> Iterator[Section]:
    """Errors of all methods: over lead time, by range, against the auto-encoded truth, and against rate."""
    main = scores.main
    yield Section(
        "vrmse",
        "Accuracy",
        "Errors over lead time (simulation steps since the last known state), averaged over fields. VRMSE "
        "is the root mean squared error of the ensemble's mean over the standard deviation of the true "
        "field: predicting the field's mean everywhere scores 1. Persistence repeats the last known state. "
        "The autoencoder alone shows what compression loses before anything is predicted. The table lists "
        "the VRMSE.",
        table=main.table("vrmse"),
        chart=lead_time_chart(main.curves, main.metrics),
        printed=scores.printed("vrmse", ["vrmse"]),
    )
    yield from _averages(main)
    if len(main.valid):
        yield Section(
            "valid_time",
            "Valid time",
            "Simulation steps until the anomaly correlation of the ensemble's mean with the truth falls "
            "below 0.8, averaged over trajectories and fields. What is still valid at the end of a "
            "trajectory counts until there.",
            plain=_valid(main.valid),
        )
    autoencoded = main.table("vrmse", "autoencoded")
    if len(autoencoded):
        yield Section(
            "vrmse_autoencoded",
            "Accuracy against the auto-encoded truth",
            "The same error against the autoencoder's reconstruction of the truth: the emulator's own error, "
            "without that of compression. The chart above shows it as well; the picture shows all metrics.",
            table=autoencoded,
            chart=lead_time_chart(main.curves, SURVEYED, "autoencoded", rows="metric"),
            folded=True,
        )


def _valid(table: pd.DataFrame) -> pd.DataFrame:
    interval = ["" if pd.isna(row.low) else f" ({row.low:.1f}–{row.high:.1f})" for row in table.itertuples()]
    return pd.DataFrame(
        {
            **name_columns(table),
            "valid time": table["value"].map("{:.1f}".format) + interval,
            "valid at the end": table["valid_at_end"].map("{:.0%}".format),
        }
    )


def _averages(main: Aggregates) -> Iterator[Section]:
    """The VRMSE beside averages of it that single trajectories do not dominate."""
    ranges = main.system.ranges
    parts = [main.estimated("vrmse_pooled", ranges), median_table(main.errors, "vrmse", ranges)]
    unbiased = main.estimated("vrmse_unbiased", ranges)
    parts += [unbiased] if len(unbiased) else []
    if not len(parts[0]):
        return
    yield Section(
        "averages",
        "Pooled and median errors",
        "The published tables list the mean over trajectories of ratios. It explodes where the variance of a "
        "true field vanishes, as at late times behind open boundaries. The pooled VRMSE divides the mean "
        "squared error by the mean variance; the median is that of the trajectories' errors. Where the "
        "mean is much larger, a few trajectories decide it, and the first sentences of this page are of the "
        "pooled one. The unbiased one is the pooled one less what is due to the ensemble being finite.",
        table=pd.concat([main.estimated("vrmse", ranges), *parts], ignore_index=True),
    )


def compression(scores: Aggregates, tables: pd.DataFrame) -> Iterator[Section]:
    """What compression costs: errors against rate, reconstruction over lead time."""
    main = scores.main
    if not scores.rates:
        return
    yield Section(
        "rates",
        "Cost of compression",
        "Errors against compression rate, by range of lead times. Open points are the paper's, at its rates "
        "and on its finer grid; dotted lines are methods in pixel space.",
        chart=rate_chart(tables, scores.system.name),
    )
    if (main.estimates["model"] == "autoencoder").any():
        yield Section(
            "reconstruction",
            "Reconstruction",
            "The error of compression alone, over lead time: the autoencoder applied to the truth.",
            chart=reconstruction_chart(main.curves, main.metrics),
        )
    yield Section(
        "survey",
        "",
        "All metrics over lead time at every rate, as one picture",
        chart=lead_time_chart(main.curves, SURVEYED, rows="metric"),
        folded=True,
    )


COMPARED = {
    "vrmse": ("significance", "Emulators compared by trajectory", "VRMSE"),
    "crps_relative": ("significance_crps", "", "CRPS over the deviation of the true field"),
    "energy_block_relative": ("significance_energy", "", "energy score of blocks over that deviation"),
}


def significance(scores: Aggregates) -> Iterator[Section]:
    """Emulators of every kind against those before it in the tables, trajectory by trajectory."""
    for metric, (name, title, what) in COMPARED.items():
        table = paired_table(scores.main.errors, metric, scores.system.ranges)
        if not len(table):
            continue
        about = (
            f"Differences in {what} between a method and its rival on the same trajectories, each at its "
            "largest number of solver steps: negative where the method is better."
        )
        if metric == "crps_relative":
            about += " Of a deterministic model the CRPS is the absolute error."
        yield Section(
            name,
            title,
            about + _unattainable(table),
            plain=paired_rows(table),
            note=""
            if not title
            else "Difference: the mean over trajectories with its 95 % paired bootstrap "
            "interval, over trajectories and, where both have the same training seeds, over these. "
            "Relative: as a share of the rival's error. Better on: trajectories on which the method, "
            "averaged over its seeds, is "
            "better. p: Wilcoxon's signed-rank test over trajectories (SciPy), of the models at hand, "
            "corrected for the number of rows by Holm's method.",
        )


def _unattainable(table: pd.DataFrame) -> str:
    """A sentence on rows that cannot be significant, if there are any."""
    rows = table[table["attainable"] >= SIGNIFICANT]
    if not len(rows):
        return ""
    return (
        f" {rows['trajectories'].max()} trajectories are too few to say whether a difference is chance: with "
        f"{len(table)} tests no corrected p below {rows['attainable'].min():.2g} can be reached, however "
        f"large the difference is. It takes {trajectories_needed(len(table))} trajectories."
    )


def paired_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a `paired_table` as strings."""
    rate = table["compression"].map("{:.4g}".format).where(table["space"] == "latent", "–")
    difference = [
        "undefined (not finite)"
        if pd.isna(row.difference)
        else f"{row.difference:+.3f}" + ("" if pd.isna(row.low) else f" ({row.low:+.3f} to {row.high:+.3f})")
        for row in table.itertuples()
    ]
    relative = table["relative"].map(lambda value: "–" if pd.isna(value) else f"{100 * value:+.0f} %")
    return pd.DataFrame(
        {
            "method": table["model"].map(lambda name: shown_kinds()[name].title),
            "rival": table["rival"],
            "rate": rate,
            "lead times": table["range"].str.replace("-", "–"),
            "difference": difference,
            "relative": relative,
            "better on": [f"{row.wins} of {row.trajectories}" for row in table.itertuples()],
            "seeds": [
                str(row.seeds) if row.seeds == row.rival_seeds else f"{row.seeds}, rival {row.rival_seeds}"
                for row in table.itertuples()
            ],
            "p": table["p"].map("{:.2g}".format),
            "p (Holm)": table["p_holm"].map("{:.2g}".format),
        }
    )


def spectra(scores: Aggregates) -> Iterator[Section]:
    """Power spectra and their errors, and coherence."""
    shown, main = scores.system.shown, scores.main
    tables = main.spectra
    yield Section(
        "spectra",
        "Power spectra",
        "Isotropic power over wavenumber, averaged over trajectories and training seeds. The table lists the "
        "relative error of the power in three bands of wavenumbers, over all fields: 0 if the power is "
        "right, 1 if all of it is lost.",
        note="Above 1 there is too much power: at 3 it may be four times the truth's. Lost power alone never "
        "exceeds 1. It is common at high wavenumbers, where the truth has so little power that noise of the "
        "decoder or of the sampler exceeds it.",
        table=pd.concat([main.table(metric) for metric in SPECTRUM], ignore_index=True),
        chart=spectrum_chart(tables, shown),
        printed=scores.printed("spectra", list(SPECTRUM)),
    )
    if (tables["metric"] == "coherence").any():
        yield Section(
            "coherence",
            "Coherence",
            "Agreement in phase with the truth, by wavenumber, averaged likewise: 1 if structures are where "
            "the truth has them, 0 if their places are random.",
            chart=binned_chart(
                tables, "coherence", Axis("wavenumber (cycles per pixel)", log=True), Axis("coherence"), shown
            ),
        )


def sampling(scores: Aggregates, tables: pd.DataFrame) -> Iterator[Section]:
    """Accuracy against solver steps."""
    if tables.loc[tables["space"] == "latent", "solver_steps"].max() > 0:
        yield Section(
            "solver_steps",
            "Accuracy against solver steps",
            "Each step of the sampler is one evaluation of the network. Dashed lines are emulators without a "
            "sampler, which take one evaluation.",
            chart=steps_chart(tables),
        )


def conditioning(scores: Aggregates) -> Iterator[Section]:
    """Contexts (Table 7) and guidance (Figure 6)."""
    found = scores.estimates
    steps = found["solver_steps"].max()
    if found["context"].nunique() > 1:
        finest = scores.errors[scores.errors["solver_steps"].isin([0, steps])]
        yield Section(
            "contexts",
            "Accuracy by context",
            "VRMSE of emulators in latent space by the number of known states, averaged over compression "
            "rates that have the same training seeds; 95 % intervals. The paper's numbers are its Table 7, "
            "which does not name its rates.",
            plain=context_table(finest, scores.system.ranges, scores.system.name),
        )
    observed = with_observations(scores)
    if len(observed):
        sampled = _sampled()
        rates = set(observed.loc[observed["guidance"] != "", "compression"])
        ours = scores.where(
            lambda method: (
                method["model"] in sampled
                and method["solver_steps"] in (0, steps)
                and method["compression"] in rates
            )
        )
        yield Section(
            "guidance",
            "Emulation with observations",
            "Emulators whose samples are guided by partial, noisy observations of the test "
            "trajectory, and the same models without. The error is over all points, observed or not.",
            table=observed,
            chart=lead_time_chart(ours.curves, ours.metrics),
        )


def _sampled() -> list[str]:
    """The kinds that have sampler steps, which alone can be guided."""
    return [kind.name for kind in shown_kinds().values() if kind.sampler_steps]


def with_observations(scores: Aggregates) -> pd.DataFrame:
    """Estimates of what is guided, and of as many solver steps without; empty if nothing is."""
    table = scores.estimated("vrmse", scores.system.ranges)
    guided = table[table["guidance"] != ""]
    return table[table["model"].isin(_sampled()) & table["solver_steps"].isin(guided["solver_steps"])]


def missing(scores: Aggregates, simulator: bool, contexts: Sequence[int]) -> list[tuple[str, str]]:
    """Names of what the paper shows and these tables lack, each with what would produce it.

    Arguments:
        simulator: Whether the simulator's time is known.
        contexts: Those of the paper that the same models could also be evaluated with.
    """
    binned = set(scores.spectra["metric"])
    models = set(scores.estimates["model"])
    stochastic = {kind.name for kind in shown_kinds().values() if kind.stochastic}
    further = scores.estimates["context"].nunique() == 1 and len(contexts) > 0
    guided = scores.estimates["guidance"].nunique() > 1
    lacks = (
        (
            not simulator,
            "The simulator's time (Table 1)",
            "simulations whose files record how long they took.",
        ),
        (True, "Optimisers (Table 4)", "a page of its own, by python experiments/study_optimizers.py."),
        (
            further,
            "Contexts (Table 7)",
            f"the same command with --contexts {' '.join(map(str, contexts))}; nothing is trained again.",
        ),
        (
            not guided,
            "Guidance (Figure 6)",
            "python experiments/guide.py with the same options; nothing is trained again.",
        ),
        (not models & stochastic, "Ensembles (Figures 8 and 9)", "a sweep with a diffusion model."),
        ("rank_histogram" not in binned, "Rank histograms", "ensembles of two members or more."),
    )
    return [(name, remedy) for lack, name, remedy in lacks if lack]
