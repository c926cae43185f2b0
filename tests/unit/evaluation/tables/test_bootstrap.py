"""Intervals over seeds and trajectories hold the mean of a model of random effects as often as they say."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from tidy_tables import curves, tidy

from lola.evaluation.tables.bootstrap import (
    bootstrap_weights,
    resample_seeds,
    stretch,
    weighted_means,
    weighted_medians,
)
from lola.evaluation.tables.lead_times import lead_time_table
from lola.evaluation.tables.significance import compare, compare_shares, paired_table, trajectory_errors

CASES, DRAWS = 600, 300


def effects(seeds, trajectories, sizes, cases=CASES):
    """x_st = a_s + b_t + e_st with deviations of these sizes, shape `(S, T, cases)`."""
    rng = np.random.default_rng([seeds, trajectories])
    shapes = ((seeds, 1), (1, trajectories), (seeds, trajectories))
    return sum(size * rng.normal(size=(*shape, cases)) for size, shape in zip(sizes, shapes, strict=True))


def intervals(x):
    by_seed = weighted_means(bootstrap_weights(x.shape[1], DRAWS), x[None])
    return np.quantile(resample_seeds(by_seed, lambda means: means[0])[1:], [0.025, 0.975], axis=0)


@pytest.mark.parametrize("sizes", [(1, 0, 0.5), (1, 1, 1), (0.1, 1, 0.3)])
@pytest.mark.parametrize("seeds", [3, 5, 20])
def test_intervals_cover_the_mean_as_often_as_they_say(seeds, sizes):
    low, high = intervals(effects(seeds, 48, sizes))
    covered = np.mean((low < 0) & (high > 0))
    assert 0.92 < covered < 0.99  # the deviation of a share of 600 is 0.01


def test_one_seed_says_nothing_of_others():
    low, high = intervals(effects(1, 48, (1, 0.3, 0.3)))
    assert np.mean((low < 0) & (high > 0)) < 0.3
    # With the seed's effect given, it is as good as any bootstrap over trajectories
    x = effects(1, 48, (0, 1, 0.3))
    low, high = intervals(x)
    assert 0.91 < np.mean((low < 0) & (high > 0)) < 0.97


def test_the_stretch_is_students():
    assert stretch(3) == pytest.approx(4.302653 / 1.959964 * np.sqrt(3 / 2), rel=1e-6)
    assert stretch(1000) == pytest.approx(1, abs=5e-3)


def test_medians_of_resamplings_are_numpys():
    rng = np.random.default_rng(0)
    for count in (1, 4, 7):
        values, weights = rng.random(count), bootstrap_weights(count, 50)
        expected = [np.median(np.repeat(values, np.rint(count * row).astype(int))) for row in weights]
        np.testing.assert_allclose(weighted_medians(weights, values), expected)


def test_tables_and_curves_average_seeds_and_say_how_many():
    x = 5 + effects(3, 12, (0.3, 1, 0.1), 3)
    rows = pa.concat_tables([tidy(x[seed], training_seed=seed) for seed in range(3)])
    (row,) = lead_time_table(rows, "vrmse", [(1, None)]).itertuples()
    assert (row.value, row.seeds, row.trajectories) == (pytest.approx(x.mean()), 3, 12)
    alone = lead_time_table(tidy(x.mean(0)), "vrmse", [(1, None)]).iloc[0]
    assert row.high - row.low > 1.3 * (alone["high"] - alone["low"])
    mean, _ = curves(rows, "vrmse")
    np.testing.assert_allclose(mean.value, x.mean((0, 1)))
    assert mean.seeds == 3
    (first,) = lead_time_table(rows, "vrmse", [(4, 4)]).itertuples()
    assert [mean.low[0], mean.high[0]] == pytest.approx([first.low, first.high])


def test_comparisons_resample_seeds_of_both():
    x = effects(3, 40, (0.3, 1, 0.1), 2)
    found = compare(x[..., 0], x[..., 1])
    difference = (x[..., 0] - x[..., 1]).mean()
    assert (found["difference"], found["seeds"]) == (pytest.approx(difference), 3)
    alone = compare(x[..., 0].mean(0), x[..., 1].mean(0))
    assert found["p"] == pytest.approx(alone["p"])
    assert found["high"] - found["low"] > alone["high"] - alone["low"]
    assert compare(x[..., 0], x[:1, :, 1])["rival_seeds"] == 1


def test_other_training_seeds_are_not_paired_though_they_are_as_many():
    x = 5 + effects(3, 40, (0.3, 1, 0.1), 2)
    one, other = pd.DataFrame(x[..., 0].T), pd.DataFrame(x[..., 1].T, columns=[1, 2, 3])
    found, paired = compare_shares(one, other), compare_shares(one, other.set_axis([0, 1, 2], axis=1))
    means = compare_shares(one.mean(axis=1).to_frame(), other.mean(axis=1).to_frame())
    numbers = ("difference", "relative", "low", "high", "p")
    assert [found[name] for name in numbers] == pytest.approx([means[name] for name in numbers])
    assert (found["seeds"], found["rival_seeds"], found["over_seeds"]) == (3, 3, False)
    assert paired["over_seeds"]
    assert paired["high"] - paired["low"] > found["high"] - found["low"]
    rows = [
        tidy(x[seed, :, [method]].T, "crps", name, (4,), training_seed=seed + method)
        for seed in range(3)
        for method, name in enumerate(("neural_solver", "diffusion"))
    ]
    errors = trajectory_errors(pa.concat_tables(rows), ["crps"], [(1, None)])
    keys = [name for name in errors if name not in ("training_seed", "value")]
    averaged = errors.groupby(keys, as_index=False)["value"].mean().assign(training_seed=0)
    (row,), (alone,) = (paired_table(each, "crps", [(1, None)]).itertuples() for each in (errors, averaged))
    assert (row.low, row.high) == pytest.approx((alone.low, alone.high))
    assert (row.seeds, row.rival_seeds) == (3, 3)
