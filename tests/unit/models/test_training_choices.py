"""The choices of an objective in addition to the published one."""

import dataclasses

import pytest
import torch

from lola.core.seeding import SampleGenerator
from lola.data.state import Batch
from lola.emulation.sampling_config import SamplerConfig
from lola.models.diffusion_config import DiffusionConfig
from lola.models.kinds import KINDS
from lola.models.masks import RHO, draw_mask, unknown_mean
from lola.models.neural_solver_config import NeuralSolverConfig
from lola.models.transformer_config import TransformerConfig

NETWORK = TransformerConfig(features=16, blocks=1, heads=2, modulation=8, patch_size=1, dropout=0.0)
KEYS = [(5, i) for i in range(40)]


@pytest.fixture
def batch():
    torch.manual_seed(0)
    return Batch(states=torch.randn(40, 2, 5, 4), parameters=torch.zeros(40, 0))


def test_forward_masks_know_as_many_states_at_the_start(batch):
    published, forward = (
        draw_mask(batch.states, SampleGenerator(KEYS), masks) for masks in ("published", "forward")
    )
    assert torch.equal(published.sum(dim=2), forward.sum(dim=2))
    assert forward[:, :, 0].all()
    assert not forward[:, :, -1].any()
    known = published[:, 0, 0].flatten()
    assert torch.equal(published[known], forward[known])
    assert 0.4 < known.float().mean() < RHO + 0.2


def test_random_numbers_after_a_mask_are_the_same(batch):
    drawn = []
    for masks in ("published", "forward"):
        generator = SampleGenerator(KEYS)
        draw_mask(batch.states, generator, masks)
        drawn.append(generator.normal(3))
    assert torch.equal(*drawn)


@pytest.mark.parametrize("kind", [NeuralSolverConfig, DiffusionConfig])
def test_the_loss_may_be_over_unknown_states_alone(kind, batch):
    losses = {}
    for states in ("published", "unknown"):
        torch.manual_seed(0)
        model = kind(network=NETWORK, loss_states=states).build(2, 0, 1, 5).eval()
        losses[states], diagnostics = model.loss(batch, SampleGenerator(KEYS))
        assert len(diagnostics) == 1
        losses["unknown of " + states] = next(iter(diagnostics.values()))
    assert torch.equal(losses["unknown"], losses["unknown of unknown"])
    assert torch.equal(losses["unknown"], losses["unknown of published"])
    assert losses["published"] != losses["unknown"]


def test_known_states_have_no_gradient_where_they_do_not_count(batch):
    model = NeuralSolverConfig(network=NETWORK, loss_states="unknown", masks="forward").build(2, 0, 1, 5)
    outputs = []
    model.network.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    mask = draw_mask(batch.states, SampleGenerator(KEYS), "forward").expand_as(batch.states)
    loss, _ = model.loss(batch, SampleGenerator(KEYS))
    torch.testing.assert_close(loss, unknown_mean((outputs[0] - batch.states).square(), mask))
    (gradient,) = torch.autograd.grad(loss, outputs[0])
    assert (gradient[mask] == 0).all()
    assert (gradient[~mask] != 0).all()


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("parameters", [0, 2])
def test_a_network_is_told_the_stride_and_else_takes_that_of_its_rollouts(kind, parameters, batch):
    model = kind.config(network=NETWORK, strides=(1, 2)).build(2, parameters, 1, 5).eval()
    plain = kind.config(network=NETWORK).build(2, parameters, 1, 5)
    expected = plain.state_dict() if parameters else {}  # without any, a solver's network is not modulated
    added = {name for name, weight in expected.items() if weight.shape != model.state_dict()[name].shape}
    assert added <= {name for name in expected if name.endswith("embed_parameters.0.weight")}
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    given = torch.randn(len(batch), parameters)
    told = [torch.cat((given, torch.full((len(batch), 1), each)), dim=1) for each in (0.0, 1.0)]
    losses = [
        model.loss(dataclasses.replace(batch, parameters=each), SampleGenerator(KEYS))[0]
        for each in (given, *told)
    ]
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]
    mask = torch.zeros(40, 1, 5, 1, dtype=torch.bool)
    mask[:, :, 0] = True
    bound = model.bind(mask, given)
    options = {"sampler": SamplerConfig(steps=2).build} if kind.sampler_steps else {}
    drawn = [
        model.predict(batch.states, mask, each, SampleGenerator(KEYS), **options, **more)
        for each, more in ((told[0], {}), (given, {}), (given, {"bound": bound}))
    ]
    torch.testing.assert_close(drawn[0], drawn[1], rtol=0, atol=0)
    torch.testing.assert_close(drawn[0], drawn[2], rtol=1e-4, atol=1e-5)
