import math

import numpy as np
import pytest
import torch
from scipy.signal import csd

from lola.evaluation.scores.spectra import BANDS, band_limits

GRIDS = [(16, 16), (15, 21), (40, 64), (8, 12, 10), (9, 7, 8)]


def modes(grid):
    """Wavenumber of every mode of the whole transform, and its bin by comparing with the edges."""
    k = np.sqrt(sum(axis**2 for axis in np.meshgrid(*map(np.fft.fftfreq, grid), indexing="ij")))
    count = math.floor(math.sqrt(len(grid)) / 2 * min(grid))
    edges = math.sqrt(len(grid)) / 2 / count * np.arange(count + 1)
    return k, np.searchsorted(edges + 1e-12, k), count


@pytest.fixture
def power_spectrum(scores_of):
    """The power of a field by bin, and the bins' upper edges."""

    def power_spectrum(field, *, spatial):
        found = scores_of(field, field[None], spatial=spatial)
        return found["power_truth"], found["edges"]

    return power_spectrum


@pytest.fixture
def spectrum_rmse(scores_of):
    """The relative error of the members' power, by band."""

    def spectrum_rmse(truth, members, *, spatial):
        found = scores_of(truth, members, spatial=spatial)
        return {name: found[f"spectrum_rmse_{name}"] for name in BANDS}

    return spectrum_rmse


@pytest.fixture
def coherence(scores_of):
    """The coherence of members with the truth, and the bins' upper edges."""

    def coherence(truth, members, *, spatial):
        found = scores_of(truth, members, spatial=spatial)
        return found["coherence"], found["edges"]

    return coherence


def test_oracle(oracle, power_spectrum, spectrum_rmse):
    power, k = power_spectrum(oracle["u"], spatial=2)
    torch.testing.assert_close(power, oracle["psd_u"], rtol=1e-4, atol=0)
    torch.testing.assert_close(k, oracle["k"], rtol=1e-6, atol=0)
    assert band_limits(k[0].item()) == pytest.approx(oracle["bands"].tolist(), rel=1e-5)
    for band, error in spectrum_rmse(oracle["u"], oracle["v"], spatial=2).items():
        torch.testing.assert_close(error, oracle[f"psd_rmse_{band}"], rtol=1e-4, atol=0)


@pytest.mark.parametrize("grid", GRIDS)
def test_equals_binning_the_whole_transform(grid, power_spectrum):
    u = torch.randn(2, *grid, dtype=torch.float64)
    power, k = power_spectrum(u, spatial=len(grid))
    _, bins, count = modes(grid)
    squares = np.abs(np.fft.fftn(u[1].numpy(), norm="ortho")) ** 2
    expected = [squares[bins == i].mean() for i in range(1, count + 1)]
    assert power.shape == (2, count)
    assert k.shape == (count,)
    np.testing.assert_allclose(power[1].numpy(), expected, rtol=1e-10)
    assert k[-1].item() == pytest.approx(math.sqrt(len(grid)) / 2)


@pytest.mark.parametrize("grid", GRIDS)
def test_parseval(grid, power_spectrum):
    u = torch.randn(*grid, dtype=torch.float64) + 3
    _, bins, count = modes(grid)
    power, _ = power_spectrum(u, spatial=len(grid))
    total = (power.numpy() * np.bincount(bins.flatten(), minlength=count + 1)[1:]).sum()
    assert total == pytest.approx((u - u.mean()).square().sum().item(), rel=1e-10)


@pytest.mark.parametrize("cycles", [1, 7, 16, 31])
def test_a_wave_peaks_in_its_bin(cycles, power_spectrum):
    x = torch.arange(64, dtype=torch.float64) / 64
    wave = torch.cos(2 * torch.pi * cycles * x).expand(64, 64)
    power, k = power_spectrum(wave, spatial=2)
    peak = int(power.argmax())
    assert k[peak] - k[0] < cycles / 64 <= k[peak]
    assert power.sum() - power[peak] < 1e-20


def test_white_noise_is_flat(power_spectrum):
    power, _ = power_spectrum(torch.randn(400, 32, 32, generator=torch.Generator().manual_seed(1)), spatial=2)
    torch.testing.assert_close(power.mean(0), torch.ones(power.shape[-1]), rtol=0, atol=0.1)


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_scaling_a_field_has_a_known_error(factor, spectrum_rmse):
    u = 100 * torch.randn(2, 3, 24, 24, dtype=torch.float64)
    errors = spectrum_rmse(u, (factor * u)[None], spatial=2)
    assert tuple(errors) == BANDS
    for error in errors.values():
        torch.testing.assert_close(
            error, torch.full((2, 3), abs(factor**2 - 1)).double(), rtol=1e-6, atol=1e-9
        )


def test_members_are_averaged_in_power_not_in_field(spectrum_rmse):
    u = 10 * torch.randn(24, 24, dtype=torch.float64)
    flipped = spectrum_rmse(u, torch.stack([u, -u]), spatial=2)
    assert all(error < 1e-9 for error in flipped.values())
    louder = spectrum_rmse(u, torch.stack([u, 3 * u]), spatial=2)
    assert all(error == pytest.approx(4, rel=1e-4) for error in louder.values())


def test_bands_are_equally_wide_in_logarithm():
    limits = band_limits(1 / 64)
    assert limits[0] == pytest.approx(1 / 64)
    assert limits[-1] == pytest.approx(1 / 2)
    assert np.diff(np.log(limits)) == pytest.approx(np.full(3, math.log(32) / 3))


def test_a_band_sees_only_its_scales(spectrum_rmse):
    x = torch.arange(64, dtype=torch.float64) / 64
    u = torch.randn(64, 64, dtype=torch.float64)
    errors = spectrum_rmse(u, (u + 20 * torch.cos(2 * torch.pi * 2 * x))[None], spatial=2)
    assert errors["low"] > 100
    assert max(errors[band] for band in BANDS[1:]) < 1e-9


def test_coherence_of_what_is_proportional_is_one(coherence):
    u = torch.randn(2, 20, 24, dtype=torch.float64)
    for members in (u[None], torch.stack([-3 * u]), torch.stack([u, u])):
        torch.testing.assert_close(
            coherence(u, members, spatial=2)[0], torch.ones(2, 14, dtype=torch.float64)
        )


def test_phases_of_their_own_have_no_coherence(coherence):
    generator = torch.Generator().manual_seed(0)
    u, v = torch.randn(128, 128, generator=generator), torch.randn(16, 128, 128, generator=generator)
    found, k = coherence(u, v, spatial=2)
    many = (k > 0.1) & (k <= 0.5)  # hundreds of modes a bin
    assert found[many].max() < 0.06  # every mode's modulus first would give pi / 4
    assert found[many].mean() < 0.02


@pytest.mark.parametrize("signal", [0.5, 1.0, 2.0])
def test_coherence_of_a_noisy_member_is_the_share_of_the_signal(signal, coherence):
    generator = torch.Generator().manual_seed(1)
    u, noise = torch.randn(2, 256, 256, generator=generator, dtype=torch.float64)
    found, k = coherence(u, (signal * u + noise)[None], spatial=2)
    expected = signal / (1 + signal**2) ** 0.5
    assert found[(k > 0.1) & (k <= 0.5)].mean().item() == pytest.approx(expected, abs=0.01)


def test_a_field_without_waves_has_no_coherence(coherence):
    assert coherence(torch.zeros(8, 8), torch.ones(2, 8, 8), spatial=2)[0].isnan().all()


def test_power_and_coherence_are_those_of_scipy(scores_of):
    """On one axis every bin holds one wavenumber."""
    u, v = torch.randn(33, dtype=torch.float64), torch.randn(3, 33, dtype=torch.float64)
    found = scores_of(u, v, spatial=1)
    options = {"window": "boxcar", "nperseg": 33, "detrend": False, "return_onesided": False}
    crossed = np.mean([csd(u, member, **options)[1] for member in v], axis=0)[1:17]
    power = csd(u, u, **options)[1].real[1:17]
    prediction = np.mean([csd(member, member, **options)[1].real for member in v], axis=0)[1:17]
    np.testing.assert_allclose(found["power_truth"], power, rtol=1e-9)
    np.testing.assert_allclose(found["power_prediction"], prediction, rtol=1e-9)
    np.testing.assert_allclose(
        found["coherence"], np.abs(crossed.real) / np.sqrt(power * prediction), rtol=1e-9
    )
