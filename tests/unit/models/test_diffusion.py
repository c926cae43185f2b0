import math

import pytest
import torch
from gradients import without_gradient
from torch import nn

from lola.core.seeding import SampleGenerator
from lola.data.state import Batch
from lola.emulation.sampling_config import SamplerConfig
from lola.models.diffusion import ConditionedDenoiser, WindowDenoiser
from lola.models.diffusion_config import DiffusionConfig
from lola.models.masks import context_mask
from lola.models.schedule_config import ScheduleConfig, TimePriorConfig
from lola.models.transformer_config import TransformerConfig
from lola.models.unet_config import UNetConfig

SMALL = DiffusionConfig(network=TransformerConfig(features=16, blocks=2, heads=2, modulation=8, dropout=0.0))
UNET = SMALL.replace(network=UNetConfig(channels=(8, 16), blocks=(1, 1), modulation=8, dropout=0.0))
KEYS = [(3, i) for i in range(5)]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def batch():
    return Batch(states=torch.randn(5, 3, 4, 4, 6), parameters=torch.randn(5, 2))


@pytest.fixture(params=[SMALL, UNET], ids=["transformer", "unet"])
def model(request):
    return request.param.build(channels=3, parameters=2, spatial=2, window=4).eval()


class Recorder(nn.Module):
    """A network that answers with a constant and remembers what it was given."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x, noise, mask, label):
        self.x, self.noise = x, noise
        return torch.full_like(x, self.answer)


def test_preconditioning():
    network = Recorder(answer=0.7)
    denoiser = WindowDenoiser(network, ScheduleConfig().build())
    x_t, t = torch.randn(2, 3, 4, 5, 6), torch.tensor([0.3, 0.8])
    sigma = denoiser.schedule(t)[1]
    q = denoiser(x_t, t, label=torch.zeros(2, 1), mask=torch.zeros(2, 1, 4, 1, 1, dtype=torch.bool))
    torch.testing.assert_close(network.noise, 10 * sigma.log())
    s = sigma.reshape(2, 1, 1, 1, 1)
    torch.testing.assert_close(network.x, x_t / (1 + s**2).sqrt())
    torch.testing.assert_close(q.mean, x_t / (1 + s**2) + 0.7 * s / (1 + s**2).sqrt())
    torch.testing.assert_close(q.var, s**2 / (1 + s**2))


@pytest.mark.parametrize("schedule", ["log_logit", "log_linear", "rectified"])
@pytest.mark.parametrize("t", [0.0, 0.5, 1.0])
def test_known_elements_enter_without_noise_and_come_out_as_observed(schedule, t):
    network = Recorder(answer=0.7)
    denoiser = WindowDenoiser(network, ScheduleConfig(name=schedule).build())
    known, x_t = torch.randn(2, 2, 3, 4, 5, 6)
    mask = context_mask(known, 2)
    q = ConditionedDenoiser(denoiser, known, mask, torch.zeros(2, 1))(x_t, torch.tensor(t))
    torch.testing.assert_close(network.x[:, :, :2], known[:, :, :2])
    assert torch.equal(q.mean[:, :, :2], known[:, :, :2])
    assert q.mean.isfinite().all()
    assert q.var.min() > 0
    assert network.noise.isfinite().all()
    assert not torch.allclose(q.mean[:, :, 2:], known[:, :, 2:], atol=0.1)


@pytest.mark.parametrize("schedule", ["log_logit", "log_linear", "rectified"])
def test_loss_of_a_silent_network_is_known(schedule):
    """With F = 0 the error of an unknown element is c_skip x_t - x = c_skip (sigma eps - sigma^2 x)."""
    config = SMALL.replace(schedule=ScheduleConfig(name=schedule))
    model = config.build(channels=3, parameters=2, spatial=2, window=4)
    model.denoiser.backbone = Recorder(answer=0.0)
    n = 4000
    data = Batch(states=torch.randn(n, 3, 4, 4, 6), parameters=torch.zeros(n, 2))
    _, diagnostics = model.loss(data, SampleGenerator([(0, i) for i in range(n)]))
    # Its variance over v, at alpha = 1: (sigma^2 + sigma^4) / (1 + sigma^2)^2 * (1 + sigma^2) / sigma^2 = 1
    assert abs(diagnostics["unknown_loss"].item() - 1) < 0.01


def test_loss_of_a_batch_is_the_weighted_mean_of_its_slices(model, batch):
    total, diagnostics = model.loss(batch, SampleGenerator(KEYS))
    value = unknown = 0.0
    for part in (slice(0, 2), slice(2, 5)):
        piece = Batch(states=batch.states[part], parameters=batch.parameters[part])
        loss, more = model.loss(piece, SampleGenerator(KEYS[part]))
        value, unknown = value + len(piece) / 5 * loss, unknown + len(piece) / 5 * more["unknown_loss"]
    torch.testing.assert_close(total, value)
    torch.testing.assert_close(diagnostics["unknown_loss"], unknown)


def test_times_are_those_of_the_prior(batch):
    """A prior that is all but a point: the network sees that point's noise level alone."""
    config = SMALL.replace(times=TimePriorConfig(a=0.25, b=0.25 + 1e-6))
    model = config.build(channels=3, parameters=2, spatial=2, window=4)
    model.denoiser.backbone = network = Recorder(answer=0.0)
    model.loss(batch, SampleGenerator(KEYS))
    _, sigma = config.schedule.build()(torch.tensor(0.25))
    torch.testing.assert_close(network.noise, (10 * sigma.log()).expand(5), atol=1e-3, rtol=0)


@pytest.mark.parametrize("schedule", ["log_linear", "rectified"])
def test_other_schedules_draw_too(batch, schedule):
    model = SMALL.replace(schedule=ScheduleConfig(name=schedule)).build(3, 2, 2, 4).eval()
    x, mask = batch.states, context_mask(batch.states, 2)
    with torch.no_grad():
        y = model.predict(x, mask, batch.parameters, SampleGenerator(KEYS), SamplerConfig(steps=8).build)
    assert torch.equal(y[:, :, :2], x[:, :, :2])
    assert 0.1 < y[:, :, 2:].std() < 10


def test_every_parameter_learns(model, batch):
    model.loss(batch, SampleGenerator(KEYS))[0].backward()
    assert not without_gradient(model)


def test_time_and_parameters_modulate(model, batch):
    x, mask = batch.states, context_mask(batch.states, 1)
    first, later, other = (
        model.denoiser.backbone(x, torch.full((5,), noise), mask, label)
        for noise, label in ((0.0, batch.parameters), (30.0, batch.parameters), (0.0, -batch.parameters))
    )
    assert not torch.allclose(first, later, atol=1e-6)
    assert not torch.allclose(first, other, atol=1e-6)


def test_draws_keep_what_is_known_and_depend_on_their_own_key(model, batch):
    x, mask = batch.states, context_mask(batch.states, 2)
    sampler = SamplerConfig(steps=4).build
    with torch.no_grad():
        y = model.predict(x, mask, batch.parameters, SampleGenerator(KEYS), sampler)
        alone = model.predict(x[3:4], mask[3:4], batch.parameters[3:4], SampleGenerator(KEYS[3:4]), sampler)
        again = model.predict(x, mask, batch.parameters, SampleGenerator([(9, i) for i in range(5)]), sampler)
    assert torch.equal(y[:, :, :2], x[:, :, :2])
    torch.testing.assert_close(alone, y[3:4], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(y[:, :, 2:], again[:, :, 2:], atol=0.1)


def test_training_learns_the_scale_of_the_data():
    """States of deviation 3: the objective falls once the network undoes c_skip's assumption of 1."""
    torch.manual_seed(0)
    model = SMALL.build(channels=2, parameters=1, spatial=1, window=3)
    data = Batch(states=3 * torch.randn(32, 2, 3, 4), parameters=torch.zeros(32, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for step in range(120):
        loss, _ = model.loss(data, SampleGenerator([(step, i) for i in range(32)]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert math.fsum(losses[-20:]) < 0.7 * math.fsum(losses[:20])


def test_configuration_survives_json():
    for config in (SMALL, UNET):
        config = config.replace(schedule=ScheduleConfig(shift=0.5), times=TimePriorConfig(a=0.1))
        assert DiffusionConfig.from_json(config.to_json()) == config
