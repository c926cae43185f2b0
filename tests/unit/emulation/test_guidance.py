"""Guidance against a linear-Gaussian posterior, and through networks.

For x ~ N(mu, S) and y = H x + eps, eps ~ N(0, I), x given y has mean mu + K (y - H mu) and covariance
S - K H S, K = S H^T (H S H^T + I)^-1. With the exact E[x | x_t], MMPS gives E[x | x_t, y] exactly, so that
the flow of a Gaussian, which is linear, gives the moments of all draws.
"""

import pytest
import torch
from azula.denoise import Denoiser, DiracPosterior

from lola.core.errors import ConfigError
from lola.core.seeding import SampleGenerator
from lola.emulation.guidance import guided_sampler
from lola.emulation.guidance_config import GuidanceConfig
from lola.emulation.sampling_config import SamplerConfig
from lola.models.schedule_config import ScheduleConfig

D = 4
SCHEDULE = ScheduleConfig()
H = torch.tensor([[2.0, 0.0, 0.0, 0.0], [0.0, 1.0, 1.0, 0.0]], dtype=torch.float64)
Y = torch.tensor([1.0, -1.5], dtype=torch.float64)


class Gaussian(Denoiser):
    """E[x | x_t] of a Gaussian, whose covariance may be the identity."""

    def __init__(self, white=False):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        root = torch.randn(D, D, generator=generator, dtype=torch.float64)
        identity = torch.eye(D, dtype=torch.float64)
        self.mean = torch.randn(D, generator=generator, dtype=torch.float64)
        self.covariance = identity if white else root @ root.T / D + 0.1 * identity
        self.schedule = SCHEDULE.build()

    def forward(self, x_t, t):
        alpha, sigma = self.schedule(t)
        total = alpha**2 * self.covariance + sigma**2 * torch.eye(D)
        gain = alpha * self.covariance @ torch.linalg.inv(total)
        return DiracPosterior(mean=self.mean + (x_t - alpha * self.mean) @ gain.T)

    def posterior(self):
        gain = self.covariance @ H.T @ torch.linalg.inv(H @ self.covariance @ H.T + torch.eye(2))
        return self.mean + gain @ (Y - H @ self.mean), self.covariance - gain @ H @ self.covariance


def observe(x):
    return x @ H.T


def build(config, sampler, rows, generator=None, white=False):
    built = guided_sampler(config, Gaussian(white), Y.expand(rows, 2), observe, sampler, generator)
    built.dtype = torch.float64
    return built


@pytest.mark.parametrize(
    ("name", "white", "solver"),
    [("mmps", False, "gmres"), ("mmps", False, "cg"), ("pgdm", True, "gmres"), ("jfps", True, "gmres")],
)
def test_draws_have_the_mean_and_covariance_of_the_exact_posterior(name, white, solver):
    points = 1e3 * torch.cat((torch.zeros(1, D), torch.eye(D))).double()
    config = GuidanceConfig(name=name, solver=solver, iterations=2)
    sampler = SamplerConfig(steps=96, order=2, name="exponential_data", spacing="log_snr")
    values = build(config, sampler, len(points), white=white)(points)
    mean, covariance = Gaussian(white).posterior()
    matrix = (values[1:] - values[0]).T
    torch.testing.assert_close(values[0], mean, atol=1e-2, rtol=0)
    torch.testing.assert_close(matrix @ matrix.T, covariance, atol=1e-2, rtol=0)


@pytest.mark.parametrize("name", ["mmps", "pgdm", "jfps", "dps"])
def test_every_method_moves_draws_towards_the_posterior_and_keeps_rows_apart(name):
    integrator = "ddpm" if name == "dps" else "exponential_data"
    sampler = SamplerConfig(name=integrator, steps=48, spacing="log_snr")
    config = GuidanceConfig(name=name, **({"strength": 0.5} if name == "dps" else {}))

    def draw(keys):
        x_1 = 1e3 * SampleGenerator([("start", key) for key in keys]).normal(D).double()
        generator = SampleGenerator([("noise", key) for key in keys])
        return build(config, sampler, len(keys), generator)(x_1)

    draws = draw(range(256))
    mean, _ = Gaussian().posterior()
    goal = Y if name == "dps" else observe(mean)  # dps knows nothing of the noise
    assert (observe(draws.mean(0)) - goal).norm() < 0.4 * (observe(Gaussian().mean) - goal).norm()
    torch.testing.assert_close(draw([7, 3]), draws[[7, 3]], atol=1e-5, rtol=1e-5)


def test_what_is_not_given_is_the_methods_own():
    assert GuidanceConfig().to_json() == GuidanceConfig(solver="gmres", iterations=3).to_json()
    assert GuidanceConfig.from_json(GuidanceConfig(name="dps").to_json()).options == {"strength": 1.0}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "magic"}, "'magic'"),
        ({"name": "tmpd"}, "no guidance is called 'tmpd'"),
        ({"name": "dps", "iterations": 2}, "dps takes no --iterations"),
        ({"strength": 1.0}, "mmps takes no --strength"),
        ({"iterations": 0}, "--iterations must be in"),
        ({"name": "dps", "strength": 0.0}, "--strength must be in"),
    ],
)
def test_impossible_configurations(values, message):
    with pytest.raises(ConfigError, match=message):
        GuidanceConfig(**values)


def test_dps_guides_ddpm_alone():
    with pytest.raises(ConfigError, match="ddpm alone, not adams_bashforth"):
        build(GuidanceConfig(name="dps"), SamplerConfig(), 1)
