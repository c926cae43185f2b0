import numpy as np
import pyarrow as pa
import pytest
from tidy_tables import tidy

from lola.evaluation.tables.cells import CellTable
from lola.evaluation.tables.valid_time import valid_times


def test_the_valid_time_is_the_mean_of_the_last_valid_lead_times():
    valid = np.array([[1, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 0]])
    metrics = tidy(valid, metric="valid", lead_times=(4, 8, 12))
    other = tidy(np.ones((4, 3)), metric="valid", model="diffusion", lead_times=(4, 8, 12))
    table = valid_times(CellTable(pa.concat_tables([metrics, other])).of("valid"))
    rows = table.set_index("model")
    solver, best = rows.loc["neural_solver"], rows.loc["diffusion"]
    assert solver["value"] == pytest.approx((12 + 4 + 0 + 8) / 4)
    assert solver["low"] < solver["value"] < solver["high"]
    assert (solver["valid_at_end"], best["valid_at_end"]) == (0.25, 1.0)
    assert (best["value"], best["low"], best["high"]) == (12, 12, 12)


def test_seeds_are_averaged_and_widen_the_interval():
    valid = np.array([[1, 1, 1], [1, 0, 0], [1, 1, 0], [1, 1, 0]])
    lead_times = (4, 8, 12)
    alone = tidy(valid, metric="valid", lead_times=lead_times)
    other = tidy(0 * valid, metric="valid", lead_times=lead_times, training_seed=1)
    (one,) = valid_times(CellTable(alone).of("valid")).itertuples()
    (both,) = valid_times(CellTable(pa.concat_tables([alone, other])).of("valid")).itertuples()
    assert (both.value, both.seeds, both.trajectories) == (one.value / 2, 2, 4)
    assert both.high - both.low > one.high - one.low


def test_trajectories_that_end_count_until_then():
    valid = np.array([[1, 1, np.nan], [1, 1, 1]])
    metrics = tidy(valid, metric="valid", lead_times=(4, 8, 12))
    keep = [not np.isnan(value) for value in metrics["value"].to_pylist()]
    table = valid_times(CellTable(metrics.filter(pa.array(keep))).of("valid"))
    assert table["value"].tolist() == [12]


def test_without_anomalies_there_is_no_valid_time():
    assert valid_times(CellTable(tidy([[1.0]], lead_times=(4,))).of("valid")).empty
