import numpy as np
import pytest
import scoringrules
import torch
from scipy.stats import norm, rankdata

from lola.evaluation.scores.distribution import score_order_statistics
from lola.evaluation.scores.sorting import sort_rows


@pytest.mark.parametrize("count", range(1, 20))
@pytest.mark.parametrize("dtype", [torch.int64, torch.float32])
def test_the_network_sorts(count, dtype):
    x = torch.randint(0, 12, (count, 300), generator=torch.Generator().manual_seed(count)).to(dtype)
    rows, order = sort_rows(x)
    assert torch.equal(rows[list(order)], x.sort(0).values)


@pytest.mark.parametrize("members", [1, 2, 5, 16])
def test_crps_is_that_of_scoringrules(members, scores_of):
    u, v = torch.randn(2, 3, 4, 5).double(), torch.randn(members, 2, 3, 4, 5).double()
    found = scores_of(u, v, spatial=2)["crps"]
    cells = (
        scoringrules.crps_ensemble(u.numpy(), v.movedim(0, -1).numpy(), estimator="fair")
        if members > 1
        else (v[0] - u).abs().numpy()
    )
    np.testing.assert_allclose(found, cells.mean((-2, -1)), rtol=1e-12)


def test_crps_is_the_integral_of_its_definition(scores_of):
    """CRPS = integral of (F(y) - [y >= u])^2; the fair form takes off integral of F (1 - F) / (M - 1)."""
    u, v = torch.tensor([0.4]).double(), torch.tensor([-1.0, 0.1, 0.7, 2.5])[:, None].double()
    y = np.arange(-2, 3, 1e-5) + 5e-6
    share = (v.numpy() <= y).mean(0)
    expected = ((share - (y >= 0.4)) ** 2 - share * (1 - share) / 3).sum() * 1e-5
    assert score_order_statistics(v - u, spatial=1)[0]["crps"].item() == pytest.approx(expected, abs=1e-4)


def test_fair_crps_of_a_gaussian_does_not_depend_on_the_members():
    draws = np.random.default_rng(0).normal(0.3, 1.7, (300_000, 3))
    u, v = torch.full((300_000,), 1.2).double(), torch.from_numpy(draws.T)
    z = (1.2 - 0.3) / 1.7
    closed = 1.7 * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / np.sqrt(np.pi))
    assert score_order_statistics(v - u, spatial=1)[0]["crps"].item() == pytest.approx(closed, rel=0.01)
    assert score_order_statistics(v[:2] - u, spatial=1)[0]["crps"].item() == pytest.approx(closed, rel=0.01)


def test_crps_keeps_its_precision_on_a_large_offset(scores_of):
    u, v = torch.randn(64, 64), torch.randn(8, 64, 64)
    offset = 2.0**16  # float32 keeps 2^-8 of it
    rounded_u, rounded_v = (u * 2**4 + offset) - offset, (v * 2**4 + offset) - offset
    torch.testing.assert_close(
        scores_of(rounded_u + offset, rounded_v + offset, spatial=2)["crps"],
        scores_of(rounded_u, rounded_v, spatial=2)["crps"],
    )


@pytest.mark.parametrize("members", [2, 7, 16])
def test_exchangeable_members_have_flat_ranks(members, scores_of):
    draws = torch.randn(members + 1, 2, 300, 300, generator=torch.Generator().manual_seed(members))
    shares = scores_of(draws[0], draws[1:], spatial=2)["rank_histogram"]
    assert shares.shape == (2, members + 1)
    torch.testing.assert_close(shares.sum(-1), torch.ones(2).double())
    error = (1 / (members + 1) / 90_000) ** 0.5
    assert (shares - 1 / (members + 1)).abs().max() < 5 * error


def test_ranks_are_those_of_scipy(scores_of):
    draws = torch.randn(6, 500, generator=torch.Generator().manual_seed(3))
    ranks = rankdata(draws.numpy(), axis=0)[0].astype(int) - 1
    found = scores_of(draws[0], draws[1:], spatial=1)["rank_histogram"]
    np.testing.assert_allclose(found, np.bincount(ranks, minlength=6) / 500, rtol=1e-6)


def test_ranks_count_the_members_below(scores_of):
    u = torch.tensor([[0.5, 2.5, -1.0, 9.0]])
    v = torch.arange(3.0)[:, None, None].expand(-1, 1, 4)  # 0, 1, 2
    assert scores_of(u, v, spatial=1)["rank_histogram"].tolist() == [[0.25, 0.25, 0, 0.5]]


def test_a_tie_is_shared_among_its_ranks(scores_of):
    v = torch.tensor([0.0, 1.0, 1.0, 2.0])[:, None].expand(-1, 2)
    found = scores_of(torch.ones(2), v, spatial=1)["rank_histogram"]
    torch.testing.assert_close(found, torch.tensor([0, 1, 1, 1, 0]).double() / 3)
    drawn = torch.randint(0, 3, (5, 200_000), generator=torch.Generator().manual_seed(0)).float()
    shares = scores_of(drawn[0], drawn[1:], spatial=1)["rank_histogram"]
    torch.testing.assert_close(shares, torch.full((5,), 0.2).double(), rtol=0, atol=0.005)
