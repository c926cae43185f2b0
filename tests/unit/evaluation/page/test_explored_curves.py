import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from tidy_tables import curves, tidy

from lola.evaluation.tables.cells import METHOD
from lola.evaluation.tables.contexts import context_table
from lola.evaluation.tables.curves import MEAN
from lola.evaluation.tables.derived import RATIO
from lola.evaluation.tables.lead_times import lead_time_table
from lola.evaluation.tables.significance import trajectory_errors


@pytest.mark.parametrize("metric", ["vrmse", RATIO, "spectrum_rmse_low"])
@pytest.mark.parametrize("target", ["truth", "autoencoded"])
def test_curves_are_the_tables_at_single_lead_times(sweep, metric, target):
    times = (4, 8, 24, 64)
    table = lead_time_table(sweep[0], metric, [(time, time) for time in times], target=target)
    found = [curve for curve in curves(sweep[0], metric, target=target) if curve.field == MEAN]
    for curve in found:
        mine = table[(table[METHOD] == pd.Series(curve.method)).all(axis=1)]
        assert list(curve.lead_times) == list(times)
        for name in ("value", "low", "high"):
            assert getattr(curve, name) == pytest.approx(mine[name].to_numpy())
    assert len(found) == len(table) / len(times)


def test_fields_have_curves_and_the_mean_is_theirs():
    parts = [tidy([[1, 2, 3], [3, 4, 5]]), tidy([[5, 6, 7], [7, 8, 9]], field="energy")]
    found = {curve.field: curve for curve in curves(pa.concat_tables(parts), "vrmse")}
    assert list(found) == [MEAN, "density", "energy"]
    assert list(found["density"].value) == [2, 3, 4]
    assert list(found[MEAN].value) == [4, 5, 6]


def test_a_lost_trajectory_breaks_the_curve_where_it_is_lost():
    (mean, _) = curves(tidy([[1, 1, np.inf], [1, np.nan, 1]]), "vrmse")
    np.testing.assert_array_equal(np.isfinite(mean.value), [True, False, False])


def test_contexts_are_averaged_over_rates_beside_the_papers():
    parts = [
        tidy([[value, value, value]] * 2, model=model, context=context, compression=rate)
        for model, context, rate, value in (
            ("diffusion", 1, 10.0, 0.2), ("diffusion", 1, 40.0, 0.4), ("diffusion", 2, 10.0, 0.1),
            ("neural_solver", 1, 10.0, 0.7),
        )
    ]  # fmt: skip
    ranges = [(1, 20), (21, None)]
    errors = trajectory_errors(pa.concat_tables(parts), ["vrmse"], ranges)
    table = context_table(errors, ranges, "euler")
    assert list(table.columns) == ["method", "context", "1–20", "21–end", "paper, 1–20", "paper, 21–end"]
    rows = {tuple(row[:2]): tuple(row[2:]) for row in table.itertuples(index=False)}
    assert rows["Diffusion", "1"] == ("0.300 (0.300–0.300)", "0.300 (0.300–0.300)", "0.085", "0.204")
    assert rows["Diffusion", "2"][2] == "0.074"
    assert rows["Neural solver", "1"][2:] == ("0.108", "0.266")


def test_contexts_are_of_the_seeds_that_all_rates_have():
    parts = [
        tidy([[value] * 3] * 2, compression=rate, training_seed=seed)
        for rate, seed, value in ((10.0, 0, 0.2), (40.0, 0, 0.4), (40.0, 1, 0.9))
    ]
    errors = trajectory_errors(pa.concat_tables(parts), ["vrmse"], [(1, None)])
    table = context_table(errors, [(1, None)], "euler")
    assert table["1–end"].item() == "0.300 (0.300–0.300)"
