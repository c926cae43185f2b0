"""Sentences say what the numbers say, and no more."""

import numpy as np
import pyarrow as pa
import pytest
from pages import aggregates
from tidy_tables import tidy

from lola.evaluation.page.findings import compare_kinds, findings
from lola.evaluation.page.sections import significance
from lola.evaluation.tables.medians import median_table
from lola.evaluation.tables.significance import (
    holm,
    least_p,
    paired_table,
    trajectories_needed,
    trajectory_errors,
)


@pytest.fixture
def spectra(sweep):
    return sweep[1].slice(0, 0)


def rivals(trajectories, rates=(16.0, 64.0), better=0.1, metric="vrmse"):
    """A diffusion model that is better than the solver by about so much on every trajectory."""
    rng = np.random.default_rng(0)
    base = 0.2 + rng.random((trajectories, 3))
    better = better * rng.uniform(0.9, 1.1, base.shape)  # with ties the test goes through all permutations
    parts = []
    for rate in rates:
        parts.append(tidy(base, metric, compression=rate))
        parts.append(tidy(base - better, metric, model="diffusion", solver_steps=8, compression=rate))
    return parts


def said(parts, spectra):
    return findings(aggregates(pa.concat_tables(parts), spectra))


def test_a_method_that_is_worse_than_a_constant_field_is_not_called_best(spectra):
    pixel = {"space": "pixel", "compression": 1.0}
    parts = [tidy([[1.2, 1.2, 0.8]] * 2), tidy([[1.5, 1.5, 0.6]] * 2, model="persistence", **pixel),
             tidy([[1.4, 1.4, 1.1]] * 2, model="climatology", **pixel)]  # fmt: skip
    sentences = said(parts, spectra)
    assert (
        "Lead times 1–20: no emulator is better than a constant field; the least VRMSE, 1.200, is that of "
        "neural solver at 16×, persistence 1.500, climatology 1.400." in sentences
    )
    assert (
        "Lead times 21–60: no emulator is better than persistence; the least VRMSE, 0.800, is that of neural "
        "solver at 16×, persistence 0.600, climatology 1.100." in sentences
    )


def test_beating_persistence_is_no_praise_where_a_constant_field_is_better(spectra):
    pixel = {"space": "pixel", "compression": 1.0}
    parts = [tidy([[0.5, 1.2, 1.3]] * 2), tidy([[1.5, 1.5, 1.6]] * 2, model="persistence", **pixel)]
    first, *others = said(parts, spectra)
    assert first == (
        "In 1 of 2 table entries, over lead times 21–60, an emulator is no better than a constant field, the "
        "mean of the truth everywhere, whose VRMSE is 1."
    )
    assert not any("beats persistence" in sentence for sentence in others)
    good = [tidy([[0.5, 0.5, 0.9]] * 2), parts[1]]
    assert said(good, spectra)[0].startswith("Every emulator beats persistence at all ranges")


def compared(parts):
    return list(compare_kinds(trajectory_errors(pa.concat_tables(parts), ["vrmse"], [(1, None)]), "vrmse"))


def test_all_rates_some_and_none():
    test = "(paired by trajectory, Wilcoxon's test, corrected p < 0.05)."
    pair = "Diffusion against neural solver, VRMSE over all lead times:"
    more, less = "significantly more accurate", "significantly less accurate"
    assert f"{pair} {more} at 16× {test}" in compared(rivals(12, [16.0]))
    three = [4.0, 16.0, 64.0]
    assert f"{pair} {more} at all 3 rates {test}" in compared(rivals(12, three))
    mixed = rivals(12, three[:2]) + rivals(12, three[2:], better=-0.1)
    results = f"{more} at 2 of 3 rates (4× and 16×) and {less} at 1 of 3 rates (64×)"
    assert f"{pair} {results} {test}" in compared(mixed)
    none = f"{pair} no significant difference at both rates {test}"
    assert none in compared(rivals(12, better=0.0))


def test_too_few_trajectories_are_not_called_chance(spectra):
    sentence = (
        "Diffusion against neural solver, VRMSE over all lead times: 6 trajectories are too few for 2 tests, "
        "whose corrected p is 0.062 or more whatever the difference; it takes 7."
    )
    assert sentence in compared(rivals(6))
    (section,) = significance(aggregates(pa.concat_tables(rivals(8)), spectra))
    assert "8 trajectories are too few" not in section.text  # 4 tests: 4 / 128 < 0.05
    rates = [2.0**i for i in range(9)]
    (section,) = significance(aggregates(pa.concat_tables(rivals(8, rates)), spectra))
    assert "with 18 tests no corrected p below 0.14 can be reached" in section.text
    assert "It takes 10 trajectories." in section.text


def test_the_least_p_is_what_the_test_can_give(spectra):
    assert least_p(8) == pytest.approx(2 / 2**8)
    assert trajectories_needed(1) == 6
    assert 18 * least_p(trajectories_needed(18)) < 0.05 <= 18 * least_p(trajectories_needed(18) - 1)
    scores = aggregates(pa.concat_tables(rivals(8)), spectra)
    table = paired_table(scores.errors, "vrmse", [(1, None)])
    assert table["p_holm"].to_numpy() == pytest.approx(table["attainable"].to_numpy())
    assert table["attainable"].to_numpy() == pytest.approx(holm(np.full(2, 2 / 2**8)))


def test_the_crps_is_compared_over_the_deviation_of_the_truth(spectra):
    """A single prediction's is its absolute error; fields count alike whatever their unit."""
    errors = 1 + np.random.default_rng(1).random((12, 3))
    parts = []
    for field, unit in (("density", 1.0), ("energy", 1000.0)):
        for keys, better in (({}, 0.0), ({"model": "diffusion", "members": 8, "solver_steps": 8}, 0.5)):
            parts.append(tidy(unit * (errors - better), "crps", field=field, **keys))
            parts.append(tidy(np.full((12, 3), (2 * unit) ** 2), "variance", field=field, **keys))
    scores = aggregates(pa.concat_tables(parts), spectra)
    (row,) = paired_table(scores.errors, "crps_relative", [(1, None)]).itertuples()
    assert row.difference == pytest.approx(-0.5 / 2)
    assert row.wins == 12
    mine = scores.errors[(scores.errors["metric"] == "crps_relative") & (scores.errors["range"] == "1-end")]
    table = scores.estimated("crps_relative", [(1, None)]).set_index("model")["value"]
    assert mine.groupby("model")["value"].mean().to_dict() == pytest.approx(table.to_dict())
    assert any(", CRPS over" in each and "significantly more accurate" in each for each in findings(scores))


def test_a_mean_of_ratios_that_one_trajectory_decides_is_warned_of(spectra):
    parts = [tidy([[0.5] * 3] * 9 + [[40.0] * 3]), tidy([[1.0] * 3] * 9 + [[0.4] * 3], "skill"),
             tidy([[4.0] * 3] * 9 + [[1e-4] * 3], "variance")]  # fmt: skip
    scores = aggregates(pa.concat_tables(parts), spectra)
    assert any("VRMSE of neural solver is 4.450, pooled 0.504" in sentence for sentence in findings(scores))
    medians = median_table(scores.errors, "vrmse", [(1, 20), (21, None)])
    assert list(medians["range"]) == ["1-20"]
    assert medians["value"].item() == 0.5


def test_medians_outlast_lost_trajectories_up_to_a_half(spectra):
    errors = [[1.0] * 3, [2.0] * 3, [3.0] * 3, [np.nan] * 3, [np.nan] * 3]
    scores = aggregates(pa.concat_tables([tidy(errors), tidy(errors[2:], compression=64.0)]), spectra)
    table = median_table(scores.errors, "vrmse", [(1, 20)]).set_index("compression")
    assert table.loc[16.0, ["value", "unstable"]].tolist() == [3.0, 0]
    assert table.loc[64.0, ["value", "unstable"]].tolist() == [np.inf, 2]
