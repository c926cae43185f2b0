"""Scores on uneven and bounded grids: against repeated cells, integrals and SciPy."""

import numpy as np
import pytest
import torch
from scipy.fft import dctn
from scipy.stats import wasserstein_distance

from lola.data.geometry import infer_axis, quadrature_weights
from lola.data.systems import Boundary
from lola.evaluation.scores.conservation import drift
from lola.evaluation.scores.ensemble import score_ensemble
from lola.evaluation.scores.increments import increment_scores
from lola.evaluation.scores.quadrature import Domain, GridAxis, grid_axes
from lola.evaluation.scores.spectra import Binning, cosine_transform

PERIODIC, WALLS = (Boundary.PERIODIC,) * 2, (Boundary.WALL,) * 2


def roots(n):
    """Chebyshev nodes of the unit interval."""
    return (1 - np.cos(np.pi * (np.arange(n) + 0.5) / n)) / 2


def axes_of(*axes):
    """Of coordinates and boundaries."""
    x, boundary = zip(*axes, strict=True)
    kinds = [infer_axis("xyz"[i], each) for i, each in enumerate(x)]
    return grid_axes(kinds, x, np.array(boundary))


def scored(u, v, axes=(), valid=None, eps=0.0):
    scores, statistics = score_ensemble({"u": u}, v, spatial=u.ndim, axes=axes, valid=valid, eps=eps)
    return scores["u"].metrics | scores["u"].spectra | {"edges": scores["u"].edges}, statistics


@pytest.mark.parametrize("members", [1, 5])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("ties", [False, True])
def test_a_cell_of_weight_three_is_three_cells(members, masked, ties):
    generator = torch.Generator().manual_seed(0)
    repeats = torch.tensor([1, 3, 2, 1, 5, 4])
    u = torch.randn(9, 6, generator=generator).double()
    v = torch.randn(members, 9, 6, generator=generator).double()
    if ties:
        v[0, 2:4] = u[2:4]
    valid = torch.rand(9, 6, generator=generator) > 0.3 if masked else None
    weights = tuple((repeats / repeats.sum()).tolist())
    found, own = scored(u, v, (GridAxis(), GridAxis("none", weights)), valid)
    wide = [x.repeat_interleave(repeats, -1) for x in (u, v)]
    wide_valid = None if valid is None else valid.repeat_interleave(repeats, -1)
    expected, whole = scored(*wide, (GridAxis(), GridAxis("none")), wide_valid)
    bessel = expected["variance"] / found["variance"]
    for name in ("skill", "nrmse", "crps", "energy", "correlation", "power_truth", "power_prediction"):
        torch.testing.assert_close(found[name], expected[name], msg=name)
    torch.testing.assert_close(found["vrmse"], expected["vrmse"] * bessel.sqrt())
    torch.testing.assert_close(found["coherence"], expected["coherence"])
    torch.testing.assert_close(own.means, whole.means)
    if members > 1:
        for name in ("spread", "interval_50", "coverage_90", "rank_histogram", "spread_low"):
            torch.testing.assert_close(found[name], expected[name], msg=name)
    if valid is None:
        domain = Domain.of(u, 2, (GridAxis(), GridAxis("none", weights)))
        pairs = [(x.flatten(-2), y.flatten(-2)) for x, y in zip((u, v), wide, strict=True)]
        narrow = [torch.stack([x, x.sin() + x.roll(1, -1)], -2).unsqueeze(-3) for x, _ in pairs]
        one = increment_scores(*narrow, domain.weights)
        rows = [x.unflatten(-1, (9, 6)).repeat_interleave(repeats, -1).flatten(-2) for x in narrow]
        other = increment_scores(*rows)
        torch.testing.assert_close(one["autocorrelation"], other["autocorrelation"])
        ratio = (144 / 143) ** 0.5  # Bessel's
        torch.testing.assert_close(one["increments"], other["increments"] * ratio)


def test_increments_are_those_of_scipy():
    generator = torch.Generator().manual_seed(1)
    u, v = torch.randn(1, 2, 40, generator=generator), torch.randn(2, 1, 2, 40, generator=generator)
    weights = torch.rand(40, generator=generator).double()
    weights /= weights.sum()
    changes = [x.diff(dim=-2).flatten(-2).double().numpy() for x in (u, v)]
    deviation = np.sqrt(np.cov(changes[0][0], aweights=weights.numpy(), ddof=0))
    expected = np.mean(
        [wasserstein_distance(changes[0][0], each[0], weights, weights) for each in changes[1]]
    )
    found = increment_scores(u, v, weights)["increments"]
    assert found.item() == pytest.approx(expected / deviation, rel=1e-5)


def test_the_energy_score_of_blocks_takes_weights():
    """One block is the whole grid; of two, each counts by its weight."""
    generator = torch.Generator().manual_seed(2)
    u, v = torch.randn(12, generator=generator).double(), torch.randn(4, 12, generator=generator).double()
    weights = torch.rand(12, generator=generator).double()
    weights /= weights.sum()
    scores = []
    for part in (slice(0, 8), slice(8, 12)):
        own = tuple((weights[part] / weights[part].sum()).tolist())
        found, _ = scored(u[part], v[:, part], (GridAxis("cosine", own),))
        torch.testing.assert_close(found["energy_block"], found["energy"])
        scores.append(found["energy"] * weights[part].sum())
    whole, _ = scored(u, v, (GridAxis("cosine", tuple(weights.tolist())),))
    torch.testing.assert_close(whole["energy_block"], sum(scores))


def test_vrmse_on_chebyshev_nodes_is_that_of_the_continuous_field():
    """u = sin(pi z) cos(2 pi x), v = z u: by quadrature the value is right at once, by cells it never is."""
    z = np.linspace(0, 1, 100_001)
    error = np.trapezoid(((1 - z) * np.sin(np.pi * z)) ** 2, z)
    expected = np.sqrt(error / np.trapezoid(np.sin(np.pi * z) ** 2, z))
    off = {}
    for n in (8, 32, 128):
        x, z = np.arange(2 * n) / (2 * n), roots(n)
        axes = axes_of((x, PERIODIC), (z, WALLS))
        u = np.cos(2 * np.pi * x)[:, None] * np.sin(np.pi * z)
        truth, prediction = torch.from_numpy(u), torch.from_numpy(u * z)[None]
        for name, each in (("quadrature", axes), ("cells", ())):
            weights = Domain.of(truth, 2, each).weights
            bessel = 1 - (1 / u.size if weights is None else weights.square().sum().item())
            found = scored(truth, prediction, each)[0]["vrmse"].item() / bessel**0.5
            off[name, n] = abs(found - expected)
    assert off["quadrature", 8] < 1e-4
    assert max(off["quadrature", 32], off["quadrature", 128]) < 1e-9
    assert off["cells", 32] == pytest.approx(off["cells", 128], rel=1e-9)
    assert off["cells", 32] > 0.004


def test_a_conserved_integral_does_not_drift_where_the_mean_over_cells_does():
    z = roots(24)
    before, after = torch.from_numpy(1 + 6 * z * (1 - z)), torch.from_numpy(1 + 2 * z)  # of integral 2
    domain = Domain.of(before, 1, axes_of((z, WALLS)))
    _, statistics = scored(before, after[None], domain.axes)
    assert drift(before[None], statistics.means[:, None, None], spatial=1, weights=domain.weights) < 1e-14
    assert drift(before[None], after.mean().reshape(1, 1, 1), spatial=1) > 0.05


def test_shear_flow_and_resampled_convection_need_no_weights():
    x, z = np.arange(64) / 16, (np.arange(32) + 0.5) / 32
    assert axes_of((x, PERIODIC), (x, PERIODIC)) == (GridAxis(), GridAxis())
    assert axes_of((x, PERIODIC), (z, WALLS)) == (GridAxis(), GridAxis("cosine"))
    convection = axes_of((x, PERIODIC), (roots(32), WALLS))
    assert convection[0] == GridAxis()
    assert convection[1].transform == "none"
    assert np.allclose(convection[1].weights, quadrature_weights("chebyshev", roots(32)), rtol=1e-3)
    assert axes_of((roots(32), WALLS))[0].transform == "cosine"


@pytest.mark.parametrize("n", [1, 2, 7, 8])
def test_the_cosine_transform_is_that_of_scipy(n):
    x = torch.randn(3, n, 5).double()
    found = cosine_transform(cosine_transform(x, -2), -1)
    np.testing.assert_allclose(found, dctn(x.numpy(), axes=(1, 2), norm="ortho"), atol=1e-12)


@pytest.mark.parametrize("wave", [1, 5, 20, 63])
def test_a_cosine_between_walls_lands_in_its_bin(wave):
    n = 64
    mode = torch.cos(torch.pi * wave * (torch.arange(n, dtype=torch.float64) + 0.5) / n)
    found, _ = scored(mode, mode[None], (GridAxis("cosine"),))
    k, power = found["edges"], found["power_truth"]
    peak = int(power.argmax())
    assert k[peak] - k[0] < wave / (2 * n) <= k[peak]
    assert power.sum() - power[peak] < 1e-20 * power[peak]
    leaked = scored(mode, mode[None])[0]["power_truth"]
    if wave % 2:  # half a wave more jumps from one end to the other
        assert leaked.sum() - leaked.max() > 0.05 * leaked.max()


@pytest.mark.parametrize(
    "axes", [("cosine", "cosine"), ("fourier", "none"), ("none", "fourier"), ("fourier", "cosine")]
)
def test_white_noise_is_flat_and_bands_add_up(axes):
    """Parseval, but for what has no wave."""
    generator = torch.Generator().manual_seed(3)
    kinds = tuple(GridAxis(each) for each in axes)
    u, v = torch.randn(1000, 24, 30, generator=generator).double(), torch.zeros(1, 1000, 24, 30).double()
    scores = score_ensemble({"u": u}, v, spatial=2, axes=kinds)[0]["u"]
    power = scores.spectra["power_truth"]
    torch.testing.assert_close(power.mean(0), torch.ones(power.shape[-1]).double(), rtol=0, atol=0.1)
    without = u - u.mean([d for d, axis in ((-2, axes[0]), (-1, axes[1])) if axis != "none"], keepdim=True)
    total = (power * Binning.of(u, kinds).counts).sum(-1)
    torch.testing.assert_close(total, without.square().sum((1, 2)))
