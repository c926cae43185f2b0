"""Statistics of many states against closed forms, SciPy and one pass over all of them."""

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance

from lola.evaluation.scores.ensemble import score_ensemble
from lola.evaluation.scores.quadrature import GridAxis
from lola.evaluation.scores.spectra import bands_of
from lola.evaluation.scores.stationary import Range, Statistics

AXES = (GridAxis(), GridAxis("none", tuple(np.array([1, 2, 3, 2]) / 8)))


def statistics_of(x, bounds=None, axes=AXES, **options):
    low, high = x.flatten(2).amin((0, 2)), x.flatten(2).amax((0, 2))
    found = Statistics(bounds or Range.around(low, high), axes, **options)
    for part in x.split(3):
        found.add(part)
    return found


def test_distances_are_those_of_all_values_at_once():
    generator = torch.Generator().manual_seed(0)
    u, v = torch.randn(2, 10, 2, 6, 4, generator=generator)
    v = 1.5 * v + torch.tensor([0.3, -2.0]).reshape(2, 1, 1)
    truth = statistics_of(u)
    found = statistics_of(v, truth.bounds).compare(truth, ("a", "b"))
    weights = np.broadcast_to(AXES[1].weights, (10, 6, 4)).ravel()
    for i, name in enumerate("ab"):
        cells = [x[:, i].numpy().ravel() for x in (u, v)]
        expected = wasserstein_distance(*cells, weights, weights)
        deviation = np.sqrt(np.cov(cells[0], aweights=weights, ddof=0))
        assert found["wasserstein"][name] == pytest.approx(expected / deviation, rel=0.01)
    same = statistics_of(u, truth.bounds).compare(truth, ("a", "b"))
    assert tuple(same) == ("wasserstein", "spectrum_rmse_low", "spectrum_rmse_mid", "spectrum_rmse_tail")
    assert all(values == {"a": 0.0, "b": 0.0} for values in same.values())


def test_normal_distributions_have_a_distance_in_closed_form():
    """Of a shift m it is |m|, of a scale s it is |s - 1| sqrt(2 / pi)."""
    generator = torch.Generator().manual_seed(1)
    u, v, w = torch.randn(3, 100, 1, 40, 50, generator=generator)
    axes = (GridAxis(),) * 2
    truth = statistics_of(u, axes=axes)
    shifted, wider = (statistics_of(x, truth.bounds, axes) for x in (v + 0.4, 1.3 * w))
    assert shifted.compare(truth, "a")["wasserstein"]["a"] == pytest.approx(0.4, abs=0.01)
    assert wider.compare(truth, "a")["wasserstein"]["a"] == pytest.approx(0.3 * (2 / np.pi) ** 0.5, abs=0.01)
    errors = wider.compare(truth, "a")
    for band in ("low", "mid", "high", "tail"):
        assert errors[f"spectrum_rmse_{band}"]["a"] == pytest.approx(0.69, abs=0.12)


def test_spectra_are_averaged_before_they_are_compared():
    generator = torch.Generator().manual_seed(2)
    u, v = torch.randn(2, 7, 1, 12, 4, generator=generator)
    truth = statistics_of(u)
    found = statistics_of(v, truth.bounds).compare(truth, "a")
    power = []
    for x in (u, v):
        scores, _ = score_ensemble({"x": x}, x[None], spatial=2, axes=AXES)
        power.append(scores["x"].spectra["power_truth"].mean((0, 1)))
    for band, bins in bands_of(tuple(truth.edges.tolist())).items():
        if bins:
            error = (power[1] / power[0] - 1)[bins].square().mean().sqrt().item()
            assert found[f"spectrum_rmse_{band}"]["a"] == pytest.approx(error, rel=1e-4)


def test_the_heat_flux_of_a_convection_roll():
    """b = 1 - z + a sin(pi z) cos(2 pi x), w = c sin(pi z) cos(2 pi x): <b w> = a c / 4 exactly."""
    n, z = 16, (1 - np.cos(np.pi * (np.arange(16) + 0.5) / 16)) / 2
    weights = np.linalg.solve(np.vander(z, increasing=True).T, 1 / np.arange(1, n + 1))
    roll = np.cos(2 * np.pi * np.arange(n) / n)[:, None] * np.sin(np.pi * z)
    states = np.stack([1 - z + 0.4 * roll, 0.3 * roll])[None].repeat(2, 0)
    axes = (GridAxis(), GridAxis("none", tuple((weights / weights.sum()).tolist())))
    x = torch.from_numpy(states)
    bounds = Range(torch.zeros(2).double() - 1, torch.ones(2).double())
    found = Statistics(bounds, axes, flux=(0, 1))
    found.add(x, torch.tensor([100.0, 300.0]).double())
    assert found.mean_flux == pytest.approx(200 * 0.4 * 0.3 / 4, rel=1e-9)
    plain = Statistics(bounds, (GridAxis(),) * 2, flux=(0, 1))
    plain.add(x)
    assert abs(plain.mean_flux / 0.03 - 1) > 0.1  # nodes are dense where the flow is slow


def test_parts_add_up_and_a_mask_leaves_cells_out():
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(6, 2, 6, 4, generator=generator)
    valid = torch.ones(6, 4, dtype=torch.bool)
    valid[1:3, 1:3] = False
    whole = statistics_of(x, valid=valid, flux=(0, 1))
    parts = [statistics_of(each, whole.bounds, valid=valid, flux=(0, 1)) for each in x.split(4)]
    both = parts[0] + parts[1]
    assert both.states == 6
    for name in ("counts", "moments", "power"):
        torch.testing.assert_close(getattr(both, name), getattr(whole, name))
    assert both.mean_flux == pytest.approx(whole.mean_flux)
    other = torch.where(valid, x, torch.tensor(5.0))
    torch.testing.assert_close(statistics_of(other, whole.bounds, valid=valid).counts, whole.counts)


def test_stable_states_stay_near_the_truth():
    bounds = Range.around(torch.tensor([0.0, -1.0]), torch.tensor([1.0, 1.0]))
    states = torch.zeros(5, 2, 3)
    states[1, 0, 1], states[2, 0, 1], states[3, 1, 2], states[4, 1, 0] = 1.9, 2.1, -3.1, torch.nan
    assert bounds.contains(states).tolist() == [True, True, False, False, False]
