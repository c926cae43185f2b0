"""Anomaly correlations and valid times that are known."""

import math

import pytest
import torch

from lola.evaluation.scores.anomalies import anomaly_correlation, share_valid
from lola.evaluation.scores.increments import increment_scores


def test_a_wave_that_drifts_is_valid_until_its_phase_is_wrong():
    """A damped wave with a phase error of d t has a correlation of cos(d t) with the truth."""
    x, t = 2 * math.pi * torch.arange(64).double() / 64, torch.arange(1, 13).double()[:, None]
    climate = 3 + torch.cos(5 * x)
    u, v = climate + torch.cos(x - t), climate + torch.exp(-t) * torch.cos(x - 1.1 * t)
    found = anomaly_correlation(u, v, climate.expand_as(u))
    torch.testing.assert_close(found, torch.cos(0.1 * t[:, 0]))
    assert share_valid(found).tolist() == [1.0] * 6 + [0.0] * 6  # cos 0.6 = 0.83, cos 0.7 = 0.76


def test_persistence_of_an_autoregression_has_a_known_correlation():
    """x' = a x + sqrt(1 - a^2) e has the correlation a^t with its start, and a with the state before."""
    generator, a = torch.Generator().manual_seed(0), 0.9
    states = [torch.randn(400_000, generator=generator)]
    for _ in range(5):
        noise = torch.randn(400_000, generator=generator)
        states.append(a * states[-1] + (1 - a * a) ** 0.5 * noise)
    u = torch.stack(states)
    held = u[:1].expand_as(u)
    found = anomaly_correlation(u[1:], held[1:], torch.zeros_like(u[1:]))
    torch.testing.assert_close(found, a ** torch.arange(1.0, 6), atol=0.006, rtol=0)
    change = increment_scores(u[None], held[None, None])["autocorrelation"]
    torch.testing.assert_close(change, torch.full((1, 5), 1 - a), atol=0.006, rtol=0)


def test_what_was_lost_stays_lost():
    correlation = torch.tensor([[0.9, 0.7, 0.9, 0.9], [0.9, math.nan, 1.0, 1.0], [0.8, 1.0, 1.0, 0.79]])
    assert share_valid(correlation).tolist() == [[1, 0, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]]


def test_the_climate_itself_has_no_anomaly():
    climate = torch.randn(2, 10)
    assert anomaly_correlation(torch.randn(2, 10), climate, climate).tolist() == [0.0, 0.0]


def test_cells_count_by_their_weights():
    generator = torch.Generator().manual_seed(1)
    u, v, climate = torch.randn(3, 6, generator=generator).double()
    repeats = torch.tensor([1, 2, 1, 4, 1, 1])
    wide = [x.repeat_interleave(repeats) for x in (u, v, climate)]
    found = anomaly_correlation(u, v, climate, repeats / repeats.sum())
    assert found.item() == pytest.approx(anomaly_correlation(*wide).item(), rel=1e-6)
