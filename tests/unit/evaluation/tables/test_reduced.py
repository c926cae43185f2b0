"""Reduced copies of the metrics table give the same tables, and references their shares."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import pytest
from tidy_tables import score, tidy

from lola.data.description import EULER
from lola.evaluation.scores.rows import Subject
from lola.evaluation.tables.aggregates import WHOLE, Aggregates
from lola.evaluation.tables.lead_times import lead_time_table
from lola.evaluation.tables.reduced import (
    DIGITS,
    KEPT,
    reduce_metrics,
    round_bits,
    sort_reduced,
    write_reduced,
)
from lola.evaluation.tables.references import reference_table, shown_shares
from lola.evaluation.tables.significance import compare_shares, error_ratio, trajectory_errors

FIELDS = ("density", "pressure")
LEAD_TIMES = (4, 20, 24, 64)


def scored(generator, model, lost=False):
    """Four trajectories of a small field, each with 5 members, scored."""
    parts = []
    for i in range(4):
        truth = generator.normal(size=(2, 4, 8, 8)).cumsum(1)
        members = truth + generator.normal(size=(5, 2, 4, 8, 8))
        if lost and i == 3:
            members[:, 1, 3] = np.nan
        subject = Subject(
            system="euler", dataset="d", fingerprint="f", model=model, space="latent", compression=16.0,
            members=5, trajectory=f"t{i}",
        )  # fmt: skip
        truth, members = (x.astype(np.float32) for x in (truth, members))
        parts.append(score(subject, *_tensors(truth, members), channels=FIELDS, lead_times=LEAD_TIMES))
    return [pa.concat_tables(tables) for tables in zip(*parts, strict=True)]


def _tensors(*arrays):
    import torch

    return [torch.from_numpy(array) for array in arrays]


def test_tables_of_what_is_kept_are_those_of_all(tmp_path):
    generator = np.random.default_rng(0)
    tables = [scored(generator, "diffusion"), scored(generator, "crps_ensemble", lost=True)]
    kept = sort_reduced(pa.concat_tables([reduce_metrics(metrics) for metrics, _ in tables]))
    write_reduced(kept, tmp_path / "scores.parquet")
    kept = pq.read_table(tmp_path / "scores.parquet")
    assert set(kept["metric"].to_pylist()) == set(KEPT)
    spectra = pa.concat_tables([each for _, each in tables])
    whole = Aggregates.of(EULER, [(pa.concat_tables([metrics for metrics, _ in tables]), spectra)])
    small = Aggregates.of(EULER, [(kept, spectra.slice(0, 0))])
    for metric in ("vrmse", "vrmse_pooled", "crps_relative", "spread_skill_ratio", "coverage_90"):
        one, other = (each.estimated(metric, EULER.ranges) for each in (whole, small))
        assert len(one) == 6
        assert list(one["unstable"]) == list(other["unstable"])
        assert sum(one["unstable"]) == 1
        for name in ("value", "low", "high"):
            np.testing.assert_allclose(other[name], one[name], rtol=5e-3)
    np.testing.assert_allclose(small.errors["value"], whole.errors["value"], rtol=5e-3)


def test_values_keep_so_many_bits():
    values = np.array([1.0, np.pi, -1e-9, 12345.678, 0.0, np.inf])
    found = round_bits(values)
    np.testing.assert_allclose(found, values, rtol=2.0**-DIGITS)
    assert not (found[np.isfinite(found)].view(np.int32) & (2 ** (24 - DIGITS) - 1)).any()


def test_shares_are_of_the_reference_of_the_same_rate():
    base = np.arange(1.0, 9.0)[:, None] * np.ones((1, 3))
    parts = [
        tidy(base, model="diffusion", solver_steps=16),
        tidy(1.5 * base, model="diffusion", solver_steps=2),
        tidy(0.5 * base, model="crps_ensemble"),
        tidy(2 * base, model="neural_solver"),
        tidy(base, model="persistence"),
        tidy(base, model="crps_ensemble", compression=64.0),
    ]
    ranges = [(1, 20), WHOLE]
    errors = trajectory_errors(pa.concat_tables(parts), ["vrmse"], ranges)
    table = reference_table(errors, "vrmse", ranges, {"model": "diffusion", "solver_steps": 16})
    found = table.set_index(["model", "solver_steps", "range"])["relative"].round(6).to_dict()
    models = {("neural_solver", 0): 1.0, ("diffusion", 2): 0.5, ("crps_ensemble", 0): -0.5}
    assert found == {(*key, name): share for key, share in models.items() for name in ("1-20", "1-end")}
    assert table["p_holm"].to_numpy() == pytest.approx(6 * 2 / 2**8)
    shown = shown_shares(table)
    assert list(shown.columns) == ["method", "rate", "steps", "seeds", "1–20", "1–end"]
    assert all(cell.startswith("-50.0% (") and cell.endswith(") *") for cell in shown.iloc[-1, 4:])
    row = table[table["model"] == "crps_ensemble"].iloc[0]
    assert row["low"] == pytest.approx(-0.5)
    assert row["high"] == pytest.approx(-0.5)  # the ratio is the same on every trajectory


def test_intervals_of_shares_are_those_of_the_ratio_of_means():
    one, other = np.random.default_rng(0).uniform(0.5, 2, (2, 12))
    tables = [pd.DataFrame({0: values}) for values in (one, other)]
    ratio = np.array(error_ratio(one[:, None], other[:, None]))
    found = compare_shares(*tables)
    shares = [found[name] for name in ("relative", "low", "high")]
    np.testing.assert_allclose(shares, ratio - 1)


def test_errors_of_emulation_alone_are_kept_without_their_parts():
    parts = [
        tidy([[1.0, 2.0, 3.0]], metric, target=target)
        for metric in ("vrmse", "spectrum_rmse_high", "skill", "coverage_50")
        for target in ("truth", "autoencoded")
    ]
    kept = reduce_metrics(pa.concat_tables(parts))
    emulated = kept.filter(pa.compute.equal(kept["target"], "autoencoded"))
    assert set(emulated["metric"].to_pylist()) == {"vrmse", "spectrum_rmse_high"}
    errors = trajectory_errors(kept, ["vrmse"], [WHOLE], "autoencoded")
    assert list(errors["value"]) == [2.0]


def test_a_reduced_estimate_is_that_of_a_mean_over_fields():
    parts = [tidy([[1.0, 2.0, 3.0]], field="density"), tidy([[3.0, 4.0, 5.0]], field="pressure")]
    kept = reduce_metrics(pa.concat_tables(parts))
    assert set(kept["field"].to_pylist()) == {"mean"}
    assert list(lead_time_table(kept, "vrmse", [(1, 20), (21, None)])["value"]) == [2.5, 4.0]
