"""Metrics of means against closed forms."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from tidy_tables import tidy

from lola.evaluation.scores.ensemble import score_ensemble
from lola.evaluation.tables.cells import CellTable
from lola.evaluation.tables.curves import curves_of
from lola.evaluation.tables.derived import DERIVED, RATIO, SCORES
from lola.evaluation.tables.lead_times import lead_time_table
from lola.evaluation.tables.shown_metrics import charted, metric_names


def table_of(metric, members=4, **values):
    parts = [
        tidy([[value] for value in each], name, members=members, lead_times=(4,))
        for name, each in values.items()
    ]
    return lead_time_table(pa.concat_tables(parts), metric, [(1, 20)])


def test_errors_and_variances_are_averaged_before_dividing():
    (row,) = table_of("vrmse_pooled", skill=[1, 7], variance=[0, 4]).itertuples()
    assert row.value == pytest.approx(np.sqrt(25 / 2))  # and not infinite, as the mean of ratios
    (row,) = table_of("crps_relative", crps=[1, 5], variance=[0, 8]).itertuples()
    assert row.value == pytest.approx(3 / 2)


def test_the_part_of_the_error_that_is_due_to_few_members_is_taken_off():
    """Members that are as good as the truth's distribution: the mean's error is 1 + 1 / M."""
    for members in (2, 8):
        generator = torch.Generator().manual_seed(members)
        draws = torch.randn(members + 1, 6, 1, 200, 200, generator=generator)
        scores = score_ensemble({"u": draws[0]}, draws[1:], spatial=2)[0]["u"].metrics
        given = {name: scores[name].flatten().tolist() for name in ("skill", "spread", "variance")}
        (unbiased,) = table_of("vrmse_unbiased", members, **given).itertuples()
        (pooled,) = table_of("vrmse_pooled", members, **given).itertuples()
        assert unbiased.value == pytest.approx(1, abs=0.01)
        assert pooled.value == pytest.approx(np.sqrt(1 + 1 / members), abs=0.01)


def test_an_unstable_trajectory_makes_every_metric_of_it_unstable():
    for metric, derived in DERIVED.items():
        given = {name: [1.0, 2.0] for name in derived.parts}
        given[derived.parts[0]] = [1.0, np.nan]
        (row,) = table_of(metric, **given).itertuples()
        assert (row.unstable, row.value) == (1, np.inf), metric


def test_a_single_member_has_no_metrics_of_ensembles():
    given = {"skill": [1.0], "spread": [1.0], "variance": [1.0]}
    assert len(table_of("vrmse_pooled", 1, **given)) == 1
    for metric in (RATIO, "vrmse_unbiased"):
        assert len(table_of(metric, 1, **given)) == 0


def test_curves_agree_with_tables():
    values = {"crps": [[1, 4], [3, 5]], "variance": [[1, 9], [4, 16]]}
    metrics = pa.concat_tables([tidy(each, name, lead_times=(4, 20)) for name, each in values.items()])
    mean, *_ = curves_of(CellTable(metrics).of("crps_relative"), "crps_relative", "truth")
    for lead, value in zip(mean.lead_times, mean.value, strict=True):
        (row,) = lead_time_table(metrics, "crps_relative", [(int(lead), int(lead))]).itertuples()
        assert row.value == pytest.approx(value)


def test_parts_and_scores_in_units_are_not_shown():
    found = metric_names([*DERIVED, *SCORES, "variance", "skill", "spread_low", "drift_mass", "vrmse"])
    assert found[0] == "vrmse"
    assert found[-1] == "drift_mass"
    assert {"crps", *DERIVED} <= set(found)
    assert not {"variance", "skill", "spread_low", "energy", "variogram"} & set(found)
    assert "drift_mass" in charted(found)
    assert "interval_90_relative" not in charted(found)
