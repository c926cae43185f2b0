import pytest
import torch

from lola.models import binding
from lola.models.diffusion_config import DiffusionConfig
from lola.models.masks import context_mask
from lola.models.neural_solver_config import NeuralSolverConfig
from lola.models.transformer_config import TransformerConfig
from lola.models.unet_config import UNetConfig
from lola.nn.prepared import cast_matrices

TRANSFORMER = TransformerConfig(features=16, blocks=2, heads=2, modulation=8, patch_size=(1, 2, 2))
NETWORKS = {
    "transformer": TRANSFORMER,
    "plain positions": TRANSFORMER.replace(rope=False),
    "all states in a token": TRANSFORMER.replace(patch_size=(5, 2, 2)),
    "unet": UNetConfig(channels=(8, 8), blocks=(1, 1), modulation=8),
}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("parameters", [0, 3])
@pytest.mark.parametrize("same", [True, False])
def test_a_bound_network_is_the_network(network, parameters, same):
    model = DiffusionConfig(network=network).build(channels=2, parameters=parameters, spatial=2, window=5)
    backbone = model.eval().denoiser.backbone
    label = torch.randn(1, parameters).expand(3, -1) if same else torch.randn(3, parameters)
    mask = context_mask(torch.zeros(1, 1, 5, 1, 1), 2)
    bound = model.bind(mask, label)
    for level in (0.5, -3.0, 0.5):
        x, noise = torch.randn(3, 2, 5, 4, 6), torch.tensor([level])
        with torch.no_grad():
            expected = backbone(x, noise, mask, label)
            torch.testing.assert_close(bound(x, noise), expected)
            torch.testing.assert_close(bound(x, noise, bound.unknown), expected[:, :, 2:])
    noise = torch.randn(3)
    with torch.no_grad():
        torch.testing.assert_close(bound(x, noise), backbone(x, noise, mask, label))


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("parameters", [0, 3])
def test_a_bound_neural_solver_is_the_solver(network, parameters):
    model = NeuralSolverConfig(network=network).build(channels=2, parameters=parameters, spatial=2, window=5)
    model.eval()
    x, label = torch.randn(3, 2, 5, 4, 6), torch.randn(3, parameters)
    mask = context_mask(torch.zeros(1, 1, 5, 1, 1), 1, last=True)
    bound = model.bind(mask, label)
    for _ in range(2):
        expected = model.predict(x, mask, label, None)
        torch.testing.assert_close(model.predict(x, mask, label, None, bound), expected)


def test_what_stays_the_same_is_computed_once():
    model = DiffusionConfig(network=TRANSFORMER).build(channels=2, parameters=3, spatial=2, window=5).eval()
    calls = []
    backbone = model.denoiser.backbone
    for part in (backbone.embed_parameters, backbone.network.position, backbone.network.blocks[0].modulation):
        part.register_forward_hook(lambda part, inputs, output: calls.append(part))
    bound = model.bind(context_mask(torch.zeros(1, 1, 5, 1, 1), 1), torch.zeros(4, 3))
    for level in (1.0, 0.0, 1.0, 0.0):
        bound(torch.randn(4, 2, 5, 4, 6), torch.tensor(level))
    assert calls.count(backbone.embed_parameters) == calls.count(backbone.network.position) == 1
    assert calls.count(backbone.network.blocks[0].modulation) == 2


def test_gradients_reach_the_fields_of_a_bound_network():
    model = DiffusionConfig(network=TRANSFORMER).build(channels=2, parameters=3, spatial=2, window=5).eval()
    mask, label, noise = context_mask(torch.zeros(1, 1, 5, 1, 1), 1), torch.zeros(1, 3), torch.zeros(1)
    bound = model.bind(mask, label)
    gradients = []
    for network in (lambda x: bound(x, noise), lambda x: model.denoiser.backbone(x, noise, mask, label)):
        x = torch.ones(1, 2, 5, 4, 6, requires_grad=True)
        network(x).square().sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("same", [True, False])
def test_precomputed_levels_equal_levels_computed_one_by_one(same):
    model = DiffusionConfig(network=TRANSFORMER).build(channels=2, parameters=3, spatial=2, window=5).eval()
    label = torch.randn(1, 3).expand(2, -1) if same else torch.randn(2, 3)
    mask = context_mask(torch.zeros(1, 1, 5, 1, 1), 2)
    alone, together = model.bind(mask, label), model.bind(mask, label)
    x = torch.randn(2, 2, 5, 4, 6)
    together.precompute(x, [0.5, -3.0, 0.5])
    assert set(together.cache) == ({0.5, -3.0} if same else set())
    with torch.no_grad():
        for level in (-3.0, 0.5):
            torch.testing.assert_close(together(x, level), alone(x, torch.tensor([level])))


def test_unknown_states_are_a_slice_where_they_are_consecutive():
    model = DiffusionConfig(network=TRANSFORMER).build(channels=2, parameters=3, spatial=2, window=5).eval()
    states = torch.zeros(1, 1, 5, 1, 1)
    scattered = torch.tensor([True, False, True, False, True]).reshape(1, 1, 5, 1, 1)
    for mask, expected in (
        (context_mask(states, 2), slice(2, 5)),
        (context_mask(states, 1, last=True), slice(0, 4)),
        (scattered, None),
        (torch.zeros(1, 1, 5, 4, 6, dtype=torch.bool), None),
    ):
        assert model.bind(mask, torch.zeros(1, 3)).unknown == expected


def test_matrices_are_cast_once_until_they_change():
    network = TRANSFORMER.build(2, 2, modulated=True).eval()
    matrix = network.blocks[0].attention.qkv.weight
    first = cast_matrices(network, torch.bfloat16)
    assert cast_matrices(network, torch.bfloat16) is first
    assert first[0].attention.qkv.dtype == first[0].up.dtype == torch.bfloat16
    with torch.no_grad():
        matrix.add_(1)
    changed = cast_matrices(network, torch.bfloat16)
    assert changed is not first
    torch.testing.assert_close(changed[0].attention.qkv, matrix.detach().bfloat16())
    assert cast_matrices(network, torch.float32)[0].attention.qkv.data_ptr() == matrix.data_ptr()


def test_a_bound_network_in_training_mode_applies_dropout():
    model = DiffusionConfig(network=TRANSFORMER.replace(dropout=0.5)).build(2, 3, 2, 5).train()
    bound = model.bind(context_mask(torch.zeros(1, 1, 5, 1, 1), 2), torch.zeros(1, 3))
    x = torch.randn(1, 2, 5, 4, 6)
    with torch.no_grad():
        assert not torch.equal(bound(x, 0.5), bound(x, 0.5))


def test_what_a_graph_returned_is_not_overwritten_by_its_next_call(monkeypatch):
    """A CUDA graph writes what it returns to the same memory in every call."""

    def replayed(network, graphs):
        kept = []

        def call(*inputs):
            y = network(*inputs)
            kept[:] = kept or [y]
            return kept[0].copy_(y)

        return call

    monkeypatch.setattr(binding, "compile_once", replayed)
    model = (
        DiffusionConfig(network=NETWORKS["unet"]).build(channels=2, parameters=3, spatial=2, window=5).eval()
    )
    bound = model.bind(
        context_mask(torch.zeros(1, 1, 5, 1, 1), 2), torch.randn(1, 3), compiled=True, graphs=True
    )
    with torch.no_grad():
        first = bound(torch.randn(1, 2, 5, 4, 6), 0.5)
        before = first.clone()
        bound(torch.randn(1, 2, 5, 4, 6), 0.5)
    assert torch.equal(first, before)
