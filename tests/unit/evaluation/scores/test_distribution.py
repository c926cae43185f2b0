import numpy as np
import pytest
import torch
from scipy.stats import norm

from lola.core.errors import DataError
from lola.evaluation.scores.metrics import crps, rank_histogram
from lola.evaluation.scores.sorting import sort_first


@pytest.mark.parametrize("count", range(1, 20))
def test_the_network_sorts(count):
    x = torch.randint(0, 12, (count, 300), generator=torch.Generator().manual_seed(count))
    assert torch.equal(torch.stack(sort_first(x)), x.sort(0).values)


@pytest.mark.parametrize("members", [1, 2, 5, 16])
def test_crps_is_its_definition(members):
    u, v = torch.randn(2, 3, 4, 5).double(), torch.randn(members, 2, 3, 4, 5).double()
    pairs = (v[:, None] - v[None]).abs().sum((0, 1)) / (2 * members * max(1, members - 1))
    expected = ((v - u).abs().mean(0) - pairs).mean((-2, -1))
    torch.testing.assert_close(crps(u, v, spatial=2), expected)


def test_fair_crps_of_a_gaussian_does_not_depend_on_the_members():
    draws = np.random.default_rng(0).normal(0.3, 1.7, (300_000, 3))
    u, v = torch.full((300_000,), 1.2).double(), torch.from_numpy(draws.T)
    z = (1.2 - 0.3) / 1.7
    closed = 1.7 * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / np.sqrt(np.pi))
    assert crps(u, v, spatial=1).item() == pytest.approx(closed, rel=0.01)
    assert crps(u, v[:2], spatial=1).item() == pytest.approx(closed, rel=0.01)


def test_crps_keeps_its_precision_on_a_large_offset():
    u, v = torch.randn(64, 64), torch.randn(8, 64, 64)
    offset = 2.0**16  # float32 keeps 2^-8 of it
    rounded_u, rounded_v = (u * 2**4 + offset) - offset, (v * 2**4 + offset) - offset
    torch.testing.assert_close(
        crps(rounded_u + offset, rounded_v + offset, spatial=2), crps(rounded_u, rounded_v, spatial=2)
    )


@pytest.mark.parametrize("members", [2, 7, 16])
def test_exchangeable_members_have_flat_ranks(members):
    draws = torch.randn(members + 1, 2, 300, 300, generator=torch.Generator().manual_seed(members))
    shares = rank_histogram(draws[0], draws[1:], spatial=2)
    assert shares.shape == (2, members + 1)
    torch.testing.assert_close(shares.sum(-1), torch.ones(2).double())
    error = (1 / (members + 1) / 90_000) ** 0.5
    assert (shares - 1 / (members + 1)).abs().max() < 5 * error


def test_ranks_count_the_members_below():
    u = torch.tensor([[0.5, 2.5, -1.0, 9.0]])
    v = torch.arange(3.0)[:, None, None].expand(-1, 1, 4)  # 0, 1, 2
    assert rank_histogram(u, v, spatial=1).tolist() == [[0.25, 0.25, 0, 0.5]]


def test_a_tie_is_shared_among_its_ranks():
    v = torch.tensor([0.0, 1.0, 1.0, 2.0])[:, None]
    torch.testing.assert_close(
        rank_histogram(torch.tensor([1.0]), v, spatial=1), torch.tensor([0, 1, 1, 1, 0]).double() / 3
    )
    drawn = torch.randint(0, 3, (5, 200_000), generator=torch.Generator().manual_seed(0)).float()
    shares = rank_histogram(drawn[0], drawn[1:], spatial=1)
    torch.testing.assert_close(shares, torch.full((5,), 0.2).double(), rtol=0, atol=0.005)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_lost_member_spoils_its_own_field_alone(bad):
    u, v = torch.randn(3, 6, 6), torch.randn(4, 3, 6, 6)
    clean = crps(u, v, spatial=2), rank_histogram(u, v, spatial=2)
    v[2, 1, 0, 0] = bad
    for before, after in zip(clean, (crps(u, v, spatial=2), rank_histogram(u, v, spatial=2)), strict=True):
        assert not after[1].isfinite().any()
        torch.testing.assert_close(after[[0, 2]], before[[0, 2]])


def test_ranks_need_an_ensemble():
    with pytest.raises(DataError, match="2 members or more, not 1"):
        rank_histogram(torch.randn(4, 4), torch.randn(1, 4, 4), spatial=2)
