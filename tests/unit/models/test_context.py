"""Predicting the change from the known states, and noise on these."""

import pytest
import torch
from torch import nn

from lola.core.errors import ConfigError
from lola.core.seeding import SampleGenerator
from lola.data.state import Batch
from lola.emulation.emulator import Emulator
from lola.emulation.guidance_config import GuidanceConfig
from lola.emulation.sampling_config import SamplerConfig
from lola.models.context import StateChange
from lola.models.crps_ensemble_config import CRPSEnsembleConfig
from lola.models.diffusion_config import DiffusionConfig
from lola.models.masks import context_mask, draw_mask, unknown_mean
from lola.models.neural_solver_config import NeuralSolverConfig
from lola.models.schedule_config import ScheduleConfig
from lola.models.shortcut_config import ShortcutConfig
from lola.models.transformer_config import TransformerConfig
from lola.models.unet_config import UNetConfig

TRANSFORMER = TransformerConfig(features=16, blocks=2, heads=2, modulation=8, patch_size=2, dropout=0.0)
UNET = UNetConfig(channels=(8, 16), blocks=(1, 1), modulation=8, dropout=0.0)
SIZES = {"channels": 2, "parameters": 3, "spatial": 2, "window": 4}
KEYS = [(3, i) for i in range(6)]
KINDS = [NeuralSolverConfig, DiffusionConfig, CRPSEnsembleConfig, ShortcutConfig]
SAMPLED = (DiffusionConfig, ShortcutConfig)
SCALE = torch.tensor([0.5, 2.0])


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def batch():
    return Batch(states=torch.randn(6, 2, 4, 2, 2), parameters=torch.randn(6, 3))


def build(kind, network=TRANSFORMER, **options):
    """A model whose parameters, also those that start at zero, are random."""
    model = kind(network=network, **options).build(**SIZES).eval()
    for name, part in model.named_parameters():
        if "embed_" in name:
            nn.init.normal_(part, std=0.5)
    if model.change is not None:
        model.change.scale.copy_(SCALE)
    return model


def persistence(x, known, last):
    """The nearest known state in place of the unknown ones."""
    x = x.clone()
    if last:
        x[:, :, :-known] = x[:, :, -known, None]
    else:
        x[:, :, known:] = x[:, :, known - 1, None]
    return x


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("known", [1, 3])
def test_changes_are_from_the_nearest_known_state(known, last):
    change = StateChange(2)
    change.scale.copy_(SCALE)
    x, mask = torch.randn(5, 2, 4, 3), context_mask(torch.zeros(1, 1, 4, 1), known, last)
    expected = (x - persistence(x, known, last)) / SCALE.reshape(2, 1, 1)
    found = change.to_changes(x, torch.where(mask, x, torch.nan), mask)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(change.to_states(found, x, mask.expand(5, -1, -1, -1)), x)


@pytest.mark.parametrize("kind", [NeuralSolverConfig, CRPSEnsembleConfig])
@pytest.mark.parametrize("last", [False, True])
def test_a_network_that_answers_zero_predicts_persistence(kind, last, batch):
    model = build(kind, predicts="change")
    for part in model.network.project_out.parameters():
        nn.init.zeros_(part)
    mask = context_mask(batch.states, 2, last)
    with torch.no_grad():
        window = model.predict(batch.states, mask, batch.parameters, SampleGenerator(KEYS))
    assert torch.equal(window, persistence(batch.states, 2, last))


def test_the_loss_is_that_of_states(batch):
    """Of a network that answers 0, that of persistence, however large changes are."""
    model = build(NeuralSolverConfig, predicts="change", loss_states="unknown", masks="forward")
    for part in model.network.project_out.parameters():
        nn.init.zeros_(part)
    mask = draw_mask(batch.states, SampleGenerator(KEYS), "forward")
    still = torch.stack(
        [persistence(x[None], int(m.sum()), last=False)[0] for x, m in zip(batch.states, mask, strict=True)]
    )
    loss, _ = model.loss(batch, SampleGenerator(KEYS))
    torch.testing.assert_close(loss, unknown_mean((still - batch.states).square(), mask))


def test_changes_have_a_size_of_one():
    """Random walks of two step sizes: the root of the mean square is over the unknown states of a window."""
    steps = torch.tensor([0.1, 3.0]).reshape(2, 1, 1, 1) * torch.randn(400, 2, 6, 2, 2)
    x = 5 + steps.cumsum(dim=2)
    valid = torch.ones(400, 1, 1, 2, 2, dtype=torch.bool)
    valid[..., 0, 0] = False
    outside = x.masked_fill(~valid, 1e3) + torch.arange(6).reshape(6, 1, 1) * 1e3 * ~valid
    batches = [
        Batch(states=outside[i : i + 50], parameters=torch.zeros(50, 0), valid=valid[i : i + 50])
        for i in range(0, 400, 50)
    ]
    change = StateChange(2)
    change.fit(batches, window=4)
    # The mean square over lags 1, 2, 3 is twice that of a step
    torch.testing.assert_close(change.scale, 2**0.5 * torch.tensor([0.1, 3.0]), rtol=0.05, atol=0)
    y = change.to_changes(x, x, context_mask(x, 1))[:, :, 1:4]
    torch.testing.assert_close(y.square().mean(dim=(0, 2, 3, 4)), torch.ones(2), rtol=0.1, atol=0)


def test_a_channel_that_is_constant_in_time_keeps_a_scale_of_one():
    x = torch.randn(3, 2, 1, 4).expand(-1, -1, 5, -1).clone()
    x[:, 1] += torch.arange(5).reshape(5, 1)
    change = StateChange(2)
    change.fit([Batch(states=x, parameters=torch.zeros(3, 0))], window=3)
    torch.testing.assert_close(change.scale, torch.tensor([1.0, 2.5**0.5]))


def test_diffusion_of_changes_is_that_of_changed_states(batch):
    """The loss is the published one of windows whose unknown states are changes."""
    model, plain = build(DiffusionConfig, predicts="change"), build(DiffusionConfig)
    plain.load_state_dict({name: w for name, w in model.state_dict().items() if "change" not in name})
    mask = draw_mask(batch.states, SampleGenerator(KEYS))
    changes = torch.where(mask, batch.states, model.change.to_changes(batch.states, batch.states, mask))
    expected, _ = plain.loss(Batch(states=changes, parameters=batch.parameters), SampleGenerator(KEYS))
    assert torch.equal(model.loss(batch, SampleGenerator(KEYS))[0], expected)
    mask = context_mask(batch.states, 2)
    sampler = SamplerConfig(steps=2).build
    with torch.no_grad():
        drawn, found = (
            each.predict(batch.states, mask, batch.parameters, SampleGenerator(KEYS), sampler)
            for each in (plain, model)
        )
    expected = persistence(batch.states, 2, last=False) + SCALE.reshape(2, 1, 1, 1) * drawn
    torch.testing.assert_close(found[:, :, 2:], expected[:, :, 2:])
    assert torch.equal(found[:, :, :2], batch.states[:, :, :2])


@pytest.mark.parametrize("network", [TRANSFORMER, UNET], ids=["transformer", "unet"])
@pytest.mark.parametrize("parameters", [0, 3])
@pytest.mark.parametrize("last", [False, True])
def test_bound_windows_are_the_plain_ones(kind, network, parameters, last):
    options = {"predicts": "change", "context_noise": 0.5, "rollout_noise": 0.2}
    if kind in SAMPLED:  # rounding is of the size of the first noise
        options["schedule"] = ScheduleConfig(sigma_max=10.0)
    model = kind(network=network, **options).build(**SIZES | {"parameters": parameters})
    for part in model.parameters():
        nn.init.normal_(part, std=0.1)
    model.change.scale.copy_(SCALE)
    emulator = Emulator(model=model, sampler=SamplerConfig(name="euler", steps=2))
    x, label, keys = torch.randn(3, 2, 4, 2, 2), torch.randn(3, parameters), KEYS[:3]
    mask = context_mask(x[:1], 1, last)
    bound = emulator.bind(mask, label)
    plain, found = (emulator.window(x, mask, label, SampleGenerator(keys), each) for each in (None, bound))
    torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-4)
    assert torch.equal(plain[:, :, -1:] if last else plain[:, :, :1], x[:, :, -1:] if last else x[:, :, :1])


def test_without_noise_the_objective_is_as_it_was(kind, batch):
    """A model that takes a level, at the level 0 and before it trains, is the one that takes none."""
    torch.manual_seed(1)
    plain = kind(network=TRANSFORMER).build(**SIZES).eval()
    torch.manual_seed(1)
    noisy = kind(network=TRANSFORMER, context_noise=1e-30).build(**SIZES).eval()
    assert {name for name in noisy.state_dict() if name not in plain.state_dict()} == {
        name for name in noisy.state_dict() if "embed_level" in name
    }
    losses = [model.loss(batch, SampleGenerator(KEYS))[0] for model in (plain, noisy)]
    if kind is not ShortcutConfig:  # which draws its steps after the noise
        assert torch.equal(*losses)
    mask, options = context_mask(batch.states, 1), {}
    if kind in SAMPLED:
        options = {"sampler": SamplerConfig(steps=2).build}
    with torch.no_grad():
        windows = [
            model.predict(batch.states, mask, batch.parameters, SampleGenerator(KEYS), **options)
            for model in (plain, noisy)
        ]
    assert torch.equal(*windows)


def test_the_network_is_given_noisy_states_and_their_level(kind, batch):
    options = {"consistency": 1e-9} if kind is ShortcutConfig else {}
    model = build(kind, context_noise=0.8, masks="forward", **options)
    network = model.denoiser.backbone.network if kind in SAMPLED else model.network
    seen = []
    network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs))
    n = 300
    x = torch.randn(1, 2, 4, 2, 2).expand(n, -1, -1, -1, -1)
    same = Batch(states=x, parameters=torch.zeros(n, 3))
    model.loss(same, SampleGenerator([(i,) for i in range(n)]))
    fields, modulation = seen[0]
    rows = len(fields) // n  # members
    noise = (fields[::rows, :2, 0] - x[:, :, 0]).flatten(1)
    size = noise.square().mean(dim=1).sqrt()
    assert size.max() < 0.8 * 2.5
    assert pytest.approx(noise.square().mean().item() / 0.8, rel=0.15) == 0.8 / 3  # a^2, a uniform
    if kind is CRPSEnsembleConfig:  # members of a sample see the same
        assert torch.equal(fields[::rows, :2, 0], fields[1::rows, :2, 0])
    if kind is NeuralSolverConfig:
        embedded = model.embed_level(model_levels(model, n))
        torch.testing.assert_close(modulation, embedded + model.embed_parameters(same.parameters))


def model_levels(model, n):
    """The levels that a solver's loss draws, after the mask, as they are encoded."""
    generator = SampleGenerator([(i,) for i in range(n)])
    draw_mask(torch.zeros(n, 2, 4, 2, 2), generator)
    return 30 * generator.uniform()


def test_rollouts_have_their_own_level(kind, batch):
    """Models of one training whose rollouts have other levels draw other windows; the known states stay."""
    windows = []
    for level in (0.0, 0.0, 0.4):
        torch.manual_seed(0)
        model = build(kind, context_noise=0.5, rollout_noise=level)
        emulator = Emulator(model=model, sampler=SamplerConfig(steps=2))
        context = batch.states[:, :, :1]
        states = emulator.rollout(context, batch.parameters, 5, KEYS)
        windows.append(torch.cat(list(states), dim=2))
    assert torch.equal(windows[0], windows[1])
    assert not torch.equal(windows[0], windows[2])


def test_windows_that_follow_each_other_have_the_level_of_their_sample():
    batch = Batch(states=torch.randn(6, 2, 7, 2, 2), parameters=torch.randn(6, 3))
    for kind in (NeuralSolverConfig, CRPSEnsembleConfig):
        model = build(kind, context_noise=0.5, predicts="change", rollout_windows=2)
        seen = []
        model.network.register_forward_pre_hook(lambda module, inputs, seen=seen: seen.append(inputs[1]))
        with torch.no_grad():
            loss, _ = model.loss(batch, SampleGenerator(KEYS))
        assert loss.isfinite()
        if kind is NeuralSolverConfig:
            assert torch.equal(*seen)


def test_a_level_above_that_of_training_is_refused():
    with pytest.raises(ConfigError, match=r"--rollout-noise 0.2 is above --context-noise 0.1"):
        NeuralSolverConfig(context_noise=0.1, rollout_noise=0.2)
    assert "context_noise" not in NeuralSolverConfig().to_json()
    assert "predicts" not in DiffusionConfig().to_json()


class Seen:
    """Observations of no states, which remember the windows that they are asked of."""

    def __init__(self):
        self.windows = []

    def whitened(self, rows):
        return torch.zeros(rows, 1)

    def of_window(self, window, physical):
        self.windows.append(physical(window).detach())
        return window.flatten(1).sum(dim=1, keepdim=True)


def test_guidance_observes_states_where_changes_are_denoised(batch):
    """At t = 1 a network that answers 0 denoises next to no change: the persistent state is seen."""
    model = build(DiffusionConfig, predicts="change")
    for part in model.denoiser.backbone.network.project_out.parameters():
        nn.init.zeros_(part)
    emulator = Emulator(
        model=model, sampler=SamplerConfig(name="euler", steps=2), guidance=GuidanceConfig(name="jfps")
    )
    mask, seen = context_mask(batch.states, 2), Seen()
    emulator.window(batch.states, mask, batch.parameters, SampleGenerator(KEYS), observed=seen)
    torch.testing.assert_close(seen.windows[0], persistence(batch.states, 2, last=False), rtol=0, atol=0.02)


@pytest.mark.parametrize("kind", SAMPLED)
@pytest.mark.parametrize("predicts", ["state", "change"])
def test_known_states_are_denoised_to_what_the_network_is_given(kind, predicts, batch):
    """Their noise cannot be known: a target without it would dominate the loss over all states."""
    model = build(kind, context_noise=0.5, predicts=predicts, masks="forward")
    mask = context_mask(batch.states, 1)
    denoised, given, _ = model._given(batch, mask, SampleGenerator(KEYS))
    known = mask.expand_as(given)
    torch.testing.assert_close(denoised[known], given[known])
    assert (given - batch.states)[known].abs().max() > 0.01
    if predicts == "state":
        torch.testing.assert_close(denoised[~known], batch.states[~known])


def test_too_few_parameters_are_no_stride(kind, batch):
    known, mask = batch.states, context_mask(batch.states, 1)
    sampled = {"sampler": SamplerConfig(steps=1).build} if kind in SAMPLED else {}
    for strides in ((), (1, 2)):
        model = build(kind, strides=strides)
        model.predict(known, mask, batch.parameters, SampleGenerator(KEYS), **sampled)
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            model.predict(
                known, mask, batch.parameters[:, : 2 - len(strides)], SampleGenerator(KEYS), **sampled
            )
