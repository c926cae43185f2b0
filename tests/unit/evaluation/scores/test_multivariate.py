"""Scores of whole fields and of intervals against scoringrules, closed forms and calibrated ensembles."""

import itertools

import numpy as np
import pytest
import scoringrules
import torch
from scipy.stats import norm

from lola.evaluation.scores.ensemble import score_ensemble
from lola.evaluation.scores.intervals import COVERAGES, nominal_coverage
from lola.evaluation.scores.multivariate import BLOCK, LAGS, block_energy_score, member_distances
from lola.evaluation.scores.quadrature import GridAxis
from lola.evaluation.scores.spectra import Binning, bands_of
from lola.models.ensemble_scores import energy_scores, weighted_mean


@pytest.mark.parametrize("members", [2, 5, 16])
def test_energy_and_variogram_scores_are_those_of_scoringrules(members, scores_of):
    u, v = torch.randn(9, 10).double(), torch.randn(members, 9, 10).double()
    found = scores_of(u[None], v[:, None], spatial=2)
    flat = u.flatten().numpy(), v.flatten(1).numpy()
    expected = scoringrules.es_ensemble(*flat, estimator="fair") / np.sqrt(90)
    assert found["energy"].item() == pytest.approx(expected, rel=1e-12)
    expected = 0.0
    for i, j in itertools.product((slice(0, BLOCK), slice(BLOCK, None)), repeat=2):
        block = u[i, j].flatten().numpy(), v[:, i, j].flatten(1).numpy()
        size = block[0].size
        expected += size / 90 * scoringrules.es_ensemble(*block, estimator="fair") / np.sqrt(size)
    assert found["energy_block"].item() == pytest.approx(expected, rel=1e-12)

    row, column = (axis.flatten() for axis in np.indices((9, 10)))
    apart = [np.abs(each[:, None] - each) for each in (row, column)]
    pairs = (np.isin(apart[0], LAGS) & (apart[1] == 0)) | (np.isin(apart[1], LAGS) & (apart[0] == 0))
    expected = scoringrules.vs_ensemble(*flat, w=pairs / pairs.sum())
    assert found["variogram"].item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("grid", [(16,), (19, 8), (5, 9, 10)])
def test_objective_and_score_are_of_the_same_blocks(grid, scores_of):
    generator = torch.Generator().manual_seed(0)
    u, v = (
        torch.randn(*grid, generator=generator).double(),
        torch.randn(4, *grid, generator=generator).double(),
    )
    objective, cells = energy_scores(v[None, :, None, None], u[None, None, None], 1.0, BLOCK)
    found = scores_of(u[None], v[:, None], spatial=len(grid))
    torch.testing.assert_close(found["energy_block"].squeeze(), weighted_mean(objective, cells))


@pytest.mark.parametrize("members", [3, 10, 40])
def test_interval_scores_are_those_of_scoringrules(members, scores_of):
    u, v = torch.randn(3, 20).double(), torch.randn(members, 3, 20).double()
    found = scores_of(u, v, spatial=1)
    for coverage in COVERAGES:
        tail = (1 - coverage) / 2
        low, high = np.quantile(v.numpy(), [tail, 1 - tail], axis=0, method="weibull")
        alpha = 1 - nominal_coverage(coverage, members)
        expected = scoringrules.interval_score(u.numpy(), low, high, alpha).mean(-1)
        np.testing.assert_allclose(found[f"interval_{100 * coverage:.0f}"], expected, rtol=1e-12)


def test_the_fair_energy_score_of_a_gaussian_does_not_depend_on_the_members():
    """In one dimension it is the CRPS, which is known in closed form."""
    generator = torch.Generator().manual_seed(0)
    u = torch.full((200_000, 1), 1.2).double()
    v = 0.3 + 1.7 * torch.randn(5, 200_000, 1, generator=generator).double()
    z = (1.2 - 0.3) / 1.7
    closed = 1.7 * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / np.sqrt(np.pi))
    for members in (2, 5):
        drawn = v[:members]
        distances = member_distances(drawn - drawn.mean(0), 1, None)[1]
        found = block_energy_score((drawn - u).square(), distances, 1, None)
        assert found.mean().item() == pytest.approx(closed, rel=0.01)


@pytest.mark.parametrize("members", [2, 8, 30])
def test_calibrated_ensembles_cover_what_is_nominal_and_are_reliable_in_every_band(members, scores_of):
    draws = torch.randn(members + 1, 300, 300, generator=torch.Generator().manual_seed(members))
    scale = torch.linspace(0.2, 3, 300)  # the spread differs from cell to cell
    found = scores_of(scale * draws[0], scale * draws[1:], spatial=2)
    for coverage in COVERAGES:
        expected = nominal_coverage(coverage, members)
        assert found[f"coverage_{100 * coverage:.0f}"].item() == pytest.approx(expected, abs=0.006)
    for band in ("mid", "high", "tail"):
        ratio = found[f"spread_{band}"] / found[f"skill_{band}"]
        assert ratio.item() == pytest.approx(1, abs=0.03)
    if members == 30:
        ratios = found["binned_spread"] / found["binned_skill"]
        torch.testing.assert_close(ratios, torch.ones(8), atol=0.1, rtol=0)


def test_nominal_coverage():
    assert nominal_coverage(0.5, 16) == pytest.approx(0.5)
    assert nominal_coverage(0.9, 16) == pytest.approx(15 / 17)  # 16 members cannot cover more
    assert nominal_coverage(0.9, 19) == pytest.approx(0.9)
    assert nominal_coverage(0.9, 2) == pytest.approx(1 / 3)


def test_bands_add_up_to_the_whole(scores_of):
    """Parseval: the squared error is that of the mean and of all modes in bands."""
    u, v = torch.randn(16, 24).double(), torch.randn(4, 16, 24).double()
    found = scores_of(u, v, spatial=2)
    binning = Binning.of(u, (GridAxis(),) * 2)
    total = (v.mean(0) - u).mean().square() * u.numel()
    for name, bins in bands_of(tuple(binning.edges.tolist())).items():
        total += found[f"skill_{name}"].square() * binning.counts[bins].sum()
    assert total.item() == pytest.approx(found["skill"].square().item() * u.numel())


def test_rough_members_are_seen_by_blocks_and_variograms(scores_of):
    """Values exchanged among members, cell by cell: the CRPS stays, and the members' structure is lost."""
    generator = torch.Generator().manual_seed(0)
    row, column = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    phases = 2 * torch.pi * torch.rand(17, 2, 1, 1, generator=generator)
    smooth = torch.sin(row / 5 + phases[:, 0]) + torch.cos(column / 4 + phases[:, 1])
    order = torch.rand(16, 32, 32, generator=generator).argsort(0)
    ordered = scores_of(smooth[0], smooth[1:], spatial=2)
    rough = scores_of(smooth[0], smooth[1:].gather(0, order), spatial=2)
    torch.testing.assert_close(rough["crps"], ordered["crps"])
    for name in ("energy_block", "variogram"):
        assert rough[name] > 1.05 * ordered[name]


def test_correlation_and_variance(scores_of):
    u = torch.randn(3, 8, 9).double()
    found = scores_of(u, torch.stack([2 * u + 1, 4 * u - 5]), spatial=2)
    torch.testing.assert_close(found["correlation"], torch.ones(3).double())
    torch.testing.assert_close(found["variance"], u.flatten(1).var(1))
    torch.testing.assert_close(scores_of(u, -u[None], spatial=2)["correlation"], -torch.ones(3).double())


@pytest.mark.parametrize("unit", [1e-3, 1e4])
def test_scores_without_unit_do_not_depend_on_it_if_eps_does(unit):
    u, v = torch.randn(2, 3, 16, 16).double(), torch.randn(4, 2, 3, 16, 16).double()
    scale = torch.tensor([1.0, unit]).reshape(2, 1, 1, 1).double()
    eps = 1e-6 * scale.square().reshape(2, 1)
    plain = score_ensemble({"u": u}, v, spatial=2)[0]["u"].metrics
    scaled = score_ensemble({"u": scale * u}, scale * v, spatial=2, eps=eps)[0]["u"].metrics
    for name in ("vrmse", "vrmse_member", "nrmse", "spectrum_rmse_high", "correlation", "coverage_50"):
        torch.testing.assert_close(scaled[name], plain[name], rtol=1e-9, atol=0)


def test_cells_outside_of_the_domain_change_no_score():
    valid = torch.ones(16, 16, dtype=torch.bool)
    valid[8:, 4:] = False
    u, v = torch.randn(2, 16, 16).double(), torch.randn(5, 2, 16, 16).double()
    one = score_ensemble({"u": u}, v, spatial=2, valid=valid)[0]["u"].metrics
    other = score_ensemble(
        {"u": u.masked_fill(~valid, 7.0)}, v.masked_fill(~valid, -3.0), spatial=2, valid=valid
    )[0]["u"].metrics
    for name, expected in one.items():
        torch.testing.assert_close(other[name], expected, rtol=1e-9, atol=1e-12)
    flat = u[0][valid].numpy(), v[:, 0][:, valid].numpy()
    expected = scoringrules.es_ensemble(*flat, estimator="fair") / np.sqrt(len(flat[0]))
    assert one["energy"][0].item() == pytest.approx(expected, rel=1e-12)
