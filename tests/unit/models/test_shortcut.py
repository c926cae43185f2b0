"""Few-step diffusion, against the exact flow of Gaussian states."""

import itertools
import math

import pytest
import torch
from gradients import without_gradient
from torch import nn

from lola.core.errors import ConfigError
from lola.core.seeding import SampleGenerator
from lola.data.state import Batch
from lola.emulation.emulator import Emulator
from lola.emulation.guidance import guided_sampler
from lola.emulation.guidance_config import GuidanceConfig
from lola.emulation.sampling_config import SamplerConfig
from lola.models.diffusion_config import DiffusionConfig
from lola.models.masks import context_mask
from lola.models.schedule_config import ScheduleConfig
from lola.models.shortcut_config import ShortcutConfig
from lola.models.transformer_config import TransformerConfig
from lola.models.unet_config import UNetConfig
from lola.training.checkpoint import copy_weights, save_weights
from lola.training.counting import count_step

NETWORKS = {
    "transformer": TransformerConfig(features=16, blocks=2, heads=2, modulation=8, patch_size=2, dropout=0.0),
    "unet": UNetConfig(channels=(8, 16), blocks=(1, 1), modulation=8, dropout=0.0),
}
SIZES = {"channels": 3, "parameters": 2, "spatial": 2, "window": 4}
KEYS = [(3, i) for i in range(40)]
MEAN, DEVIATION = 0.7, 1.6


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def batch():
    return Batch(states=torch.randn(40, 3, 4, 2, 2), parameters=torch.randn(40, 2))


@pytest.fixture(params=NETWORKS)
def network(request):
    return NETWORKS[request.param]


def stepping(network, **options):
    """A model that sees where its steps lead."""
    model = ShortcutConfig(network=network, **options).build(**SIZES).eval()
    for part in model.denoiser.backbone.embed_step[-1].parameters():
        nn.init.normal_(part)
    return model


class ExactFlow(nn.Module):
    """The network F of elements that are N(MEAN, DEVIATION^2) whatever is known."""

    def __init__(self, scheduled):
        super().__init__()
        self.alpha = scheduled  # alpha of a noise level

    def forward(self, x, noise, mask, label):
        shape = (-1, *[1] * (x.ndim - 1))
        t, s = (level.double().reshape(shape) for level in noise.expand(len(x), 2).unbind(dim=-1))
        alpha, sigma = self.alpha(t)
        norm = torch.hypot(alpha, sigma)
        x_t = norm * x.double()
        mean = mean_on_the_way(x_t, (alpha, sigma), self.alpha(s))
        return (norm / sigma * (mean - alpha / norm**2 * x_t)).to(x)


def exact_flow(x_t, start, stop):
    """The state at `stop` on the flow through `x_t`: as many deviations from the mean."""
    (alpha, sigma), (alpha_s, sigma_s) = start, stop
    ratio = torch.hypot(alpha_s * DEVIATION, sigma_s) / torch.hypot(alpha * DEVIATION, sigma)
    return alpha_s * MEAN + ratio * (x_t - alpha * MEAN)


def mean_on_the_way(x_t, start, stop):
    """D of this flow; where it does not go anywhere, the posterior's mean."""
    (alpha, sigma), (alpha_s, sigma_s) = start, stop
    step = alpha_s / sigma_s - alpha / sigma
    gain = alpha * DEVIATION**2 / (alpha**2 * DEVIATION**2 + sigma**2)
    moved = (exact_flow(x_t, start, stop) / sigma_s - x_t / sigma) / torch.where(step == 0, 1, step)
    return torch.where(step == 0, MEAN + gain * (x_t - alpha * MEAN), moved)


def rectified(level):
    rho = torch.exp(level / 10)
    return 1 / (1 + rho), rho / (1 + rho)


def variance_exploding(level):
    return torch.ones_like(level), torch.exp(level / 10)


@pytest.fixture(params=["rectified", "log_logit"])
def exact(request):
    scales = {"rectified": rectified, "log_logit": variance_exploding}
    config = ShortcutConfig(network=NETWORKS["transformer"], schedule=ScheduleConfig(name=request.param))
    model = config.build(**SIZES)
    model.denoiser.backbone = ExactFlow(scales[request.param])
    return model


def scheduled(model, t):
    return [scale.double().reshape(-1, 1, 1, 1, 1) for scale in model.denoiser.schedule(t)]


def test_the_exact_flow_is_consistent(exact):
    """Its mean over two steps is its own over one, and leads where the flow does."""
    steps = torch.tensor([[1.0, 0.0], [1.0, 0.5], [0.5, 0.0], [0.75, 0.5], [0.25, 0.125]])
    t, s = steps.unbind(dim=1)
    x = MEAN + DEVIATION * torch.randn(5, 3, 4, 2, 2)
    start, stop = scheduled(exact, t), scheduled(exact, s)
    x_t = (start[0] * x + start[1] * torch.randn_like(x)).float()
    mask, label = context_mask(x, 1), torch.zeros(5, 2)
    found = exact.in_two_steps(x_t, t, s, torch.zeros(5, dtype=torch.bool), x, mask, label)
    assert torch.equal(found[:, :, :1], x[:, :, :1])
    found, x_t = found[:, :, 1:].double(), x_t[:, :, 1:].double()
    torch.testing.assert_close(found, mean_on_the_way(x_t, start, stop), rtol=1e-4, atol=1e-4)
    halfway = scheduled(exact, (t + s) / 2)
    twice = exact_flow(exact_flow(x_t, start, halfway), halfway, stop)
    ends = stop[1] * (x_t / start[1] + (stop[0] / stop[1] - start[0] / start[1]) * found)
    torch.testing.assert_close(ends, twice, rtol=1e-3, atol=2e-3)


def test_the_exact_flow_has_no_loss_but_that_of_the_shortest_steps(exact):
    """Halves of these take the denoiser for the mean, an error of the order of their length."""
    x = MEAN + DEVIATION * torch.randn(400, 3, 4, 2, 2)
    batch = Batch(states=x, parameters=torch.zeros(400, 2))
    losses = []
    for finest in (16, 64):
        exact.config = exact.config.replace(consistency=1 - 1e-9, finest=finest, loss_states="unknown")
        loss, diagnostics = exact.loss(batch, SampleGenerator([(i,) for i in range(400)]))
        torch.testing.assert_close(loss, diagnostics["unknown_consistency"])
        losses.append(loss.item())
    assert losses[1] < losses[0] / 8
    assert losses[1] < 1e-4


def test_the_exact_flow_draws_in_one_step_what_the_denoiser_draws_in_many(exact):
    x, keys = torch.zeros(400, 3, 4, 2, 2), [(i,) for i in range(400)]
    known = torch.full_like(x, 3.0)
    windows = {}
    for steps in (1, 2, 4):
        sampler = SamplerConfig(name="euler", steps=steps).build
        drawn = exact.predict(known, context_mask(x, 1), torch.zeros(400, 2), SampleGenerator(keys), sampler)
        assert torch.equal(drawn[:, :, :1], known[:, :, :1])
        windows[steps] = drawn[:, :, 1:]
        torch.testing.assert_close(windows[steps], windows[1], rtol=0, atol=5e-3)
    many = SamplerConfig(steps=64, spacing="log_snr").build
    drawn = exact.predict(known, context_mask(x, 1), torch.zeros(400, 2), SampleGenerator(keys), many)
    torch.testing.assert_close(windows[1], drawn[:, :, 1:], rtol=0, atol=0.05)
    assert windows[1].mean() == pytest.approx(MEAN, abs=0.05)
    assert windows[1].std() == pytest.approx(DEVIATION, abs=0.05)


def test_samples_without_a_step_have_the_published_objective(network, batch):
    """A share of steps so small that there are none: the same numbers are drawn, and give the same loss."""
    student = ShortcutConfig(network=network, consistency=1e-9).build(**SIZES).eval()
    teacher = DiffusionConfig(network=network).build(**SIZES).eval()
    teacher.load_state_dict(student.state_dict(), strict=False)
    expected, diagnostics = teacher.loss(batch, SampleGenerator(KEYS))
    loss, found = student.loss(batch, SampleGenerator(KEYS))
    assert torch.equal(loss, expected)
    assert torch.equal(found["unknown_loss"], diagnostics["unknown_loss"])
    assert found["unknown_consistency"] == 0
    for part in student.denoiser.backbone.embed_step[-1].parameters():
        nn.init.normal_(part)
    assert student.loss(batch, SampleGenerator(KEYS))[0] != expected


def test_a_warm_start_is_the_teacher_until_it_trains(network, batch, tmp_path):
    teacher = DiffusionConfig(network=network).build(**SIZES).eval()
    save_weights(tmp_path / "teacher.safetensors", teacher)
    student = ShortcutConfig(network=network).build(**SIZES).eval()
    transfer = copy_weights(tmp_path / "teacher.safetensors", student)
    assert {name.split(".")[2] for name in transfer.new} == {"embed_step"}
    assert not transfer.unused
    x, mask = batch.states, context_mask(batch.states, 1)
    for name in ("euler", "adams_bashforth"):
        sampler = SamplerConfig(name=name, steps=3).build
        with torch.no_grad():
            expected, found = (
                model.predict(x, mask, batch.parameters, SampleGenerator(KEYS), sampler)
                for model in (teacher, student)
            )
        assert torch.equal(found, expected)


def test_the_loss_of_a_batch_is_the_weighted_mean_of_its_slices(network, batch):
    model = stepping(network, consistency=0.5)
    total, diagnostics = model.loss(batch, SampleGenerator(KEYS))
    means = dict.fromkeys(("loss", *diagnostics), 0.0)
    for part in (slice(0, 1), slice(1, 13), slice(13, 40)):
        piece = Batch(states=batch.states[part], parameters=batch.parameters[part])
        loss, more = model.loss(piece, SampleGenerator(KEYS[part]))
        for name, value in {"loss": loss, **more}.items():
            means[name] += len(piece) / 40 * value
    torch.testing.assert_close(total, means.pop("loss"))
    torch.testing.assert_close(diagnostics, means)
    assert diagnostics["unknown_consistency"] > 0


def test_steps_are_those_of_the_samplers():
    model = ShortcutConfig(network=NETWORKS["transformer"], finest=8).build(**SIZES)
    start, stop, shortest = model._draw_steps(SampleGenerator([(i,) for i in range(300)]))
    found = set(zip(start.tolist(), stop.tolist(), shortest.tolist(), strict=True))
    expected = set()
    for count in (1, 2, 4):
        times = SamplerConfig(name="euler", steps=count).build(model.denoiser).timesteps.tolist()
        expected |= {(*pair, count == 4) for pair in itertools.pairwise(times)}
    assert found == expected


def test_every_parameter_learns_and_targets_have_no_gradient(network, batch, monkeypatch):
    model = stepping(network, consistency=0.9).train()
    seen = []

    def two_steps(*inputs):
        assert model.training
        seen.append(type(model).in_two_steps(model, *inputs))
        return seen[-1]

    monkeypatch.setattr(model, "in_two_steps", two_steps)
    model.loss(batch, SampleGenerator(KEYS))[0].backward()
    assert not without_gradient(model)
    assert not seen[0].requires_grad
    assert model.training


@pytest.mark.parametrize("same", [True, False])
def test_bound_and_unrolled_rollouts_are_the_plain_ones(network, same):
    model = stepping(network, schedule=ScheduleConfig(sigma_max=10.0))  # rounding is of the first noise
    emulator = Emulator(model=model, sampler=SamplerConfig(name="euler", steps=3))
    x, label = torch.randn(2, 3, 4, 2, 2), torch.randn(1 if same else 2, 2).expand(2, -1)
    mask, keys = context_mask(x[:1], 1), KEYS[:2]
    bound = emulator.bind(mask, label)
    plain = emulator.window(x, mask, label, SampleGenerator(keys))
    unrolled = emulator.window(x, mask, label, SampleGenerator(keys), bound)
    torch.testing.assert_close(unrolled, plain, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        called = model.predict(x, mask, label, SampleGenerator(keys), emulator.sampler.build, bound)
    torch.testing.assert_close(called, plain, rtol=1e-4, atol=1e-5)
    blind = Emulator(model=model, sampler=SamplerConfig(name="heun", steps=4))
    drawn = [blind.window(x, mask, label, SampleGenerator(keys), each) for each in (None, bound)]
    torch.testing.assert_close(*drawn, rtol=1e-4, atol=1e-5)


def test_a_step_is_an_evaluation_that_knows_its_end():
    model = stepping(NETWORKS["transformer"])
    levels = []
    model.denoiser.backbone.register_forward_pre_hook(lambda module, inputs: levels.append(inputs[1]))
    x = torch.randn(2, 3, 4, 2, 2)
    sampler = SamplerConfig(name="euler", steps=2).build
    with torch.no_grad():
        model.predict(x, context_mask(x, 1), torch.zeros(2, 2), SampleGenerator(KEYS[:2]), sampler)
    alpha, sigma = model.denoiser.schedule(torch.tensor([1.0, 0.5, 0.0]))
    c = 10 * torch.log(sigma / alpha)
    torch.testing.assert_close(torch.cat(levels), torch.stack((c[:-1], c[1:]), dim=1))


def test_guidance_takes_the_denoised_state():
    """Its formulas are of the posterior's mean, not of where a step leads."""
    model = stepping(NETWORKS["transformer"])
    levels = []
    model.denoiser.backbone.register_forward_pre_hook(lambda module, inputs: levels.append(inputs[1]))
    x = torch.randn(2, 3, 4, 2, 2)
    sampler = SamplerConfig(name="euler", steps=2)

    def guide(denoiser):
        return guided_sampler(
            GuidanceConfig(name="jfps"),
            denoiser,
            torch.zeros(2, 12),
            lambda x: x[:, :, 1].flatten(1),
            sampler,
        )

    model.predict(x, context_mask(x, 1), torch.zeros(2, 2), SampleGenerator(KEYS[:2]), guide)
    assert len(levels) == 2
    assert all(level.ndim == 1 for level in levels)


def test_the_cost_of_a_step_is_counted():
    network = NETWORKS["transformer"]
    configs = [
        DiffusionConfig(network=network),
        *(ShortcutConfig(network=network, consistency=c) for c in (0.25, 0.5)),
    ]
    flops = [
        count_step(lambda config=config: config.build(**SIZES), (3, 4, 8, 8), 2, "float32").flops.per_sample
        for config in configs
    ]
    assert [config.training_passes for config in configs] == [3, 3.5, 4]
    forward = flops[0] / 3
    for config, count in zip(configs[1:], flops[1:], strict=True):
        assert count == pytest.approx(config.training_passes * forward, rel=0.02)


def test_the_finest_steps_are_halves_of_halves():
    with pytest.raises(ConfigError, match="--finest must be a power of 2, not 24"):
        ShortcutConfig(finest=24)
    assert ShortcutConfig.from_json(ShortcutConfig(finest=32).to_json()).levels == 5


@pytest.mark.slow
def test_a_distilled_model_draws_two_modes_in_one_step():
    """States are 1 or -1, but for a little noise; the teacher's first step leads to their mean."""
    tiny = TransformerConfig(features=32, blocks=2, heads=2, modulation=32, patch_size=1, dropout=0.0)
    options = {"network": tiny, "masks": "forward", "loss_states": "unknown"}
    n = 128

    def train(model, steps, rate):
        optimizer = torch.optim.Adam(model.parameters(), lr=rate)
        for step in range(steps):
            states = torch.randint(0, 2, (n, 1, 2, 1)) * 2 - 1 + 0.2 * torch.randn(n, 1, 2, 1)
            batch = Batch(states=states, parameters=torch.zeros(n, 0))
            optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
            loss, _ = model.loss(batch, SampleGenerator([(steps, step, i) for i in range(n)]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return model.eval()

    def draw(model):
        known, keys = torch.ones(2000, 1, 2, 1), [(i,) for i in range(2000)]
        sampler = SamplerConfig(name="euler", steps=1).build
        with torch.no_grad():
            window = model.predict(
                known, context_mask(known, 1), torch.zeros(2000, 0), SampleGenerator(keys), sampler
            )
        return window[:, :, 1].flatten()

    teacher = train(DiffusionConfig(**options).build(1, 0, 1, 2), 150, 3e-3)
    student = ShortcutConfig(**options, finest=16, consistency=0.5).build(1, 0, 1, 2)
    student.load_state_dict(teacher.state_dict(), strict=False)
    student = train(student, 150, 3e-3)
    before, after = draw(teacher), draw(student)
    assert before.std() < 0.4
    assert after.mean() == pytest.approx(0, abs=0.15)
    assert after.std() == pytest.approx(math.sqrt(1.04), abs=0.15)
    assert after.abs().mean() == pytest.approx(1, abs=0.15)
    assert after.abs().std() < 0.4
