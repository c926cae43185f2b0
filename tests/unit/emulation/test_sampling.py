"""The samplers against Gaussians and mixtures, whose posteriors are known exactly.

For x ~ N(mu, S) the flow is linear: it maps x_1 - alpha_1 mu to A (x_1 - alpha_1 mu) with
A = (alpha_1^2 S + sigma_1^2)^(-1/2) (alpha_0^2 S + sigma_0^2)^(1/2), where alpha_0 = 1 to covariance
S + sigma_0^2.
"""

import math

import pytest
import torch
from azula.denoise import Denoiser, DiracPosterior
from azula.sample import REABSampler
from torch import nn

from lola.core.config import fingerprint
from lola.core.errors import ConfigError
from lola.core.seeding import SampleGenerator
from lola.emulation.sampling import arrange
from lola.emulation.sampling_config import METHODS, SamplerConfig
from lola.models.diffusion import ConditionedDenoiser, WindowDenoiser
from lola.models.schedule_config import ScheduleConfig

SCHEDULE = ScheduleConfig()
D = 4


@pytest.fixture
def gaussian():
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(D, D, generator=generator, dtype=torch.float64)
    mean = torch.randn(D, generator=generator, dtype=torch.float64)
    return mean, root @ root.T / D + 0.1 * torch.eye(D, dtype=torch.float64)


class ExactDenoiser(Denoiser):
    """E[x | x_t] of a Gaussian."""

    def __init__(self, mean, covariance, schedule=SCHEDULE):
        super().__init__()
        self.mean, self.covariance = mean, covariance
        self.schedule = schedule.build()

    def forward(self, x_t, t):
        alpha, sigma = self.schedule(t)
        total = alpha**2 * self.covariance + sigma**2 * torch.eye(D)
        gain = alpha * self.covariance @ torch.linalg.inv(total)
        return DiracPosterior(mean=self.mean + (x_t - alpha * self.mean) @ gain.T)

    def flow(self, x_1):
        """The exact solution of the probability flow at t = 0."""
        ends = torch.tensor([1.0, 0.0], dtype=torch.float64)
        (alpha_1, alpha_0), (sigma_1, sigma_0) = self.schedule(ends)
        values, vectors = torch.linalg.eigh(self.covariance)
        stretch = ((alpha_0**2 * values + sigma_0**2) / (alpha_1**2 * values + sigma_1**2)).sqrt()
        matrix = vectors @ torch.diag(stretch) @ vectors.T
        return alpha_0 * self.mean + (x_1 - alpha_1 * self.mean) @ matrix.T


class MixtureDenoiser(Denoiser):
    """E[x | x_t] of the mixture of N(m, v) and N(-m, v) in shares 0.7 and 0.3."""

    mean, variance, shares = torch.tensor([1.0, -2.0]), 0.09, torch.tensor([0.7, 0.3])

    def __init__(self):
        super().__init__()
        self.schedule = SCHEDULE.build()

    def forward(self, x_t, t):
        alpha, sigma = self.schedule(t)
        total = alpha**2 * self.variance + sigma**2
        centres = torch.stack((self.mean, -self.mean))
        rest = x_t[:, None] - alpha * centres
        weights = torch.softmax(self.shares.log() - rest.square().sum(-1) / (2 * total), dim=1)
        means = centres + alpha * self.variance / total * rest
        return DiracPosterior(mean=(weights[..., None] * means).sum(1))


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


NARROW = {"sigma_min": 0.05, "sigma_max": 20.0}  # where 64 steps are enough for the leading term of errors


def errors(config, denoiser, method=None):
    """The largest errors against the exact flow with 64 and with 128 evaluations."""
    _, sigma = denoiser.schedule(torch.ones(()))
    x_1 = sigma * torch.randn(16, D, generator=torch.Generator().manual_seed(1)).double()
    result = []
    for steps in (64, 128):
        finer = config.replace(steps=steps)
        build = finer.build if method is None else arrange(finer, method, denoiser, None)
        sampler = build(denoiser)
        sampler.dtype = torch.float64
        result.append((sampler(x_1) - denoiser.flow(x_1)).abs().max().item())
    return result


DETERMINISTIC = [
    *(
        (name, {"order": order}, order)
        for name, m in METHODS.items()
        for order in (1, 2)
        if "order" in m.options
    ),
    ("euler", {}, 1),
    ("ddim", {}, 1),
    ("ito", {"eta": 0.0}, 1),
    ("heun", {}, 2),
]


@pytest.mark.parametrize("schedule", ["log_linear", "rectified"])
@pytest.mark.parametrize(("name", "options", "order"), DETERMINISTIC)
def test_deterministic_methods_converge_to_the_exact_flow_at_their_order(
    gaussian, schedule, name, options, order
):
    denoiser = ExactDenoiser(*gaussian, ScheduleConfig(name=schedule, **NARROW))
    coarse, fine = errors(SamplerConfig(name=name, spacing="log_snr", **options), denoiser)
    assert abs(math.log2(coarse / fine) - order) < 0.15
    assert fine < {1: 0.05, 2: 5e-3}[order]


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if "order" in method.options])
def test_third_order_methods_are_the_most_accurate(gaussian, name):
    """They start with steps of lower order, so that their slope falls to 2 for ever more steps."""
    denoiser = ExactDenoiser(*gaussian, ScheduleConfig(name="log_linear", **NARROW))
    second, third = (
        errors(SamplerConfig(name=name, spacing="log_snr", order=order), denoiser) for order in (2, 3)
    )
    assert third[0] < second[0] / 4
    assert third[1] < second[1] / 4
    assert math.log2(third[0] / third[1]) > 1.7


def test_the_rosenbrock_method_is_mended_while_azulas_own_is_of_first_order(gaussian):
    config = SamplerConfig(name="exponential_rosenbrock", spacing="log_snr")
    denoiser = ExactDenoiser(*gaussian, ScheduleConfig(name="log_linear", **NARROW))
    coarse, fine = errors(config, denoiser, REABSampler)
    assert math.log2(coarse / fine) < 1.2, "azula has mended its method: drop ours"


@pytest.mark.parametrize("spacing", ["time", "log_snr", "power", "angle"])
def test_the_published_method_converges_with_every_spacing(gaussian, spacing):
    denoiser = ExactDenoiser(*gaussian, ScheduleConfig(name="log_logit", **NARROW))
    coarse, fine = errors(SamplerConfig(spacing=spacing), denoiser)
    assert fine < coarse / 3
    assert fine < 5e-3


@pytest.mark.parametrize("name", ["log_logit", "log_linear", "rectified"])
@pytest.mark.parametrize(
    ("spacing", "even"),
    [
        ({"spacing": "log_snr"}, torch.log),
        ({"spacing": "power"}, lambda rho: rho ** (1 / 7)),
        ({"spacing": "power", "exponent": 2.0}, torch.sqrt),
        ({"spacing": "angle"}, torch.atan),
    ],
)
def test_steps_are_evenly_spaced_in_what_they_say(gaussian, name, spacing, even):
    denoiser = ExactDenoiser(*gaussian, ScheduleConfig(name=name, **NARROW))
    sampler = SamplerConfig(steps=8, **spacing).build(denoiser)
    sampler.dtype = torch.float64
    times = sampler.timesteps
    assert (times[0], times[-1], len(times)) == (1, 0, 9)
    alpha, sigma = denoiser.schedule(times)
    steps = even(sigma / alpha).diff()
    torch.testing.assert_close(steps, steps.mean().expand(8), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    "options",
    [
        *({"name": name} for name in METHODS if name not in ("ito", "predictor_corrector", "ddpm")),
        {"name": "ddpm", "steps": 256},
        {"name": "ddim", "eta": 0.5, "steps": 128},
        {"name": "ito", "steps": 256},
        {"name": "ito", "eta": 0.5, "steps": 256},
        {"name": "predictor_corrector", "steps": 256},
        {"name": "predictor_corrector", "corrections": 3, "delta": 0.05, "steps": 256},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_draws_have_the_moments_of_a_mixture(options):
    torch.manual_seed(0)
    denoiser = MixtureDenoiser()
    config = SamplerConfig(**({"steps": 64, "spacing": "log_snr"} | options))
    x = config.build(denoiser)(1e3 * torch.randn(4096, 2))
    first = denoiser.shares[0]
    mean = (2 * first - 1) * denoiser.mean
    covariance = (
        denoiser.variance * torch.eye(2) + torch.outer(denoiser.mean, denoiser.mean) - torch.outer(mean, mean)
    )
    # Four standard errors of the mean, and the bias of so many steps
    assert (x.mean(0) - mean).abs().max() < 4 * covariance.max().sqrt() / 4096**0.5 + 0.02
    torch.testing.assert_close(torch.cov(x.T), covariance, atol=0.2, rtol=0)
    side = x @ denoiser.mean > 0
    assert abs(side.float().mean() - first) < 0.03
    torch.testing.assert_close(x[side].var(0).mean(), torch.tensor(denoiser.variance), atol=0.02, rtol=0)


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.stochastic])
def test_noise_is_drawn_from_the_stream_of_each_row(gaussian, name):
    def draw(keys):
        x_1 = SampleGenerator([("start", key) for key in keys]).normal(D).double()
        config = SamplerConfig(name=name, steps=8, spacing="power")
        sampler = config.build(ExactDenoiser(*gaussian), SampleGenerator([(key,) for key in keys]))
        sampler.dtype = torch.float64
        return sampler(x_1)

    state = torch.get_rng_state()
    together = draw([0, 1, 2])
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(draw([2, 0]), together[[2, 0]])


def test_conditioned_draws_have_the_conditional_mean_and_covariance(gaussian):
    mean, covariance = gaussian
    known = torch.tensor([True, False, False, True])
    value = torch.tensor([1.0, 0.0, 0.0, -0.5], dtype=torch.float64)
    denoiser = WindowDenoiser(ExactNetwork(mean, covariance), SCHEDULE.build())

    def draw(x_1):
        n = len(x_1)
        conditioned = ConditionedDenoiser(
            denoiser, value.expand(n, 1, D), known.expand(n, 1, D), torch.zeros(n, 0, dtype=torch.float64)
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


@pytest.mark.parametrize("name", METHODS)
def test_steps_are_network_evaluations(gaussian, name):
    denoiser = ExactDenoiser(*gaussian)
    calls = []
    denoiser.register_forward_hook(lambda *_: calls.append(1))
    sampler = SamplerConfig(name=name, steps=6).build(denoiser)
    sampler.dtype = torch.float64
    sampler(torch.zeros(1, D, dtype=torch.float64))
    assert len(calls) == 6


def test_fingerprints_know_only_what_differs_from_the_published_sampler():
    assert SamplerConfig().to_json() == {"name": "adams_bashforth", "order": 3, "steps": 16}
    assert fingerprint(SamplerConfig()) == fingerprint(SamplerConfig(order=3, spacing="time"))
    assert SamplerConfig(spacing="power").to_json() == SamplerConfig(spacing="power", exponent=7.0).to_json()
    configs = [
        SamplerConfig(),
        SamplerConfig(order=2),
        SamplerConfig(spacing="power"),
        SamplerConfig(spacing="power", exponent=2.0),
        SamplerConfig(name="ddim"),
        SamplerConfig(name="ddim", eta=0.5),
    ]
    assert len({fingerprint(config) for config in configs}) == len(configs)
    assert len({config.title for config in configs}) == len(configs)
    for config in configs:
        assert SamplerConfig.from_json(config.to_json()).to_json() == config.to_json()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "magic"}, "'magic'"),
        ({"spacing": "odd"}, "'odd'"),
        ({"order": 0}, "order"),
        ({"steps": 0}, "steps"),
        ({"name": "euler", "order": 2}, "euler takes no --order"),
        ({"eta": 0.5}, "adams_bashforth takes no --eta"),
        ({"name": "ddim", "eta": 1.5}, "eta of ddim must be from 0 to 1"),
        ({"name": "ito", "eta": -1.0}, "--eta must be in"),
        ({"name": "ito", "temperature": 0.0}, "temperature"),
        ({"name": "heun", "steps": 5}, "multiple"),
        ({"name": "predictor_corrector", "corrections": 2, "steps": 16}, "3 times"),
        ({"name": "predictor_corrector", "corrections": 0}, "corrections"),
        ({"name": "predictor_corrector", "delta": 1.0}, "delta"),
        ({"exponent": 2.0}, "exponent"),
        ({"spacing": "power", "exponent": 0.0}, "exponent"),
    ],
)
def test_impossible_configurations(values, message):
    with pytest.raises(ConfigError, match=message):
        SamplerConfig(**values)


@pytest.mark.parametrize("name", METHODS)
def test_titles_are_read_back(name):
    options = METHODS[name].options
    given = [{}] + [
        {option: value / 2 if option in ("eta", "delta") else value + 1} for option, value in options.items()
    ]
    for changes in given:
        for spacing in (
            {},
            {"spacing": "angle"},
            {"spacing": "power"},
            {"spacing": "power", "exponent": 2.5},
        ):
            config = SamplerConfig(name=name, steps=12, **changes, **spacing)
            assert SamplerConfig.titled(config.title, 12).to_json() == config.to_json()
            one = SamplerConfig.titled(config.title)
            assert one.steps == one.cost


@pytest.mark.parametrize(
    ("title", "message"),
    [
        ("magic", "no sampler is called 'magic'"),
        ("euler-order2", "takes no --order"),
        ("heun-fast", "no option 'fast'"),
        ("exponential_data-order2-order3", "no option 'order3'"),
        ("exponential_data-angle-order3", "no option 'order3'"),
        ("exponential_data-order2.5", "order must be an integer"),
        ("ddim-eta1.2.3", "'1.2.3' is no number"),
        ("heun-power-much", "'much' is no number"),
        ("heun-power-0", "--exponent must be in"),
    ],
)
def test_titles_of_no_sampler_are_refused(title, message):
    with pytest.raises(ConfigError, match=message):
        SamplerConfig.titled(title)
