"""Statistics against NumPy's of all values at once, in any grouping and order."""

import numpy as np
import pytest

from lola.data import statistics
from lola.data.description import EULER
from lola.data.statistics import Moments, by_field, statistics_table
from lola.data.systems import Field, System

MATRICES = System(
    name="matrices",
    datasets=("matrices",),
    dimensions=2,
    fields=(Field("density", transform="log"), Field("velocity", 1), Field("stress", 2)),
)


@pytest.mark.parametrize("seed", range(4))
def test_moments_merged_in_any_grouping_and_order(seed):
    """The deviation is 1e-9 of the mean: a difference of sums of squares would be noise."""
    random = np.random.default_rng(seed)
    x = 1e6 + 1e-3 * random.normal(size=(500, 3))
    cuts = np.sort(random.choice(np.arange(1, 500), 20, replace=False))
    parts = []
    for block in np.split(x, cuts):
        parts.append(Moments())
        parts[-1].add(block, 1)
    random.shuffle(parts)
    while len(parts) > 1:
        first, second = parts.pop(int(random.integers(len(parts)))), parts.pop()
        first.merge(second)
        parts.append(first)
    (moments,) = parts
    assert moments.count == 500
    np.testing.assert_allclose(moments.mean, x.mean(0), rtol=1e-15)
    np.testing.assert_allclose(moments.std, (x - 1e6).std(0), rtol=1e-6)
    np.testing.assert_array_equal(moments.minimum, x.min(0))
    np.testing.assert_array_equal(moments.maximum, x.max(0))


def test_merging_nothing_changes_nothing():
    moments = Moments()
    moments.merge(Moments())
    assert moments.count == 0
    moments.add(np.arange(4.0), 0)
    moments.merge(Moments())
    assert (moments.count, moments.mean, moments.minimum, moments.maximum) == (4, 1.5, 0, 3)


def test_the_layout_by_field():
    named = by_field(np.arange(7.0), MATRICES)
    assert named == {"density": 0.0, "velocity": [1.0, 2.0], "stress": [[3.0, 4.0], [5.0, 6.0]]}
    moments = Moments()
    moments.add(np.random.default_rng(0).random((32, 5)), 1)
    written = statistics_table(moments, moments, EULER)
    assert list(written) == ["mean", "std", "rms", "min", "max", "transforms", "transformed"]
    assert written["transforms"]["energy"] == "log1p"
    assert list(written["transformed"]["mean"]) == ["energy", "density", "pressure", "momentum"]


def test_a_channel_that_is_constant_up_to_rounding_keeps_its_scale(tmp_path, monkeypatch):
    x = np.float32(101325) + np.random.default_rng(0).choice([0, 0.0078125], 1000).astype(np.float32)
    mean, std = float(x.mean(dtype=float)), float(x.std(dtype=float))
    monkeypatch.setattr(
        statistics,
        "read_manifest",
        lambda folder: {"mean": [mean, 0.0, mean, 1.0, 0.0], "std": [std, 0.0, 1.0, 1e-6, 1e-9]},
    )
    system = statistics.with_statistics(EULER, tmp_path)
    assert system.std == (1.0, 1.0, 1.0, 1e-6, 1e-9)
    assert abs((x - system.mean[0]) / system.std[0]).max() < 0.02
