import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tidy_tables import score

from lola.evaluation.scores.ensemble import score_ensemble
from lola.evaluation.scores.rows import (
    METRICS_SCHEMA,
    SPECTRA_SCHEMA,
    Subject,
    convert_bins_to_lists,
    stored_bytes,
)

SUBJECT = Subject(
    system="euler",
    dataset="d",
    fingerprint="f",
    model="diffusion",
    space="latent",
    compression=16.0,
    members=4,
)
CHANNELS, LEAD_TIMES = ("density", "energy", "pressure"), np.array([4, 8])


def draw(members=4, grid=(16, 20)):
    truth = torch.randn(3, 2, *grid, dtype=torch.float64)
    return truth, truth + 0.3 * torch.randn(members, 3, 2, *grid, dtype=torch.float64)


def value(table, column="value", **place):
    frame = table.to_pandas()
    for key, wanted in place.items():
        frame = frame[frame[key] == wanted]
    (found,) = frame[column]
    return found


@pytest.mark.parametrize("grid", [(16, 20), (8, 8, 10)])
def test_every_row_is_its_metric(grid):
    truth, members = draw(grid=grid)
    metrics, _ = score(SUBJECT, truth, members, channels=CHANNELS, lead_times=LEAD_TIMES)
    scores, _ = score_ensemble({"truth": truth}, members, spatial=len(grid))
    expected = scores["truth"].metrics | {"stability": torch.ones(3, 2)}
    assert metrics.num_rows == 3 * 2 * len(expected)
    for metric, scores in expected.items():
        found = value(metrics, metric=metric, field="energy", lead_time=8)
        assert found == pytest.approx(scores[1, 1].item(), rel=1e-12)


def test_spectra_hold_the_power_of_truth_and_members():
    truth, members = draw()
    _, spectra = score(SUBJECT, truth, members, channels=CHANNELS, lead_times=LEAD_TIMES)
    scores = score_ensemble({"truth": truth}, members, spatial=2)[0]["truth"]
    place = {"field": "pressure", "lead_time": 4, "column": "values"}
    expected = {name: scores.spectra[name] for name in ("power_truth", "power_prediction", "coherence")}
    for metric, values in expected.items():
        np.testing.assert_allclose(value(spectra, metric=metric, **place), values[2, 0], rtol=1e-6)
    expected = scores.spectra["rank_histogram"][2, 1]
    k = scores.edges
    found = value(spectra, metric="rank_histogram", field="pressure", lead_time=8, column="values")
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    for metric, bins in {"rank_histogram": np.arange(5), "power_truth": k, "coherence": k}.items():
        first, step = (
            value(spectra, metric=metric, **place | {"column": name}) for name in ("coordinate", "step")
        )
        np.testing.assert_allclose(first + step * np.arange(len(bins)), bins, rtol=1e-12)
    assert spectra.num_rows == 3 * 2 * 6


def test_tables_with_a_row_per_bin_are_read_as_lists():
    """As evaluations before version 0.1 was released stored them."""
    truth, members = draw()
    _, spectra = score(SUBJECT, truth, members, channels=CHANNELS, lead_times=LEAD_TIMES)
    frame = spectra.to_pandas()
    frame["bin"] = [np.arange(len(values)) for values in frame["values"]]
    frame = frame.explode(["bin", "values"]).rename(columns={"values": "value"})
    frame["coordinate"] += frame["step"] * frame["bin"].astype(float)
    kinds = {"bin": pa.int32(), "coordinate": pa.float64(), "value": pa.float64()}
    fields = [field for field in SPECTRA_SCHEMA if field.name not in ("coordinate", "step", "values")]
    schema = pa.schema([*fields, *kinds.items()])
    bins = pa.Table.from_pandas(frame[schema.names], schema=schema, preserve_index=False)
    bins = pa.concat_tables([bins.slice(0, 100), bins.slice(100)])
    found = convert_bins_to_lists(bins)
    assert found.schema == SPECTRA_SCHEMA
    assert found.drop_columns("step").to_pylist() == spectra.drop_columns("step").to_pylist()
    np.testing.assert_allclose(found["step"], spectra["step"], rtol=1e-12)
    assert convert_bins_to_lists(found) is found


def test_schema_survives_parquet_and_joining(tmp_path):
    truth, members = draw()
    for i, model in enumerate(("diffusion", "neural_solver")):
        subject = dataclasses.replace(SUBJECT, model=model, trajectory=f"t{i}")
        for name, table in zip(
            ("m", "s"), score(subject, truth, members, channels=CHANNELS, lead_times=LEAD_TIMES), strict=True
        ):
            pq.write_table(table, tmp_path / f"{name}{i}.parquet")
    for name, schema in (("m", METRICS_SCHEMA), ("s", SPECTRA_SCHEMA)):
        tables = [pq.read_table(tmp_path / f"{name}{i}.parquet") for i in range(2)]
        joined = pa.concat_tables(tables)
        assert joined.schema.equals(schema)
        pq.write_table(joined, tmp_path / "joined.parquet")
        again = pq.read_table(tmp_path / "joined.parquet")
        assert again["model"].to_pylist() == joined["model"].to_pylist()
        assert set(again["trajectory"].to_pylist()) == {"t0", "t1"}


def test_one_member_has_no_spread_rows():
    truth, members = draw(members=1)
    metrics, _ = score(
        dataclasses.replace(SUBJECT, members=1), truth, members, channels=CHANNELS, lead_times=LEAD_TIMES
    )
    assert not {"spread", "rank_histogram"} & set(metrics["metric"].to_pylist())
    assert "skill" in metrics["metric"].to_pylist()


@pytest.mark.parametrize("grid", [(12, 20), (6, 6, 8)])
@pytest.mark.parametrize("members", [1, 2, 5])
def test_bytes_are_counted_beforehand(grid, members):
    truth, ensemble = torch.rand(3, 4, *grid), torch.rand(members, 3, 4, *grid)
    metrics, spectra = score(SUBJECT, truth, ensemble, channels=("a", "b", "c"), lead_times=np.arange(4))
    numbers = sum(map(len, spectra["values"].to_pylist()))
    rows = metrics.num_rows + 4 * 3 * 4  # increments and anomaly correlations, which need more than a state
    assert 8 * rows + 4 * numbers == 4 * stored_bytes(("a", "b", "c"), grid, members)


def test_non_finite_predictions_keep_their_rows():
    truth, members = draw()
    members[2, 1, 1, 0, 0] = torch.nan
    metrics, _ = score(SUBJECT, truth, members, channels=CHANNELS, lead_times=LEAD_TIMES)
    whole, _ = score(SUBJECT, *draw(), channels=CHANNELS, lead_times=LEAD_TIMES)
    assert metrics.num_rows == whole.num_rows
    frame = metrics.to_pandas()
    stable = frame["metric"] == "stability"
    assert frame.loc[stable & (frame["lead_time"] == 8), "value"].tolist() == [0.75] * 3
    frame = frame[~stable]
    lost = (frame["field"] == "energy") & (frame["lead_time"] == 8)
    assert not np.isfinite(frame.loc[lost & (frame["metric"] != "variance"), "value"]).any()
    assert np.isfinite(frame.loc[~lost, "value"]).all()
