import torch

from lola.evaluation.scores.ensemble import score_ensemble
from lola.evaluation.scores.stability import share_stable


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
