import math

import pytest
import scipy.stats
import torch

from lola.core.errors import ConfigError
from lola.core.seeding import SampleGenerator
from lola.models.schedule_config import ScheduleConfig, TimePriorConfig

NAMES = ["log_logit", "log_linear", "rectified"]
T = torch.linspace(0, 1, 101, dtype=torch.float64)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ends", [(1e-3, 1e3), (2e-2, 80.0)])
def test_noise_over_signal_runs_from_end_to_end_and_rises(name, ends):
    alpha, sigma = ScheduleConfig(name=name, sigma_min=ends[0], sigma_max=ends[1]).build()(T)
    ratio = sigma / alpha
    torch.testing.assert_close(ratio[[0, -1]], torch.tensor(ends, dtype=torch.float64))
    assert (ratio.diff() > 0).all()
    assert alpha.shape == sigma.shape == T.shape


@pytest.mark.parametrize("name", NAMES)
def test_scales_are_finite_and_positive_in_single_precision(name):
    for t in (torch.linspace(0, 1, 7), torch.tensor(1.0), torch.zeros(2, 1)):
        for scale in ScheduleConfig(name=name).build()(t):
            assert scale.shape == t.shape
            assert scale.dtype == torch.float32
            assert scale.isfinite().all()
            assert (scale > 0).all()


def test_the_rectified_schedule_is_linear_and_nearly_that_of_the_flow():
    alpha, sigma = ScheduleConfig(name="rectified").build()(T)
    torch.testing.assert_close(alpha + sigma, torch.ones_like(T))
    torch.testing.assert_close(sigma.diff(), sigma.diff()[:1].expand(100))
    assert (sigma - T).abs().max() <= 1e-3


@pytest.mark.parametrize("ends", [(1e-3, 1e3), (2e-2, 80.0)])
def test_log_logit_is_the_rectified_schedule_up_to_scale(ends):
    values = {"sigma_min": ends[0], "sigma_max": ends[1]}
    alpha, sigma = ScheduleConfig(name="rectified", **values).build()(T)
    one, ratio = ScheduleConfig(**values).build()(T)
    torch.testing.assert_close(one, torch.ones_like(T))
    torch.testing.assert_close(ratio, sigma / alpha)


def test_log_linear_is_linear_in_the_logarithm():
    alpha, sigma = ScheduleConfig(name="log_linear").build()(T)
    torch.testing.assert_close(alpha, torch.ones_like(T))
    torch.testing.assert_close(sigma.log().diff(), torch.full_like(T[1:], math.log(1e6) / 100))


def test_scale_and_shift_act_on_the_logarithm():
    _, plain = ScheduleConfig().build()(T)
    _, moved = ScheduleConfig(scale=0.5, shift=-1.0).build()(T)
    torch.testing.assert_close(moved.log(), 0.5 * plain.log() - 1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sigma_min": 0.0}, "--sigma-min must be in"),
        ({"sigma_min": 2.0, "sigma_max": 1.0}, "--sigma-min must be below --sigma-max"),
        ({"sigma_max": math.inf}, "finite"),
        ({"scale": 0.0}, "--scale must be in"),
        ({"scale": 9.0}, "take noise over signal out of the range of single precision"),
        ({"name": "cosine"}, "'cosine'"),
        ({"name": "rectified", "shift": 1.0}, "rectified has none"),
    ],
)
def test_impossible_schedules(values, message):
    with pytest.raises(ConfigError, match=message):
        ScheduleConfig(**values)


PRIORS = [
    (TimePriorConfig(), scipy.stats.uniform(0, 1)),
    (TimePriorConfig(a=0.2, b=0.7), scipy.stats.uniform(0.2, 0.5)),
    (TimePriorConfig(name="beta", a=2.5, b=0.7), scipy.stats.beta(2.5, 0.7)),
    (TimePriorConfig(name="beta", a=0.3, b=4.0), scipy.stats.beta(0.3, 4.0)),
]


def draws(prior, n=4000):
    t = prior.draw(SampleGenerator([(11, i) for i in range(n)]))
    assert t.shape == (n,)
    assert t.dtype == torch.float32
    assert t.min() >= 0
    assert t.max() <= 1
    return t.double()


@pytest.mark.parametrize(("prior", "expected"), PRIORS)
def test_priors_are_those_of_scipy(prior, expected):
    t = draws(prior)
    assert scipy.stats.kstest(t.numpy(), expected.cdf).pvalue > 0.01
    assert abs(t.mean().item() - expected.mean()) < 4 * expected.std() / math.sqrt(len(t))


@pytest.mark.parametrize(("a", "b"), [(2.0, 3.0), (0.5, 0.5), (4.0, 1.0)])
def test_kumaraswamy_moments_are_those_of_the_closed_form(a, b):
    """E[t^n] = b B(1 + n / a, b)."""
    t = draws(TimePriorConfig(name="kumaraswamy", a=a, b=b))
    for n in (1, 2, 3):
        beta = math.gamma(1 + n / a) * math.gamma(b) / math.gamma(1 + n / a + b)
        assert abs((t**n).mean().item() - b * beta) < 4 * (t**n).std().item() / math.sqrt(len(t))


@pytest.mark.parametrize("name", ["beta", "kumaraswamy"])
def test_exponents_of_one_are_the_uniform_prior(name):
    torch.testing.assert_close(draws(TimePriorConfig(name=name, a=1.0, b=1.0)), draws(TimePriorConfig()))


@pytest.mark.parametrize("name", ["uniform", "beta", "kumaraswamy"])
def test_a_time_depends_on_its_own_key_alone(name):
    prior = TimePriorConfig(name=name, a=0.5, b=0.8)
    keys = [(3, i) for i in range(6)]
    assert torch.equal(prior.draw(SampleGenerator(keys))[4:], prior.draw(SampleGenerator(keys[4:])))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "normal"}, "'normal'"),
        ({"a": 0.5, "b": 0.5}, "0 <= --a < --b <= 1"),
        ({"b": 2.0}, "0 <= --a < --b <= 1"),
        ({"name": "beta"}, "a beta prior needs an --a above 0"),
        ({"name": "kumaraswamy", "a": 1.0, "b": math.inf}, "--b must be a finite number"),
    ],
)
def test_impossible_priors(values, message):
    with pytest.raises(ConfigError, match=message):
        TimePriorConfig(**values)
