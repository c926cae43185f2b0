import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from lola.evaluation.metrics import coherence, crps, nrmse, rank_histogram, skill, spread, vrmse
from lola.evaluation.score import METRICS_SCHEMA, SPECTRA_SCHEMA, Subject, count_rows, score
from lola.evaluation.spectra import power_spectrum, spectrum_rmse

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


def value(table, **place):
    frame = table.to_pandas()
    for column, wanted in place.items():
        frame = frame[frame[column] == wanted]
    (found,) = frame["value"]
    return found


@pytest.mark.parametrize("grid", [(16, 20), (8, 8, 10)])
def test_every_row_is_its_metric(grid):
    truth, members = draw(grid=grid)
    metrics, _ = score(SUBJECT, truth, members, channels=CHANNELS, lead_times=LEAD_TIMES)
    spatial = len(grid)
    expected = {
        "vrmse": vrmse(truth, members.mean(0), spatial=spatial),
        "vrmse_member": vrmse(truth, members, spatial=spatial).mean(0),
        "skill": skill(truth, members, spatial=spatial),
        "spread": spread(members, spatial=spatial),
        "nrmse": nrmse(truth, members.mean(0), spatial=spatial),
        "crps": crps(truth, members, spatial=spatial),
        "stability": torch.ones(3, 2),
    }
    errors = spectrum_rmse(truth, members, spatial=spatial)
    expected |= {f"spectrum_rmse_{band}": error for band, error in errors.items() if not error.isnan().any()}
    assert metrics.num_rows == 3 * 2 * len(expected)
    for metric, scores in expected.items():
        found = value(metrics, metric=metric, field="energy", lead_time=8)
        assert found == pytest.approx(scores[1, 1].item(), rel=1e-12)


def test_spectra_hold_the_power_of_truth_and_members():
    truth, members = draw()
    _, spectra = score(SUBJECT, truth, members, channels=CHANNELS, lead_times=LEAD_TIMES)
    power, k = power_spectrum(truth, spatial=2)
    mean = power_spectrum(members, spatial=2)[0].mean(0)
    place = {"field": "pressure", "lead_time": 4, "bin": 6}
    assert value(spectra, metric="power_truth", **place) == pytest.approx(power[2, 0, 6].item())
    assert value(spectra, metric="power_prediction", **place) == pytest.approx(mean[2, 0, 6].item())
    assert value(spectra, metric="coherence", **place) == pytest.approx(
        coherence(truth, members, spatial=2)[0][2, 0, 6].item()
    )
    ranks = spectra.filter(pa.array(spectra.to_pandas()["metric"] == "rank_histogram"))
    assert set(ranks["coordinate"].to_pylist()) == {0, 1, 2, 3, 4}
    assert value(ranks, field="pressure", lead_time=8, bin=4) == pytest.approx(
        rank_histogram(truth, members, spatial=2)[2, 1, 4].item()
    )
    others = spectra.filter(pa.array(spectra.to_pandas()["metric"] != "rank_histogram"))
    assert set(others["coordinate"].to_pylist()) == set(k.tolist())


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
def test_rows_are_counted_beforehand(grid, members):
    truth, ensemble = torch.rand(3, 4, *grid), torch.rand(members, 3, 4, *grid)
    tables = score(SUBJECT, truth, ensemble, channels=("a", "b", "c"), lead_times=np.arange(4))
    assert sum(table.num_rows for table in tables) == 4 * count_rows(("a", "b", "c"), grid, members)


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
    assert not np.isfinite(frame.loc[lost, "value"]).any()
    assert np.isfinite(frame.loc[~lost, "value"]).all()
