"""Unrolled samplers against azula's own, on a network that is linear in its input."""

from typing import get_args

import torch
from azula.denoise import Denoiser, DiracPosterior
from hypothesis import given, settings
from hypothesis import strategies as st

from lola.emulation.sampling_config import METHODS, SamplerConfig, Spacing
from lola.models.schedule_config import ScheduleConfig
from lola.models.unrolled import unroll

DETERMINISTIC = [name for name, method in METHODS.items() if not method.stochastic]


def network(y, noise):
    """Something that depends on its input and the noise level."""
    return torch.tanh(y) * torch.cos(torch.as_tensor(noise) / 10) + y.flip(0) / 3


class Network(Denoiser):
    def __init__(self, schedule):
        super().__init__()
        self.schedule = schedule

    def forward(self, x_t, t):
        alpha, sigma = self.schedule(t)
        noise = 10 * torch.log(sigma / alpha)
        alpha, sigma = alpha.double(), sigma.double()
        square = alpha**2 + sigma**2
        output = network(x_t * torch.rsqrt(square), noise)
        return DiracPosterior(mean=alpha / square * x_t + sigma * torch.rsqrt(square) * output)


def run(steps, noise):
    inputs, outputs = [noise], []
    for step in steps:
        outputs.insert(0, network(inputs[0], step.noise))
        ends = *zip(step.inputs, inputs, strict=False), *zip(step.outputs, outputs, strict=False)
        inputs.insert(0, sum(weight * tensor for weight, tensor in ends))
    return inputs[0]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(DETERMINISTIC),
    schedule=st.sampled_from(["log_logit", "log_linear", "rectified"]),
    spacing=st.sampled_from(get_args(Spacing)),
    order=st.integers(1, 4),
    count=st.integers(1, 10),
)
def test_steps_give_the_sampler(name, schedule, spacing, order, count):
    options = {"order": order} if "order" in METHODS[name].options else {}
    evaluations = count * SamplerConfig(name=name, steps=2).cost
    config = SamplerConfig(name=name, steps=evaluations, spacing=spacing, **options)
    schedule = ScheduleConfig(name=schedule).build()
    noise = torch.randn(6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    alpha, sigma = schedule(torch.ones(()))
    expected = config.build(Network(schedule))(torch.hypot(alpha.double(), sigma.double()) * noise)
    steps = unroll(config.build, schedule, config.steps)
    assert len(steps) == evaluations
    torch.testing.assert_close(run(steps, noise), expected, rtol=1e-7, atol=1e-7)


def test_a_method_of_several_steps_looks_back_no_further():
    schedule = ScheduleConfig().build()
    for order in (1, 2, 3):
        steps = unroll(SamplerConfig(steps=12, order=order).build, schedule, 12)
        assert max(len(step.inputs) for step in steps) == order


def test_steps_are_the_same_in_inference_mode():
    schedule, config = ScheduleConfig().build(), SamplerConfig(steps=4)
    with torch.inference_mode():
        steps = unroll(config.build, schedule, 4)
    assert steps == unroll(config.build, schedule, 4)
