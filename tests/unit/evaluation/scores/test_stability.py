import pytest
import torch

from lola.data.systems import Bounds
from lola.evaluation.scores.ensemble import score_ensemble
from lola.evaluation.scores.stability import share_out_of_bounds, share_stable


def test_a_rollout_that_leaves_the_range_stays_unstable():
    truth = torch.tensor([0.0, 1.0]).repeat(1, 6, 8, 4)  # range [0, 1]
    members = truth.repeat(5, 1, 1, 1, 1)
    members[0, 0, 2, 3, 3] = torch.nan
    members[1, 0, 4, 0, 0] = 2.01
    members[2, 0, 0, 0, 0] = -0.99
    members[3, 0, 5] = -torch.inf
    _, statistics = score_ensemble({"truth": truth}, members, spatial=2)
    assert share_stable(truth, statistics).tolist() == [[1, 1, 0.8, 0.8, 0.6, 0.4]]


def test_one_lost_field_makes_the_rollout_unstable():
    truth = torch.rand(3, 2, 4, 4)
    members = truth.repeat(2, 1, 1, 1, 1)
    members[1, 2, 1] = 1e6
    _, statistics = score_ensemble({"truth": truth}, members, spatial=2)
    assert share_stable(truth, statistics).tolist() == [[1, 0.5]] * 3


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.0, None, [0, 0.25, 0.25]), (None, 1.0, [0, 0.5, 0.25]), (0.0, 1.0, [0, 0.75, 0.25])],
)
def test_members_that_leave_the_bounds_of_a_field_are_counted(low, high, expected):
    truth = torch.rand(2, 3, 4, 4)
    truth[1, 0, 0, 0], truth[1, 0, 0, 1] = 0, 1
    members = truth.repeat(4, 1, 1, 1, 1)
    members[0, 1, 0, 0, 0] = -1e-9  # rounding
    members[1, 1, 1, 2, 2] = -0.1
    members[2, 1, 1, 2, 2] = members[3, 1, 1, 2, 2] = 1.1
    members[3, 1, 2, 2, 2] = torch.nan
    members[:, 0, 1, 2, 2] = 5  # without bounds
    _, statistics = score_ensemble({"truth": truth}, members, spatial=2)
    bounds = [Bounds("elsewhere", 0.0, None), Bounds("density", low, high)]
    metrics = share_out_of_bounds(bounds, ("speed", "density"), statistics)
    fields, values = metrics["out_of_bounds"]
    assert (fields, values.tolist()) == (["density"], [expected])
    assert share_out_of_bounds(bounds, ("speed",), statistics) == {}
