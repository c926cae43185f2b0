"""The choice of a sampler and its comparisons, on numbers whose answers are known."""

import itertools

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from tidy_tables import tidy

from lola.evaluation.studies.sampler_choice import (
    ALL,
    COMMON,
    FINE,
    OWN,
    PRESENT,
    SHARED,
    choose,
    fewest_steps,
    ratio_table,
    trajectory_scores,
)
from lola.evaluation.studies.sampler_page import (
    Study,
    candidate_table,
    choice_table,
    default_table,
    findings,
    sections,
    verdict,
)

RANGES = ("1-20", "21-60")
HARDNESS = np.array([1.0, 2.0, 3.0, 6.0])
# Errors over the fine reference's, by model, sampler and steps; the same at all ranges.
FACTORS = {
    ("a", "slow", 4): 1.5, ("a", "quick", 4): 1.02, ("a", "slow", 8): 1.0, ("a", "quick", 8): 1.01,
    ("b", "slow", 4): 1.06, ("b", "quick", 4): 1.2, ("b", "slow", 8): 1.0, ("b", "quick", 8): 1.0,
}  # fmt: skip


def table(factors, split, extra=()):
    """Rows of scores for errors that are a factor times a trajectory's hardness, twice as large later."""
    rows = []
    for (emulator, sampler, steps), factor in [*factors.items(), *extra]:
        for (i, where), metric in itertools.product(enumerate(RANGES), ("vrmse", "crps")):
            rows += [
                {
                    "emulator": emulator, "compression": 4.0, "split": split,
                    "sampler": sampler, "steps": steps,
                    "metric": metric, "range": where, "trajectory": f"{split}#{t}",
                    "value": factor * hardness * (1 + i),
                }
                for t, hardness in enumerate(HARDNESS)
            ]  # fmt: skip
    return pd.DataFrame(rows)


REFERENCES = [((emulator, "slow", 64), 1.0) for emulator in "ab"]


@pytest.fixture
def chosen():
    return choose(table(FACTORS, "valid"), "vrmse")


@pytest.fixture
def study(chosen):
    valid = table(FACTORS, "valid", REFERENCES)
    # On the test split the errors of `quick` are larger; the choice knows nothing of it.
    changed = {key: factor * (1.03 if key[1] == "quick" else 1) for key, factor in FACTORS.items()}
    test = table(changed, "test", REFERENCES)
    levels = pd.DataFrame(
        [
            {"emulator": emulator, "solver_steps": 4, "sampler": "slow", "metric": metric, "range": "1-20",
             "value": 0.5, "low": 0.4, "high": 0.6}
            for emulator in "ab" for metric in ("vrmse", "crps", "spread_skill_ratio")
        ]
    )  # fmt: skip
    return Study(
        metric="vrmse",
        tolerance=0.03,
        candidates={"slow": ("slow", "time"), "quick": ("quick", "time")},
        fine=("slow", 64),
        models={"a": "rate 4×", "b": "rate 40×"},
        scores=pd.concat([valid, test]),
        levels=levels,
        chosen=chosen,
        ratios=ratio_table(test, chosen, "slow", ("slow", 64)),
    )


def test_the_least_error_on_validation_is_chosen_for_each_model_and_for_all(chosen):
    found = chosen.set_index(["emulator", "steps"])["sampler"].to_dict()
    assert found == {
        ("a", 4): "quick", ("a", 8): "slow", ("b", 4): "slow",
        ("b", 8): "slow",  # a tie goes to the first
        (COMMON, 4): "quick",  # sqrt(1.02 * 1.2) < sqrt(1.5 * 1.06)
        (COMMON, 8): "slow",
    }  # fmt: skip


def test_ranges_count_by_their_ratios_not_by_their_levels():
    scores = table({("a", "first", 4): 1.0, ("a", "second", 4): 1.0}, "valid")
    early, late = (scores["range"] == where for where in RANGES)
    second = scores["sampler"] == "second"
    scores.loc[second & early, "value"] *= 0.8
    scores.loc[second & late, "value"] *= 1.2  # worse in the sum, better in the product
    assert list(choose(scores, "vrmse")["sampler"]) == ["second"]


def test_a_sampler_that_blows_up_is_not_chosen():
    scores = table({("a", "wild", 4): 0.1, ("a", "tame", 4): 2.0}, "valid")
    scores.loc[(scores["sampler"] == "wild") & (scores["trajectory"] == "valid#0"), "value"] = np.inf
    assert list(choose(scores, "vrmse")["sampler"]) == ["tame"]


def test_a_sampler_that_a_model_lacks_is_not_common():
    scores = table({key: FACTORS[key] for key in FACTORS if key != ("b", "quick", 4)}, "valid")
    chosen = choose(scores, "vrmse").set_index(["emulator", "steps"])["sampler"]
    assert chosen[COMMON, 4] == "slow"
    assert chosen["a", 4] == "quick"


def ratio(study, emulator, choice, steps, reference, where=ALL, metric="vrmse"):
    rows = study.ratios
    for column, value in (("emulator", emulator), ("choice", choice), ("steps", steps), ("range", where),
                          ("reference", reference), ("metric", metric)):  # fmt: skip
        rows = rows[rows[column] == value]
    (row,) = rows.to_dict("records")
    return row


def test_ratios_are_those_of_the_test_split_in_pairs(study):
    for metric, where in itertools.product(("vrmse", "crps"), (ALL, *RANGES)):
        row = ratio(study, "a", OWN, 4, "8 steps", where, metric)
        # Hardness cancels, so that the interval has no width
        assert [row[name] for name in ("ratio", "low", "high")] == pytest.approx([1.02 * 1.03] * 3)
        assert (row["sampler"], row["wins"], row["trajectories"]) == ("quick", 0, 4)
    assert ratio(study, "b", OWN, 4, FINE)["ratio"] == pytest.approx(1.06)
    assert ratio(study, "b", SHARED, 4, "8 steps")["ratio"] == pytest.approx(1.2 * 1.03)
    better = ratio(study, "a", OWN, 4, PRESENT)
    assert better["ratio"] == pytest.approx(1.02 * 1.03 / 1.5)
    assert (better["wins"], better["p"]) == (4, pytest.approx(2 / 2**4))
    both = ratio(study, COMMON, SHARED, 4, PRESENT)
    assert both["ratio"] == pytest.approx(np.sqrt(1.02 * 1.03 / 1.5 * 1.2 * 1.03 / 1.06))


def test_fewest_steps_are_within_the_tolerance_on_test(study):
    assert set(fewest_steps(study.ratios, "vrmse", 0.03)["steps"]) == {8}
    found = fewest_steps(study.ratios, "vrmse", 0.055).set_index("emulator")
    assert list(found["steps"]) == [4, 8]
    assert found.loc["a", "sampler"] == "quick"
    assert found["sure"].all()


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ((1.01, 0.99, 1.02), "yes"),
        ((1.01, 0.99, 1.04), "yes, not surely"),
        ((1.05, 1.01, 1.09), "no, not surely"),
        ((1.05, 1.04, 1.09), "no"),
        ((np.inf, np.nan, np.nan), "no"),
        ((1.01, np.nan, np.nan), "yes, not surely"),
    ],
)
def test_verdicts(row, expected):
    assert verdict(pd.Series(dict(zip(("ratio", "low", "high"), row, strict=True))), 0.03) == expected


def test_tables_and_sentences_say_so(study):
    table = choice_table(study)
    first = table.iloc[0]
    assert (first["model"], first["evaluations"], first["sampler"]) == ("rate 4×", 4, "quick")
    assert first["chosen for"] == "this model, all models"
    assert first["all lead times"] == "1.051 (1.051–1.051)"
    assert first["within 3 %"] == "no"
    assert list(table["model"].unique()) == ["rate 4×", "rate 40×", COMMON]
    shown = candidate_table(study).set_index(["model", "sampler"])
    assert shown.loc[("rate 4×", "quick"), "4"] == "1.020 *"
    assert shown.loc[("rate 4×", "slow"), "8"] == "1.000 *"
    assert set(default_table(study)["error"]) == {"VRMSE", "CRPS"}
    text = " ".join(findings(study))
    assert "rate 4×: no fewer than 8 evaluations come within 3 % of their VRMSE." in text
    assert "all models, 4 evaluations: quick has 0.904" in text
    assert [section.name for section in sections(study)] == ["choices", "levels", "defaults", "candidates"]


def test_scores_of_a_trajectory_are_means_over_fields_lead_times_and_starts():
    metrics = pa.concat_tables(
        [
            tidy([[1, 2, 6], [3, 4, 8]], start=start, field=field)
            for start in (0, 8)
            for field in ("density", "energy")
        ]
        + [tidy([[1, np.nan, 1], [1, 1, 1]], "crps"), tidy([[9, 9, 9]], "vrmse", target="autoencoded")]
    )
    scores = trajectory_scores(metrics, ((1, 20), (21, None)))
    found = scores.set_index(["metric", "range", "trajectory"])["value"].to_dict()
    assert found["vrmse", "1-20", "0"] == 1.5
    assert found["vrmse", "21-end", "1"] == 8
    assert found["crps", "1-20", "0"] == np.inf
    assert found["crps", "21-end", "0"] == 1
    assert len(found) == 2 * 2 * 2
