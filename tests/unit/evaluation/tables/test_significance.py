import itertools

import numpy as np
import pyarrow as pa
import pytest
from tidy_tables import tidy

from lola.evaluation.tables.significance import compare, error_ratio, holm, paired_table, trajectory_errors
from lola.models.kinds import KINDS, arm_kind, shown_with


def exact_p(differences):
    """The signed-rank test's two-sided p-value by all 2^T assignments of signs."""
    ranks = np.argsort(np.argsort(np.abs(differences))) + 1
    half = ranks.sum() / 2
    seen = abs(ranks[differences > 0].sum() - half)
    sums = [np.dot(signs, ranks) for signs in itertools.product((0, 1), repeat=len(ranks))]
    return np.mean([abs(total - half) >= seen for total in sums])


def test_p_is_that_of_all_signs():
    pair = np.random.default_rng(0).normal(size=(9, 2)) + np.array([0.0, 0.7])
    found = compare(*pair.T)
    assert found["p"] == pytest.approx(exact_p(pair[:, 0] - pair[:, 1]))
    assert found["difference"] == pytest.approx((pair[:, 0] - pair[:, 1]).mean())
    assert found["wins"] == (pair[:, 0] < pair[:, 1]).sum()


def test_interval_is_of_differences_not_of_levels():
    rng = np.random.default_rng(0)
    hardness, noise = 10 * rng.random((400, 1)), rng.normal(0, 0.1, size=(400, 2))
    found = compare(*(hardness + noise + np.array([0.0, 0.05])).T)
    half = 1.96 * (noise[:, 0] - noise[:, 1]).std() / 20
    assert found["high"] - found["low"] == pytest.approx(2 * half, rel=0.15)
    assert found["high"] < 0


def test_what_is_not_finite_loses():
    pair = np.array([[1, np.inf], [1, np.inf], [2, 3], [2, 2.5], [1, 1.1], [1, 1.2]])
    found = compare(*pair.T)
    assert found["wins"] == 6
    assert found["p"] == pytest.approx(2 / 2**6, rel=0.5)
    assert np.isnan(found["difference"])
    assert compare(*pair[:, ::-1].T)["wins"] == 0
    assert compare(*np.full((2, 4), np.inf))["p"] == 1.0


def test_equal_methods_are_not_told_apart():
    assert compare(*np.ones((2, 5)))["p"] == 1.0


def test_a_ratio_is_of_means_and_its_interval_of_pairs():
    rng = np.random.default_rng(0)
    hardness = 1 + 9 * rng.random((400, 2))
    other = hardness * rng.normal(1, 0.02, size=(400, 2))
    ratio, low, high = error_ratio(1.1 * hardness, other)
    means = (1.1 * hardness).mean(0) / other.mean(0)
    assert ratio == pytest.approx(np.sqrt(means[0] * means[1]))
    # Of each range the ratio deviates by 0.02 / sqrt(400), of their geometric mean by that over sqrt(2)
    spread = np.sqrt((hardness**2).mean() / hardness.mean() ** 2)
    assert high - low == pytest.approx(2 * 1.96 * 1.1 * 0.02 * spread / 20 / np.sqrt(2), rel=0.15)
    assert low < ratio < high


def test_a_ratio_of_equals_is_one_for_sure():
    errors = np.random.default_rng(0).random((5, 3))
    assert error_ratio(errors, errors) == pytest.approx((1, 1, 1))
    assert error_ratio(1.5 * errors, errors) == pytest.approx((1.5, 1.5, 1.5))


def test_a_ratio_of_what_is_not_finite():
    one, bad = np.ones((3, 1)), np.array([[1.0], [np.inf], [1.0]])
    assert error_ratio(bad, one)[0] == np.inf
    assert np.isnan(error_ratio(one, bad)[0])
    ratio, low, high = error_ratio(2 * one[:1], one[:1])
    assert ratio == 2
    assert np.isnan(low)
    assert np.isnan(high)


def test_a_ratio_leaves_out_ranges_that_a_trajectory_does_not_reach():
    one, other = np.array([[2.0, 6.0], [2.0, np.nan]]), np.array([[1.0, 2.0], [1.0, np.nan]])
    assert error_ratio(one, other)[0] == pytest.approx(np.sqrt(2 * 3))


def test_holm_multiplies_and_never_decreases():
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.6, 0.9])) == pytest.approx([1.0, 1.0])


def test_pairs_are_of_one_rate_and_the_finest_solver():
    rng = np.random.default_rng(0)
    base = rng.random((8, 3))
    parts = [
        tidy(base, model="neural_solver"),
        tidy(base + 1, model="neural_solver", compression=1.0, space="pixel"),
        tidy(base - 0.1, model="diffusion", solver_steps=8),
        tidy(base + 5, model="diffusion", solver_steps=4),
        tidy(base, model="diffusion", solver_steps=8, compression=64.0),
        tidy(base, model="persistence", space="pixel"),
    ]
    ranges = [(1, 20), (21, None)]
    table = paired_table(trajectory_errors(pa.concat_tables(parts), ["vrmse"], ranges), "vrmse", ranges)
    assert len(table) == 8  # the second rate has a rival in pixel space alone
    assert list(table["model"]).count("neural_solver") == 2  # against that in pixel space
    first = table[(table["compression"] == 16) & (table["rival"] == "neural solver")]
    assert list(first["range"]) == ["1-20", "21-end"]
    assert first["difference"].to_numpy() == pytest.approx(-0.1)
    assert list(first["wins"]) == [8, 8]
    assert first["p"].to_numpy() == pytest.approx(2 / 2**8)
    assert set(table["solver_steps"]) == {0, 8}
    assert (table["p_holm"] >= table["p"]).all()


def test_without_a_rival_there_is_an_empty_table():
    errors = trajectory_errors(tidy([[1, 2, 3]], model="neural_solver"), ["vrmse"], [(1, 20)])
    assert len(paired_table(errors, "vrmse", [(1, 20)])) == 0


def test_every_kind_is_compared_with_those_before_it_in_the_table():
    base = np.arange(1.0, 7.0)[:, None] * np.ones((1, 3))
    parts = [
        tidy(base, model="neural_solver"),
        tidy(base, model="neural_solver_ema"),
        tidy(base + 1, model="neural_solver", compression=1.0, space="pixel"),
        tidy(base + 9, model="diffusion", solver_steps=4),
        tidy(base - 0.1, model="diffusion", solver_steps=8),
        tidy(base - 0.2, model="crps_ensemble"),
    ]
    errors = trajectory_errors(pa.concat_tables(parts), ["vrmse"], [(1, 20)])
    table = paired_table(errors, "vrmse", [(1, 20)]).set_index(["model", "rival"])
    assert table["difference"].round(6).to_dict() == {
        ("neural_solver", "neural solver in pixel space"): -1.0,
        ("diffusion", "neural solver"): -0.1,
        ("diffusion", "neural solver in pixel space"): -1.1,
        ("crps_ensemble", "neural solver"): -0.2,
        ("crps_ensemble", "neural solver in pixel space"): -1.2,
        ("crps_ensemble", "diffusion"): -0.1,
    }


def test_the_better_one_has_the_larger_ranks_not_the_most_wins():
    """33 small losses and 31 large wins of 64: significant, in favour of the method."""
    differences = np.concatenate([np.linspace(0.001, 0.01, 33), -np.linspace(1, 2, 31)])
    found = compare(differences + 3, np.full(64, 3.0))
    assert (found["wins"], found["better"]) == (31, True)
    assert found["p"] < 0.01
    assert not compare(np.full(64, 3.0), differences + 3)["better"]


def test_an_arm_is_compared_with_what_is_of_its_kind():
    base = np.arange(1.0, 7.0)[:, None] * np.ones((1, 3))
    names = ("neural_solver", "diffusion", "crps_ensemble", "published", "warm", "tuned")
    parts = [tidy(base + i, model=name) for i, name in enumerate(names)]
    arms = [
        arm_kind(KINDS[kind], name, name, i)
        for i, (kind, name) in enumerate(
            zip(("diffusion", "crps_ensemble", "crps_ensemble"), names[3:], strict=True)
        )
    ]
    errors = trajectory_errors(pa.concat_tables(parts), ["vrmse"], [(1, 20)])
    with shown_with(arms):
        table = paired_table(errors, "vrmse", [(1, 20)])
    pairs = [pair for pair in zip(table["model"], table["rival"], strict=True) if pair[0] in names[3:]]
    assert pairs == [
        ("published", "diffusion"), ("warm", "CRPS ensemble"), ("tuned", "CRPS ensemble"), ("tuned", "warm")
    ]  # fmt: skip
    assert len(table) == 3 + len(pairs)
