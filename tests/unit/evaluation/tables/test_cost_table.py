"""Costs of methods, and which of them are worth theirs."""

import numpy as np
import pyarrow as pa
import pytest
from pages import aggregates
from tidy_tables import tidy

from lola.evaluation.page.cost_charts import FRONT, cost_sections
from lola.evaluation.page.stills import WHISKER, vega_lite
from lola.evaluation.tables.cost_table import pareto
from lola.evaluation.tables.speed import Timing, speed_table

TIMINGS = [
    Timing(model="simulator", seconds=9.0),
    Timing(model="neural_solver", seconds=0.01, space="latent", compression=16.0, training=600.0,
           autoencoder=90.0),
    Timing(model="diffusion", seconds=0.02, space="latent", compression=16.0, solver_steps=4, members=8,
           training=1200.0, autoencoder=90.0),
    Timing(model="diffusion", seconds=0.04, space="latent", compression=16.0, solver_steps=8, members=8,
           training=1200.0, autoencoder=90.0),
    Timing(model="crps_ensemble", seconds=0.01, space="latent", compression=16.0, members=8),
]  # fmt: skip


@pytest.fixture
def scores(sweep):
    parts = [
        tidy([[level] * 3] * 4, model=model, solver_steps=steps, members=members)
        for model, steps, members, level in (
            ("neural_solver", 0, 1, 0.5), ("diffusion", 4, 8, 0.45), ("diffusion", 8, 8, 0.3),
            ("crps_ensemble", 0, 8, 0.4),
        )
    ]  # fmt: skip
    parts.append(tidy([[0.9] * 3] * 4, model="persistence", space="pixel", compression=1.0))
    return aggregates(pa.concat_tables(parts), sweep[1].slice(0, 0))


def test_a_front_is_what_nothing_beats_in_both():
    cost, error = np.array([1, 2, 2, 3, 3, 4, 1.0]), np.array([5, 4, 4, 4, 3, 3, np.inf])
    assert pareto(cost, error).tolist() == [True, True, True, False, True, False, False]
    rng = np.random.default_rng(0)
    points = rng.integers(0, 12, size=(60, 2)).astype(float)
    below = (points[:, None] <= points).all(2) & (points[:, None] < points).any(2)
    assert pareto(*points.T).tolist() == (~below.any(0)).tolist()


def test_the_chart_has_every_model_the_baselines_and_the_front(scores):
    first, second = cost_sections(scores, TIMINGS)
    drawn = {one.label: one for one in first.chart.series if one.keys["range"] == "1-end"}
    np.testing.assert_allclose(
        [drawn["Diffusion 16×"].x, drawn["Diffusion 16×"].y], [[0.16, 0.32], [0.45, 0.3]]
    )
    np.testing.assert_allclose([drawn[FRONT].x, drawn[FRONT].y], [[0.01, 0.08, 0.32], [0.5, 0.4, 0.3]])
    np.testing.assert_allclose(drawn["Persistence"].y, 0.9)
    minutes = {one.label: one for one in second.chart.series if one.keys["range"] == "1-end"}
    np.testing.assert_allclose(minutes["Diffusion 16×"].x, 21.5)  # with the autoencoder's
    assert "CRPS ensemble 16×" not in minutes  # its training time is unknown
    table = first.plain.set_index(["method", "steps"])
    assert table["Pareto front"].to_dict() == {
        ("Neural solver", "–"): "both", ("Diffusion", "4"): "–",
        ("Diffusion", "8"): "both", ("CRPS ensemble", "–"): "speed",
    }  # fmt: skip
    assert table.loc[("Diffusion", "8"), ["all members", "training", "autoencoder"]].tolist() == [
        "320 ms", "20 min", "1.5 min",
    ]  # fmt: skip
    assert [choice.initial for choice in first.chart.choices] == ["vrmse", "1-end"]


def test_a_still_has_whiskers_of_single_points(scores):
    (panel, *_) = vega_lite(next(cost_sections(scores, TIMINGS)).chart)["vconcat"][0]["hconcat"]
    whiskers = [layer for layer in panel["layer"] if layer["mark"] == WHISKER | {"clip": True}]
    assert {row["curve"] for layer in whiskers for row in layer["data"]["values"]} == {
        "Neural solver 16×", "CRPS ensemble 16×",
    }  # fmt: skip


def test_without_timings_there_is_no_chart(scores):
    assert list(cost_sections(scores, [])) == []


def test_the_gain_is_of_a_whole_ensemble():
    """A member's share of a batch is less than it takes alone."""
    timings = [
        Timing(model="simulator", seconds=8.0),
        Timing(model="neural_solver", seconds=0.5),
        Timing(model="diffusion", seconds=0.25, members=16, solver_steps=8),
    ]
    table = speed_table(timings, "other").set_index("method")
    assert table["gain"].tolist() == ["1×", "16×", "2×"]
    assert table.loc["Diffusion", ["all members", "each member"]].tolist() == ["4 s", "250 ms"]
    assert not [name for name in table if name.startswith("gain,")]
