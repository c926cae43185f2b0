import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from tidy_tables import tidy

from lola.evaluation.scores.rows import model_key
from lola.evaluation.tables.cells import CellTable
from lola.evaluation.tables.curves import curves_of
from lola.evaluation.tables.derived import RATIO
from lola.evaluation.tables.formats import markdown
from lola.evaluation.tables.lead_times import (
    SPECTRUM,
    beats_persistence,
    layout,
    lead_time_table,
    skill_scores,
    summarise,
)

RANGES = ((1, 20), (21, None))


def values(table):
    return dict(zip(table["range"], table["value"], strict=True))


def test_ranges_are_inclusive():
    table = lead_time_table(tidy([[1, 2, 6], [3, 4, 8]]), "vrmse", RANGES)
    assert values(table) == {"1-20": 2.5, "21-end": 7.0}
    assert list(table["trajectories"]) == [2, 2]


def test_fields_starts_and_seeds_are_averaged():
    parts = [tidy([[1, 1, 1]]), tidy([[2, 2, 2]], field="energy"), tidy([[4, 4, 4]], start=8),
             tidy([[5, 5, 5]], start=8, field="energy", training_seed=1)]  # fmt: skip
    table = lead_time_table(pa.concat_tables(parts), "vrmse", RANGES)
    assert values(table)["1-20"] == pytest.approx((1 + 2 + 4 + 5) / 4)
    assert list(table["trajectories"]) == [1, 1]


def test_squares_are_averaged_over_trajectories_before_dividing():
    parts = [tidy([[1, 3], [3, 4]], "spread", members=4, lead_times=(4, 8)),
             tidy([[1, 1], [2, 7]], "skill", members=4, lead_times=(4, 8))]  # fmt: skip
    table = lead_time_table(pa.concat_tables(parts), RATIO, [(1, 20)])
    assert values(table)["1-20"] == pytest.approx((np.sqrt(10 / 5) + np.sqrt(25 / 50)) / 2)


def test_trajectories_that_end_early_count_where_they_exist():
    """Means are over the trajectories that have a lead time, and never unstable for it."""
    parts = [tidy([[1, 2, 6], [3, 4, 8]]), tidy([[8, 3]], lead_times=(4, 20), trajectory="short")]
    metrics = pa.concat_tables(parts)
    table = lead_time_table(metrics, "vrmse", RANGES)
    assert values(table) == {"1-20": pytest.approx((12 / 3 + 9 / 3) / 2), "21-end": 7.0}
    assert list(table["trajectories"]) == [3, 2]
    assert list(table["unstable"]) == [0, 0]
    assert np.isfinite(table[["low", "high"]].to_numpy()).all()
    long = lead_time_table(tidy([[1, 2, 6], [3, 4, 8]]), "vrmse", [(21, None)])
    assert table.iloc[1][["low", "high"]].tolist() == long.iloc[0][["low", "high"]].tolist()
    (whole,) = lead_time_table(metrics, "vrmse", [(1, None)]).itertuples()
    assert whole.value == pytest.approx((12 / 3 + 9 / 3 + 14 / 2) / 3)
    assert whole.low < whole.value < whole.high
    mean, *_ = curves_of(CellTable(metrics).of("vrmse"), "vrmse", "truth")
    np.testing.assert_allclose(mean.value, [4, 3, 7])
    assert np.isfinite([mean.low, mean.high]).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_unstable_trajectories_are_counted_not_dropped(bad):
    metrics = tidy([[1, 1, 1], [1, 1, bad], [1, 1, 1]])
    table = lead_time_table(metrics, "vrmse", RANGES).set_index("range")
    assert table.loc["1-20", "value"] == 1
    assert table.loc["1-20", "unstable"] == 0
    assert table.loc["21-end", "value"] == np.inf
    assert table.loc["21-end", "unstable"] == 1
    assert summarise(metrics, RANGES)["test/vrmse/21-end"] == np.inf
    assert "unstable 1/3" in markdown(layout(table.reset_index()))


def test_unstable_spread_and_skill_make_the_ratio_unstable():
    parts = [tidy([[1], [np.nan]], name, members=4, lead_times=(4,)) for name in ("spread", "skill")]
    table = lead_time_table(pa.concat_tables(parts), RATIO, [(1, 20)])
    assert list(table["unstable"]) == [1]
    assert values(table)["1-20"] == np.inf


def test_bootstrap_agrees_with_the_normal_theory():
    draws = np.random.default_rng(0).normal(2, 0.5, size=(400, 1))
    (row,) = lead_time_table(tidy(draws, lead_times=(4,)), "vrmse", [(1, 20)]).itertuples()
    half = 1.96 * draws.std() / np.sqrt(400)
    assert row.value == pytest.approx(draws.mean())
    assert row.low == pytest.approx(draws.mean() - half, abs=0.15 * half)
    assert row.high == pytest.approx(draws.mean() + half, abs=0.15 * half)


def test_interval_is_the_same_each_time_and_missing_for_one_trajectory():
    metrics = tidy(np.random.default_rng(0).random((5, 3)))
    pd.testing.assert_frame_equal(
        lead_time_table(metrics, "vrmse", RANGES), lead_time_table(metrics, "vrmse", RANGES)
    )
    assert lead_time_table(tidy([[1, 2, 3]]), "vrmse", RANGES)["low"].isna().all()


def test_beating_persistence_is_by_range():
    parts = [tidy([[1, 1, 1]], model="persistence", space="pixel"), tidy([[0.5, 0.5, 2]]),
             tidy([[1, 1, np.nan]], model="diffusion", solver_steps=4),
             tidy([[0, 0, 0]], model="autoencoder")]  # fmt: skip
    table = lead_time_table(pa.concat_tables(parts), "vrmse", RANGES)
    table["beats"] = beats_persistence(table)
    found = table.set_index(["model", "range"])["beats"]
    assert found["neural_solver", "1-20"]
    assert not found["neural_solver", "21-end"]
    assert not found["diffusion", "1-20"]  # equal is not better
    assert not found["diffusion", "21-end"]
    assert found[["persistence", "autoencoder"]].isna().all()


def test_layout_marks_the_best_and_the_lost(sweep):
    shown = layout(lead_time_table(sweep[0], "vrmse", RANGES))
    assert [row[:4] for row in shown.rows] == [
        ("Persistence", "–", "–", "–"),
        ("Autoencoder alone", "16", "–", "1"),
        ("Neural solver in pixel space", "–", "–", "1"),
        ("Neural solver", "16", "–", "1"),
        ("Diffusion", "16", "4", "1"),
        ("Diffusion", "16", "8", "1"),
    ]
    assert [[cell.best for cell in row[4]] for row in shown.rows][:4] == [[False] * 2] * 4
    assert [cell.best for cell in shown.rows[5][4]] == [True, True]
    assert [row[0] for row in shown.rows if any(cell.flagged for cell in row[4])] == [
        "Neural solver in pixel space"
    ]


def test_best_ratio_is_the_nearest_to_one():
    parts = [
        tidy([[spread]] * 2, "spread", members=4, lead_times=(4,), solver_steps=steps)
        for steps, spread in ((4, 0.5), (8, 1.5), (16, 1.9))
    ] + [tidy([[1]] * 2, "skill", members=4, lead_times=(4,), solver_steps=steps) for steps in (4, 8, 16)]
    table = lead_time_table(pa.concat_tables(parts), RATIO, [(1, 20)])
    assert {row[2]: row[4][0].best for row in layout(table).rows} == {"4": False, "8": True, "16": False}


def test_methods_that_differ_elsewhere_stay_apart():
    parts = [tidy([[1, 1, 1]], context=1), tidy([[2, 2, 2]], context=2)]
    shown = layout(lead_time_table(pa.concat_tables(parts), "vrmse", RANGES))
    assert [row[0] for row in shown.rows] == ["Neural solver, context 1", "Neural solver, context 2"]


def test_markdown_of_the_spectrum(sweep):
    table = pd.concat([lead_time_table(sweep[0], metric, RANGES) for metric in SPECTRUM])
    lines = markdown(layout(table)).splitlines()
    assert lines[0] == (
        "| method | rate | steps | seeds "
        "| low 1–20 | low 21–end | mid 1–20 | mid 21–end | high 1–20 | high 21–end |"
    )
    assert len(lines) == 2 + 6
    assert {line.count("|") for line in lines} == {11}


def test_summary_of_one_method(sweep):
    frame = sweep[0].to_pandas()
    finest = sweep[0].filter(pa.array((frame["model"] == "diffusion") & (frame["solver_steps"] == 8)))
    summary = summarise(finest, RANGES)
    assert summary["test/vrmse/1-20"] == pytest.approx(0.1, rel=0.1)  # 0.2 over the root of 4 members
    assert summary["autoencoded/vrmse/1-20"] == pytest.approx(0.05, rel=0.1)
    assert summary["test/vrmse_member/21-end"] == pytest.approx(0.2, rel=0.1)
    # The truth is the centre of the members here, not one of them: sqrt((M + 1) / M) becomes sqrt(M + 1).
    assert summary["test/spread_skill_ratio/1-20"] == pytest.approx(5**0.5, rel=0.1)


def test_a_summary_agrees_with_the_tables():
    rng = np.random.default_rng(0)
    parts = [tidy(rng.random((3, 3)), name, members=4, start=start, field=field, target=target)
             for name in ("vrmse", "spread", "skill", "spectrum_rmse_low") for start in (0, 8)
             for field in ("density", "energy") for target in ("truth", "autoencoded")]  # fmt: skip
    parts.append(tidy(rng.random((2, 3)), "drift_mass", members=4))  # the third one's domain is open
    parts.append(tidy([[1, np.nan, 1], [1, 1, 1]], "nrmse", members=4))
    metrics = pa.concat_tables(parts)
    summary, bands = summarise(metrics, RANGES, ((1, 4), (5, 24)), "valid"), ((1, 4), (5, 24))
    expected = {}
    for target, prefix in (("truth", "valid"), ("autoencoded", "autoencoded")):
        for name in ("vrmse", "spread", "skill", "spectrum_rmse_low", "drift_mass", "nrmse", RATIO):
            own = bands if name.startswith("spectrum") else RANGES
            for where, value in values(lead_time_table(metrics, name, own, target=target, draws=1)).items():
                expected[f"{prefix}/{name}/{where}"] = value
    assert summary == pytest.approx(expected)
    assert summary["valid/nrmse/1-20"] == np.inf


def test_a_missing_metric_gives_an_empty_table(sweep):
    table = lead_time_table(sweep[0], "vrmse", RANGES, target="nothing")
    assert len(table) == 0
    assert "value" in table.columns


def test_averaged_weights_are_a_model_of_their_own():
    table = pa.concat_tables(
        [
            tidy([[1.0, 1.0, 1.0]], model=model_key(model, weights), solver_steps=4 * (model == "diffusion"))
            for model in ("autoencoder", "neural_solver", "diffusion")
            for weights in ("raw", "ema")
        ]
        + [tidy([[0.5, 0.5, 0.5]], model="persistence", space="pixel")]
    )
    rows = layout(lead_time_table(table, "vrmse", RANGES)).rows
    assert [row[0] for row in rows] == [
        "Persistence", "Autoencoder alone", "Autoencoder alone (EMA)", "Neural solver", "Neural solver (EMA)",
        "Diffusion", "Diffusion (EMA)",
    ]  # fmt: skip
    assert [row[4][0].flagged for row in rows] == [False] * 3 + [True] * 4


def test_guided_methods_tell_what_guides_them_and_others_nothing():
    parts = [tidy([[1, 1, 1]], model="diffusion", guidance=name) for name in ("", "mmps subsample8")]
    rows = layout(lead_time_table(pa.concat_tables(parts), "vrmse", RANGES)).rows
    assert {row[0] for row in rows} == {"Diffusion", "Diffusion, guided by mmps subsample8"}


def test_the_skill_is_against_climatology_over_the_same_range():
    parts = [
        tidy([[score] * 3] * 2, name, model=model, members=4)
        for model, crps in (("climatology", 0.5), ("diffusion", 0.2), ("persistence", 0.75))
        for name, score in (("crps", crps), ("variance", 1.0))
    ]
    table = lead_time_table(pa.concat_tables(parts), "crps_relative", RANGES)
    skill = skill_scores(table)
    assert dict(zip(skill["model"], skill["value"], strict=True)) == pytest.approx(
        {"diffusion": 0.6, "persistence": -0.5}
    )
    assert not len(skill_scores(table[table["model"] != "climatology"]))
    text = markdown(layout(pd.concat([table, skill], ignore_index=True)))
    assert "skill 1–20" in text
    assert "**0.600**" in text
