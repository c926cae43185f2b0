import dataclasses

import pytest
import torch
from torch import nn

from lola.core.errors import ConfigError
from lola.core.seeding import SampleGenerator
from lola.data.description import EULER
from lola.emulation.emulator import Emulator
from lola.emulation.guidance_config import GuidanceConfig
from lola.emulation.inference_config import InferenceConfig
from lola.emulation.observations import Observations, subsample
from lola.emulation.sampling_config import SamplerConfig
from lola.models.autoencoder_config import AutoencoderConfig
from lola.models.diffusion_config import DiffusionConfig
from lola.models.neural_solver import NeuralSolver
from lola.models.neural_solver_config import NeuralSolverConfig
from lola.models.transformer_config import TransformerConfig

TRANSFORMER = TransformerConfig(features=16, blocks=2, heads=2, modulation=8)
WINDOW = 5


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(params=[DiffusionConfig, NeuralSolverConfig])
def emulator(request):
    model = request.param(network=TRANSFORMER).build(channels=2, parameters=3, spatial=2, window=WINDOW)
    return Emulator(model=model, sampler=SamplerConfig(steps=4))


class Counter(nn.Module):
    """A model of a clock: each state is the one before plus the parameter."""

    window = WINDOW

    def predict(self, known, mask, parameters, generator):
        steps = torch.arange(WINDOW).reshape(1, 1, WINDOW, 1, 1)
        self.known = int(mask[0].sum())
        at = int(mask.flatten().nonzero()[0])
        return known[:, :, at : at + 1] + (steps - at) * parameters.reshape(-1, 1, 1, 1, 1)


def roll(emulator, context, parameters, states, keys, **options):
    return torch.cat(list(emulator.rollout(context, parameters, states, keys, **options)), dim=2)


@pytest.mark.parametrize("known", [1, 2, 4])
@pytest.mark.parametrize("overlap", [1, 2, 4])
@pytest.mark.parametrize("states", [1, 4, 11])
def test_windows_are_chained_in_order(known, overlap, states):
    emulator = Emulator(model=Counter())
    start, step = torch.tensor([10.0, 20.0]), torch.tensor([[1.0], [3.0]])
    context = start.reshape(2, 1, 1, 1, 1) + torch.arange(known).reshape(1, 1, -1, 1, 1) * step.reshape(
        2, 1, 1, 1, 1
    )
    rollout = roll(emulator, context, step, states, [(0,), (1,)], overlap=overlap)
    expected = start[:, None] + torch.arange(known, known + states) * step
    assert torch.equal(rollout.reshape(2, states), expected)
    assert emulator.model.known == (known if states <= WINDOW - known else overlap)


@pytest.mark.parametrize("known", [1, 3])
@pytest.mark.parametrize("overlap", [1, 2])
def test_the_past_is_chained_window_by_window(known, overlap):
    context = torch.arange(known).reshape(1, 1, -1, 1, 1) * 2.0
    parts = list(
        Emulator(model=Counter()).rollout(
            context, torch.full((1, 1), 2.0), 9, [(0,)], overlap=overlap, backward=True
        )
    )
    assert parts[0].shape[2] == WINDOW - known
    states = torch.cat(parts[::-1], dim=2).flatten()
    assert torch.equal(states, 2.0 * torch.arange(-9, 0))


def test_networks_see_the_known_states_at_the_end_when_they_go_back(emulator):
    context, parameters = torch.randn(1, 2, 2, 3, 4), torch.randn(1, 3)
    (past,) = emulator.rollout(context, parameters, 3, [(0,)], backward=True)
    window = torch.cat((torch.zeros(1, 2, 3, 3, 4), context), dim=2)
    mask = torch.tensor([False, False, False, True, True]).reshape(1, 1, 5, 1, 1)
    expected = emulator.window(window, mask, parameters, SampleGenerator([(0, 0)]))
    # In single precision, few steps from noise of 1000 cost digits where nothing is bound
    torch.testing.assert_close(past, expected[:, :, :3], atol=5e-4, rtol=5e-3)


def test_rows_do_not_depend_on_how_many_are_computed_together(emulator):
    context, parameters = torch.randn(5, 2, 1, 3, 4), torch.randn(5, 3)
    keys = [(0, i) for i in range(5)]
    whole = roll(emulator, context, parameters, 6, keys)
    for rows in (1, 2):
        chunked = Emulator(
            model=emulator.model, sampler=emulator.sampler, inference=InferenceConfig(rows=rows)
        )
        parts = list(chunked.rollout(context, parameters, 6, keys))
        assert [part.shape[2] for part in parts] == [4, 2]
        torch.testing.assert_close(torch.cat(parts, dim=2), whole, atol=1e-5, rtol=1e-5)


def test_members_drawn_by_a_stochastic_sampler_are_functions_of_their_keys(emulator):
    context, parameters, keys = torch.randn(3, 2, 1, 3, 4), torch.randn(3, 3), [(0, i) for i in range(3)]
    noisy = dataclasses.replace(emulator, sampler=SamplerConfig(name="ddpm", steps=4))
    whole = roll(noisy, context, parameters, 6, keys)
    torch.manual_seed(1)
    again = roll(noisy, context[1:], parameters[1:], 6, keys[1:])
    torch.testing.assert_close(again, whole[1:], atol=1e-4, rtol=1e-4)


def test_half_precision_stays_near(emulator):
    context, parameters = torch.randn(2, 2, 1, 3, 4), torch.randn(2, 3)
    half = Emulator(
        model=emulator.model, sampler=emulator.sampler, inference=InferenceConfig(precision="bfloat16")
    )
    x, y = (roll(each, context, parameters, 4, [(0,), (1,)]) for each in (emulator, half))
    assert y.dtype == torch.float32
    assert 0 < (x - y).abs().max() < 0.3


def test_impossible_inference():
    for options in ({"rows": 0}, {"states": 0}):
        with pytest.raises(ConfigError, match=r"must be in \[1, "):
            InferenceConfig(**options)


def test_graphs_are_made_of_compiled_networks():
    with pytest.raises(ConfigError, match="--graphs are made of compiled networks"):
        InferenceConfig(graphs=True)


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("name", ["adams_bashforth", "heun", "exponential_data"])
def test_unrolled_samplers_draw_what_azula_does(backward, name):
    config = DiffusionConfig(network=TRANSFORMER)
    model = config.build(channels=2, parameters=3, spatial=2, window=WINDOW).double()
    emulator = Emulator(model=model, sampler=SamplerConfig(name=name, steps=8))
    context, parameters = torch.randn(2, 2, 2, 3, 4).double(), torch.randn(2, 3).double()
    keys = [(0,), (1,)]
    x = roll(emulator, context, parameters, 5, keys, backward=backward)

    class Unbound(Emulator):
        def bind(self, mask, parameters):
            return None

    y = roll(Unbound(model=model, sampler=emulator.sampler), context, parameters, 5, keys, backward=backward)
    # azula's scales are in single precision, and noise of 1000 makes its last digit this large
    torch.testing.assert_close(x, y, atol=5e-4, rtol=5e-3)


def test_early_states_come_first_and_windows_are_bundled():
    sizes = [
        part.shape[2]
        for part in Emulator(model=Counter()).rollout(
            torch.zeros(1, 1, 2, 1, 1), torch.ones(1, 1), 12, [(0,)]
        )
    ]
    assert sizes == [3, 4, 4, 1]


def test_a_row_is_a_function_of_its_key_and_not_of_its_batch(emulator):
    context, parameters = torch.randn(4, 2, 1, 3, 4), torch.randn(4, 3)
    keys = [(0, "a", member) for member in range(4)]
    together = roll(emulator, context, parameters, 9, keys)
    assert together.shape == (4, 2, 9, 3, 4)
    order = [2, 0]
    some = roll(emulator, context[order], parameters[order], 9, [keys[i] for i in order])
    torch.testing.assert_close(some, together[order], atol=1e-4, rtol=1e-4)


def test_members_and_windows_differ_when_the_model_is_stochastic(emulator):
    context, parameters = torch.randn(1, 2, 1, 3, 4).expand(2, -1, -1, -1, -1), torch.zeros(2, 3)
    rollout = roll(emulator, context, parameters, 8, [(0, 0), (0, 1)])
    assert torch.equal(rollout[0], rollout[1]) == isinstance(emulator.model, NeuralSolver)
    assert not torch.allclose(rollout[:, :, :4], rollout[:, :, 4:])


def test_the_noise_of_a_window_is_named_by_key_and_window():
    class Noise(Counter):
        def predict(self, known, mask, parameters, generator):
            return generator.normal(*known.shape[1:])

    rollout = roll(Emulator(model=Noise()), torch.zeros(1, 1, 1, 1, 1), torch.ones(1, 1), 8, [(5, "a")])
    for window in range(2):
        expected = SampleGenerator([(5, "a", window)]).normal(1, WINDOW, 1, 1)[:, :, 1:]
        assert torch.equal(rollout[:, :, 4 * window : 4 * window + 4], expected)


def test_networks_do_not_drop_and_build_no_graph(emulator):
    emulator.model.train()
    again = Emulator(model=emulator.model, sampler=emulator.sampler)
    context = torch.randn(1, 2, 1, 3, 4)
    rollouts = [roll(again, context, torch.zeros(1, 3), 4, [(0,)]) for _ in range(2)]
    assert torch.equal(*rollouts)
    assert not rollouts[0].requires_grad


def test_a_generator_leaves_gradients_on_between_windows():
    for _ in Emulator(model=Counter()).rollout(torch.zeros(1, 1, 1, 1, 1), torch.ones(1, 1), 8, [(0,)]):
        assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("known", "overlap", "keys", "message"),
    [
        (5, 1, 1, "context must be 1 to 4"),
        (1, 5, 1, "overlap must be 1 to 4"),
        (1, 0, 1, "overlap"),
        (1, 1, 2, "keys"),
    ],
)
def test_impossible_rollouts(known, overlap, keys, message):
    with pytest.raises(ConfigError, match=message):
        roll(
            Emulator(model=Counter()),
            torch.zeros(1, 1, known, 1, 1),
            torch.ones(1, 1),
            4,
            [(i,) for i in range(keys)],
            overlap=overlap,
        )


def test_states_are_coded_one_by_one_in_chunks():
    autoencoder = AutoencoderConfig(latent_channels=4, channels=(8, 8), blocks=(1, 1), dropout=0.5).build(
        2, 2
    )
    emulator = Emulator(model=Counter(), autoencoder=autoencoder)
    x = torch.randn(2, 2, 5, 6, 8)
    z = emulator.encode(x, chunk=3)
    assert z.shape == (2, 4, 5, 3, 4)
    torch.testing.assert_close(z[1, :, 3], autoencoder.encode(x[1:, :, 3])[0])
    y = emulator.decode(z, chunk=4)
    assert y.shape == x.shape
    torch.testing.assert_close(y[0, :, 2], autoencoder.decode(z[:1, :, 2])[0])


class Prior(nn.Module):
    """The network of windows whose elements are independent and standard normal: F = 0."""

    def forward(self, x, noise, mask, label):
        return torch.zeros_like(x)


class Curved(nn.Module):
    """A decoder that is not linear: of every latent field its hyperbolic sine."""

    def decode(self, z):
        return torch.sinh(z)


@pytest.fixture
def prior():
    config = DiffusionConfig(network=TRANSFORMER)
    model = config.build(channels=2, parameters=0, spatial=2, window=WINDOW)
    model.denoiser.backbone = Prior()
    return Emulator(
        model=model,
        autoencoder=Curved(),
        sampler=SamplerConfig(steps=16),
        guidance=GuidanceConfig(iterations=4),
    )


def observe(states, numbers, noise=0.05):
    """Every second point of some emulated states."""
    values = {n: subsample(2)(states[:, :, n - 1]) for n in numbers}
    return Observations(operator=subsample(2), values=values, noise=noise)


@pytest.mark.parametrize("name", ["mmps", "pgdm", "jfps"])
def test_guidance_through_a_decoder_draws_what_was_observed_and_nothing_else(prior, name):
    options = {"iterations": 4}
    emulator = dataclasses.replace(prior, guidance=GuidanceConfig(name=name, **options))
    truth = torch.sinh(torch.randn(1, 2, 9, 6, 8))
    context, label = torch.randn(3, 2, 1, 6, 8), torch.zeros(3, 0)
    keys = [(0, member) for member in range(3)]
    plain = roll(emulator, context, label, 9, keys)
    guided = roll(emulator, context, label, 9, keys, observations=observe(truth, [2, 3, 9]))
    errors = (emulator.decode(guided) - truth).abs(), (emulator.decode(plain) - truth).abs()
    places = [1, 2, 8]
    near, far = (subsample(2)(error[:, :, places].flatten(0, 1)).median() for error in errors)
    assert near < 0.15
    assert near < far / 5
    # Elements are independent: unobserved points, and windows without observations, stay as they were
    torch.testing.assert_close(guided[..., 1::2, :], plain[..., 1::2, :], atol=1e-4, rtol=1e-4)
    assert torch.equal(guided[:, :, 4:8], plain[:, :, 4:8])


def test_observations_are_of_physical_states(prior):
    emulator = dataclasses.replace(prior, system=EULER)
    channels = len(EULER.channels)
    model = DiffusionConfig(network=TRANSFORMER).build(channels, 0, 2, WINDOW)
    model.denoiser.backbone = Prior()
    emulator = dataclasses.replace(
        emulator, model=model, autoencoder=None, guidance=GuidanceConfig(iterations=8)
    )
    truth = emulator.standardisation.inverse(torch.randn(1, channels, 4, 4, 4))
    context = torch.zeros(1, channels, 1, 4, 4)
    observations = observe(truth, [1, 2, 3, 4], noise=0.05)
    with torch.inference_mode():
        plain = roll(emulator, context, torch.zeros(1, 0), 4, [(0,)])
        guided = roll(emulator, context, torch.zeros(1, 0), 4, [(0,)], observations=observations)
    near, far = (
        (emulator.standardisation.inverse(states) - truth)[..., ::2, ::2].abs().median()
        for states in (guided, plain)
    )
    assert near < 0.1
    assert near < far / 5


def test_guidance_of_a_row_does_not_depend_on_other_rows(prior):
    truth = torch.randn(2, 2, 4, 6, 8)
    context, label, keys = torch.randn(2, 2, 1, 6, 8), torch.zeros(2, 0), [(0, "a"), (0, "b")]
    observations = observe(truth, [1, 3])
    both = roll(prior, context, label, 4, keys, observations=observations)
    alone = roll(prior, context[1:], label[1:], 4, keys[1:], observations=observations.rows(slice(1, 2)))
    torch.testing.assert_close(alone, both[1:], atol=1e-4, rtol=1e-4)


def test_a_neural_solver_cannot_be_guided():
    model = NeuralSolverConfig(network=TRANSFORMER).build(2, 3, 2, WINDOW)
    with pytest.raises(ConfigError, match="only models with sampler steps, diffusion models, can be guided"):
        roll(
            Emulator(model=model),
            torch.zeros(1, 2, 1, 4, 4),
            torch.zeros(1, 3),
            4,
            [(0,)],
            observations=observe(torch.zeros(1, 2, 4, 4, 4), [1]),
        )


def test_in_pixel_space_states_are_their_own_latents():
    emulator, x = Emulator(model=Counter()), torch.randn(1, 2, 3, 4, 4)
    assert emulator.encode(x) is x
    assert emulator.decode(x) is x
