"""The sampler against Gaussians, whose posteriors and probability flow are known exactly.

For x ~ N(mu, S) the flow is linear: it maps x_1 to mu + A (x_1 - mu) with
A = S^(1/2) (S + sigma_1^2)^(-1/2) (S + sigma_0^2)^(1/2) S^(-1/2), so that x_0 has covariance S + sigma_0^2.
"""

import pytest
import torch
from azula.denoise import DiracPosterior
from torch import nn

from lola.diffusion import WindowDenoiser
from lola.errors import ConfigError
from lola.sampling import SamplerConfig
from lola.schedule import ScheduleConfig

SCHEDULE = ScheduleConfig()
D = 4


@pytest.fixture
def gaussian():
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(D, D, generator=generator, dtype=torch.float64)
    mean = torch.randn(D, generator=generator, dtype=torch.float64)
    return mean, root @ root.T / D + 0.1 * torch.eye(D, dtype=torch.float64)


class ExactDenoiser(nn.Module):
    """E[x | x_t] of a Gaussian."""

    def __init__(self, mean, covariance):
        super().__init__()
        self.mean, self.covariance = mean, covariance
        self.schedule = SCHEDULE.build()

    def forward(self, x_t, t):
        _, sigma = self.schedule(t)
        gain = self.covariance @ torch.linalg.inv(self.covariance + sigma**2 * torch.eye(D))
        return DiracPosterior(mean=self.mean + (x_t - self.mean) @ gain.T)


class ExactNetwork(nn.Module):
    """The network F whose denoiser is E[x | x_t, known x] of a Gaussian over the L states of a window."""

    def __init__(self, mean, covariance):
        super().__init__()
        self.mean, self.covariance = mean, covariance

    def forward(self, x, noise, mask, label):
        sigma = torch.exp(noise / 10)
        known = mask.expand_as(x)[0, 0]
        # Observations: known states exactly, the others with noise sigma
        observed = torch.where(known, x[:, 0], x[:, 0] * torch.sqrt(1 + sigma**2))
        noise_covariance = torch.diag(torch.where(known, 0.0, sigma**2))
        gain = self.covariance @ torch.linalg.inv(self.covariance + noise_covariance)
        mean = self.mean + (observed - self.mean) @ gain.T
        return ((mean - observed / (1 + sigma**2)) * torch.sqrt(1 + sigma**2) / sigma)[:, None]


def affine(function):
    """Offset and matrix of an affine function of R^D."""
    points = torch.cat((torch.zeros(1, D, dtype=torch.float64), torch.eye(D, dtype=torch.float64)))
    values = function(1e3 * points)
    return values[0], (values[1:] - values[0]).T / 1e3


def test_draws_have_the_mean_and_covariance_of_the_data(gaussian):
    mean, covariance = gaussian
    sampler = SamplerConfig(steps=64).build(ExactDenoiser(mean, covariance))
    sampler.dtype = torch.float64
    offset, matrix = affine(sampler)
    torch.testing.assert_close(offset, mean, atol=5e-3, rtol=0)
    torch.testing.assert_close(1e6 * matrix @ matrix.T, covariance, atol=5e-3, rtol=5e-3)


def test_the_error_falls_with_the_steps(gaussian):
    mean, covariance = gaussian
    errors = []
    for steps in (8, 16, 32, 64):
        sampler = SamplerConfig(steps=steps).build(ExactDenoiser(mean, covariance))
        sampler.dtype = torch.float64
        _, matrix = affine(sampler)
        errors.append((1e6 * matrix @ matrix.T - covariance).norm().item())
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 30


def test_third_order_beats_first_order(gaussian):
    errors = []
    for order in (1, 3):
        sampler = SamplerConfig(steps=32, order=order).build(ExactDenoiser(*gaussian))
        sampler.dtype = torch.float64
        _, matrix = affine(sampler)
        errors.append((1e6 * matrix @ matrix.T - gaussian[1]).norm().item())
    assert errors[1] < errors[0] / 3


def test_conditioned_draws_have_the_conditional_mean_and_covariance(gaussian):
    mean, covariance = gaussian
    known = torch.tensor([True, False, False, True])
    value = torch.tensor([1.0, 0.0, 0.0, -0.5], dtype=torch.float64)
    denoiser = WindowDenoiser(ExactNetwork(mean, covariance), SCHEDULE.build())

    def draw(x_1):
        n = len(x_1)
        conditioned = denoiser.condition(
            value.expand(n, 1, D), known.expand(n, 1, D), torch.zeros(n, 0, dtype=torch.float64)
        )
        sampler = SamplerConfig(steps=128).build(conditioned)
        sampler.dtype = torch.float64
        return sampler(x_1[:, None])[:, 0]

    offset, matrix = affine(draw)
    u, k = ~known, known
    gain = covariance[u][:, k] @ torch.linalg.inv(covariance[k][:, k])
    torch.testing.assert_close(offset[u], mean[u] + gain @ (value - mean)[k], atol=5e-3, rtol=0)
    conditional = covariance[u][:, u] - gain @ covariance[k][:, u]
    torch.testing.assert_close(1e6 * (matrix @ matrix.T)[u][:, u], conditional, atol=5e-3, rtol=5e-3)


def test_steps_are_network_evaluations(gaussian):
    denoiser = ExactDenoiser(*gaussian)
    calls = []
    denoiser.register_forward_hook(lambda *_: calls.append(1))
    sampler = SamplerConfig(steps=7).build(denoiser)
    sampler.dtype = torch.float64
    sampler(torch.zeros(1, D, dtype=torch.float64))
    assert len(calls) == 7


@pytest.mark.parametrize(
    ("values", "message"),
    [({"name": "magic"}, "'magic'"), ({"order": 0}, "order"), ({"steps": 0}, "steps")],
)
def test_impossible_configurations(values, message):
    with pytest.raises(ConfigError, match=message):
        SamplerConfig(**values)
