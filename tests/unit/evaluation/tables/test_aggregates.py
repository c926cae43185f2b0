"""Reduced evaluations are what a plain computation of all their rows gives, whatever they are read in."""

import itertools

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from lola.data.description import TURBULENCE_GRAVITY_COOLING as SYSTEM
from lola.evaluation.scores.rows import METRICS_SCHEMA, SPECTRA_SCHEMA
from lola.evaluation.tables.aggregates import OVERALL, Aggregates
from lola.evaluation.tables.bootstrap import bootstrap_weights, stretch
from lola.evaluation.tables.cells import METHOD, CellTable
from lola.evaluation.tables.curves import MEAN
from lola.evaluation.tables.derived import RATIO
from lola.evaluation.tables.lead_times import name_range

FIELDS, TRAJECTORIES, BINS = ("density", "pressure"), [f"t{i}" for i in range(5)], 7
STARTS = {0: np.arange(1, 50, 6), 4: np.arange(1, 40, 6)}
METRICS = ("vrmse", "spectrum_rmse_low", "crps", "spread", "skill", "stability")
METHODS = [
    {"model": "persistence", "space": "pixel", "compression": 1.0},
    {"model": "neural_solver", "compression": 48.0, "targets": ("truth", "autoencoded")},
    {"model": "neural_solver", "compression": 48.0, "context": 2},
    {"model": "diffusion", "compression": 48.0, "members": 4, "solver_steps": 8, "sampler": "ab"},
    {"model": "diffusion", "compression": 192.0, "members": 4, "solver_steps": 8, "sampler": "ab"},
]


def evaluation(number, method, seed=0):
    """Metrics and spectra of one evaluation, made up."""
    rng = np.random.default_rng([number, seed])
    method = {"targets": ("truth",), "space": "latent", "members": 1, "context": 1, "solver_steps": 0,
              "sampler": ""} | method  # fmt: skip
    targets = method.pop("targets")
    keys = {"system": SYSTEM.name, "dataset": "d", "fingerprint": str(number), "training_seed": seed,
            "overlap": 1, "guidance": ""} | method  # fmt: skip
    places = [
        {"target": target, "trajectory": trajectory, "start": start, "field": field, "lead_time": int(time)}
        for target, trajectory, (start, times) in itertools.product(targets, TRAJECTORIES, STARTS.items())
        for field, time in itertools.product(FIELDS, times)
    ]
    metrics = [
        keys | place | {"metric": metric, "value": rng.lognormal()}
        for place in places
        for metric in METRICS
        if metric != "spread" or method["members"] > 1
    ]
    spectra = [
        keys | place | {"metric": metric, "coordinate": 0.5, "step": 0.5, "values": rng.random(BINS).tolist()}
        for place in places
        for metric in ("power_truth", "power_prediction")
    ]
    return (
        pa.Table.from_pylist(metrics, schema=METRICS_SCHEMA),
        pa.Table.from_pylist(spectra, schema=SPECTRA_SCHEMA),
    )


@pytest.fixture(scope="module")
def tables():
    seeds = [(3, 1)]  # a method that was trained twice
    found = [evaluation(number, method) for number, method in enumerate(METHODS)]
    for number, seed in seeds:
        pairs = zip(found[number], evaluation(number, METHODS[number], seed), strict=True)
        found[number] = tuple(map(pa.concat_tables, pairs))
    return found


@pytest.fixture(scope="module")
def reduced(tables):
    return Aggregates.of(SYSTEM, iter(tables))


@pytest.fixture(scope="module")
def rows(tables):
    frame = pa.concat_tables([metrics for metrics, _ in tables]).to_pandas()
    return frame.astype(dict.fromkeys(frame.select_dtypes("category").columns, "str"))


def plain_draws(rows, metric):
    """Estimates of a method in the sample and in 1000 resamplings, a column per field and lead time."""
    names = ["spread", "skill"] if metric == RATIO else [metric]
    seeds = sorted(rows["training_seed"].unique())
    drawn = bootstrap_weights(len(seeds), of="seeds")
    kept, both = [], []
    for name in names:
        values = rows[rows["metric"] == name].assign(
            value=lambda part: part["value"] ** (2 if metric == RATIO else 1)
        )
        sums = []
        for seed in seeds:
            own = values[values["training_seed"] == seed]
            cells = own.groupby(["trajectory", "field", "lead_time"])["value"].mean().unstack("trajectory")
            sums.append(cells @ bootstrap_weights(len(TRAJECTORIES)).T)
        kept.append(sum(sums) / len(seeds))
        both.append(sum(part * drawn[:, i] for i, part in enumerate(sums)))
    kept, both = ((np.sqrt(x[0] / x[1]) if metric == RATIO else x[0]).T for x in (kept, both))
    return kept if len(seeds) == 1 else kept + stretch(len(seeds)) * (both - kept)


def the(method):
    return lambda frame: frame[(frame[METHOD] == pd.Series(method)[METHOD]).all(axis=1)]


def test_estimates_are_those_of_all_rows(reduced, rows):
    checked = 0
    for keys, group in rows.groupby([*METHOD, "target"]):
        method = dict(zip(METHOD, keys, strict=False))
        shown = {"vrmse", "spectrum_rmse_low", "crps", "stability"} | (
            {RATIO} if method["members"] > 1 else set()
        )
        mine = reduced.estimates[reduced.estimates["target"] == keys[-1]]
        mine = the(method)(mine)
        assert set(mine["metric"]) == shown
        for metric in shown:
            draws = plain_draws(group, metric)
            lead = draws.columns.get_level_values("lead_time")
            ranges = SYSTEM.spectrum_ranges if metric.startswith("spectrum") else SYSTEM.ranges
            for first, last in [*ranges, (1, None)] if metric in OVERALL else ranges:
                expected = draws.loc[:, (lead >= first) & (lead <= (last or np.inf))].mean(axis=1)
                row = mine[(mine["metric"] == metric) & (mine["range"] == name_range((first, last)))]
                low, high = np.quantile(expected[1:], [0.025, 0.975])
                found = row[["value", "low", "high"]].to_numpy(float)[0]
                np.testing.assert_allclose(found, [expected.iloc[0], low, high], rtol=1e-10)
                assert row["seeds"].item() == group["training_seed"].nunique()
                checked += 1
    assert checked == len(reduced.estimates)
    assert set(reduced.estimates["seeds"]) == {1, 2}


def test_curves_are_those_of_all_rows(reduced, rows):
    for keys, group in rows.groupby([*METHOD, "target"]):
        mine = [
            curve
            for curve in reduced.curves
            if curve.target == keys[-1] and tuple(curve.method.values()) == tuple(keys[:-1])
        ]
        for metric in {curve.metric for curve in mine}:
            draws = plain_draws(group, metric)
            for curve in mine:
                if curve.metric != metric:
                    continue
                by_time = draws.T.groupby("lead_time").mean().T
                expected = by_time if curve.field == MEAN else draws.loc[:, curve.field]
                assert list(curve.lead_times) == list(expected.columns)
                np.testing.assert_allclose(curve.value, expected.iloc[0], rtol=1e-10)
                np.testing.assert_allclose(curve.high, np.quantile(expected[1:], 0.975, axis=0), rtol=1e-10)
    assert len(reduced.curves) == (4 * 6 + 2) * 3


def test_errors_by_trajectory_are_those_of_all_rows(reduced, rows):
    chosen = rows[(rows["metric"] == "vrmse") & (rows["target"] == "truth")]
    for first, last in SYSTEM.ranges:
        inside = chosen[chosen["lead_time"].between(first, last)]
        mine = reduced.errors[reduced.errors["metric"] == "vrmse"]
        mine = mine[mine["range"] == name_range((first, last))]
        keys = [*METHOD, "training_seed", "trajectory"]
        found = mine.set_index(keys).sort_index()
        cells = inside.groupby([*keys, "field", "lead_time"])["value"].mean().groupby(keys).mean()
        np.testing.assert_allclose(found["value"].astype(float), cells, rtol=1e-12)


def test_spread_over_skill_by_trajectory_is_a_mean_of_ratios_without_units(reduced, rows):
    chosen = rows[(rows["target"] == "truth") & rows["metric"].isin(["spread", "skill"])]
    first, last = SYSTEM.ranges[0]
    inside = chosen[chosen["lead_time"].between(first, last)]
    keys = [*METHOD, "training_seed", "trajectory"]
    squares = (inside["value"] ** 2).groupby([inside[key] for key in (*keys, "field", "lead_time", "metric")])
    squares = squares.mean().unstack("metric")
    expected = ((squares["spread"] / squares["skill"]) ** 0.5).groupby(keys).mean()
    mine = reduced.errors[reduced.errors["metric"] == "spread_skill_ratio"]
    mine = mine[mine["range"] == name_range((first, last))].set_index(keys).sort_index()
    assert len(mine)
    np.testing.assert_allclose(mine["value"].astype(float), expected.loc[mine.index], rtol=1e-12)


def test_spectra_are_means_of_all_rows(reduced, tables):
    for _, spectra in tables:
        frame = spectra.to_pandas()
        for keys, group in frame.groupby([*METHOD, "metric", "target", "field", "lead_time"], observed=True):
            if keys[-1] not in (1, 49):
                continue
            names = [*METHOD, "metric", "target", "field", "lead_time"]
            mine = reduced.spectra
            for name, key in zip(names, keys, strict=True):
                mine = mine[mine[name] == key]
            np.testing.assert_allclose(mine["y"].item(), np.stack(group["values"]).mean(0), rtol=1e-6)
            np.testing.assert_allclose(mine["x"].item(), 0.5 * np.arange(1, BINS + 1))


def test_a_null_is_an_unstable_trajectory_and_is_counted(tables):
    metrics, spectra = tables[3]
    lost = np.zeros(len(metrics), bool)
    lost[metrics["trajectory"].to_pandas() == "t2"] = True
    metrics = metrics.set_column(
        metrics.column_names.index("value"), "value", pa.array(metrics["value"].to_numpy(), mask=lost)
    )
    gone = np.asarray(spectra["trajectory"].to_pandas() == "t2")
    lists = pa.array(
        [None if each else row for each, row in zip(gone, spectra["values"].to_pylist(), strict=True)]
    )
    spectra = spectra.set_column(
        len(spectra.column_names) - 1, SPECTRA_SCHEMA.field("values"), lists.cast(pa.list_(pa.float32()))
    )
    reduced = Aggregates.of(SYSTEM, [(metrics, spectra)])
    assert set(reduced.estimates["unstable"]) == {1}
    assert np.isinf(reduced.estimates["value"]).all()
    assert all(np.isnan(curve.value).all() for curve in reduced.curves)
    assert (np.isinf(reduced.errors["value"]) == (reduced.errors["trajectory"] == "t2")).all()
    assert all(np.isnan(y).all() and len(y) == BINS for y in reduced.spectra["y"])


def test_no_more_than_one_evaluation_is_held(tables):
    rows = pa.concat_tables([tables[3][1]] * 20)  # as much as matters
    held = []

    def one_by_one():
        before = pa.total_allocated_bytes()
        for number in range(4):
            held.append(pa.total_allocated_bytes() - before)
            yield made(number)

    def made(number):
        spectra = rows.take(pa.array(np.arange(len(rows))))
        at = spectra.column_names.index("compression")
        return tuple(
            table.set_column(at, "compression", pa.array(np.full(len(table), 2.0 + number)))
            for table in (tables[3][0], spectra)
        )

    assert len(Aggregates.of(SYSTEM, one_by_one()).rates) == 4
    assert max(held) < rows.nbytes / 2, "what was read before is still held"


def test_no_array_that_is_kept_holds_a_larger_one(reduced):
    kept = [array for curve in reduced.curves for array in (curve.value, curve.low, curve.high)]
    kept += [array for name in ("x", "y") for array in reduced.spectra[name]]
    for array in kept:
        root = array
        while root.base is not None:
            root = root.base
        assert root.nbytes <= 2 * (1 + len(FIELDS)) * array.nbytes


def test_cells_keep_fields_in_order_and_know_what_is_absent(tables):
    metrics, _ = tables[1]
    (cells,) = CellTable(metrics).of("vrmse")
    assert cells.fields == list(FIELDS)
    assert cells.trajectories == TRAJECTORIES
    keep = np.asarray(
        ~((metrics["field"].to_pandas() == "pressure") & (metrics["trajectory"].to_pandas() == "t1"))
    )
    (cells,) = CellTable(metrics.filter(pa.array(keep))).of("vrmse")
    assert np.isnan(cells.values).sum() == len(cells.lead_times)
    assert np.isnan(cells.values[0, 0, 1, 1]).all()
