import pytest
import torch

from lola.core.errors import DataError
from lola.evaluation.scores.metrics import nrmse, rmse, skill, spread, spread_skill_ratio, stability, vrmse


def test_oracle(oracle):
    u, v = oracle["u"], oracle["v"]
    torch.testing.assert_close(skill(u, v, spatial=2), oracle["skill"], rtol=1e-5, atol=0)
    torch.testing.assert_close(spread(v, spatial=2), oracle["spread"], rtol=1e-5, atol=0)
    torch.testing.assert_close(vrmse(u, v.mean(0), spatial=2), oracle["vrmse"], rtol=1e-5, atol=0)
    torch.testing.assert_close(vrmse(u, v, spatial=2), oracle["vrmse_member"], rtol=1e-5, atol=0)


def test_constant_offset_is_the_rmse():
    u = torch.randn(3, 8, 12)
    torch.testing.assert_close(rmse(u, u + 0.5, spatial=2), torch.full((3,), 0.5))


def test_normalisations_of_a_field_with_known_moments():
    u = torch.tensor([1.0, 3.0]).repeat(8, 4)  # mean 2, mean square 5, variance 64 / 63
    assert nrmse(u, u + 1, spatial=2).item() == pytest.approx(5**-0.5, rel=1e-6)
    assert vrmse(u, u + 1, spatial=2).item() == pytest.approx((63 / 64) ** 0.5, rel=1e-6)
    assert vrmse(u, torch.full_like(u, 2.0), spatial=2).item() == pytest.approx((63 / 64) ** 0.5, rel=1e-6)


@pytest.mark.parametrize("grid", [(9,), (6, 10), (4, 5, 6)])
@pytest.mark.parametrize("metric", [rmse, nrmse, vrmse])
def test_leading_axes_broadcast(grid, metric):
    u, v = torch.randn(3, *grid), torch.randn(2, 3, *grid)
    scores = metric(u, v, spatial=len(grid))
    assert scores.shape == (2, 3)
    torch.testing.assert_close(scores[1, 2], metric(u[2], v[1, 2], spatial=len(grid)))


def test_spread_of_two_opposite_members():
    mean, half = torch.randn(5, 7), torch.rand(5, 7)
    expected = 3**0.5 * half.square().mean().sqrt()
    torch.testing.assert_close(spread(torch.stack([mean - half, mean + half]), spatial=2), expected)


@pytest.mark.parametrize("members", [2, 5, 16])
def test_exchangeable_truth_has_ratio_one(members):
    draws = torch.randn(members + 1, 400, 400, generator=torch.Generator().manual_seed(members))
    ratio = spread_skill_ratio(draws[0], draws[1:], spatial=2).item()
    assert ratio == pytest.approx(1, abs=0.01)


def test_skill_is_of_the_mean():
    u, noise = torch.randn(6, 6), torch.randn(6, 6)
    torch.testing.assert_close(skill(u, torch.stack([u + noise, u - noise]), spatial=2), torch.tensor(0.0))


def test_one_member_has_no_spread():
    with pytest.raises(DataError, match="2 members or more, not 1"):
        spread(torch.randn(1, 4, 4), spatial=2)


def test_stability_is_lost_for_good():
    truth = torch.tensor([0.0, 1.0]).repeat(3, 6, 4)[:, :, None].expand(-1, -1, 8, -1)  # range [0, 1]
    members = truth.repeat(4, 1, 1, 1, 1)
    members[0, 1, 2, 3, 3] = torch.nan
    members[1, 1, 4, 0, 0] = 2.01
    members[2, 1, 0, 0, 0] = -0.99
    members[3, 2, 5] = -torch.inf
    shares = stability(truth, members, spatial=2)
    assert shares.tolist() == [[1] * 6, [1, 1, 0.75, 0.75, 0.5, 0.5], [1] * 5 + [0.75]]
