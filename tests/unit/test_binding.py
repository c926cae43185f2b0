import pytest
import torch

from lola.conditioning import context_mask
from lola.diffusion import DiffusionConfig
from lola.neural_solver import NeuralSolverConfig
from lola.transformer import TransformerConfig
from lola.unet import UNetConfig

TRANSFORMER = TransformerConfig(features=16, blocks=2, heads=2, modulation=8, patch_size=(1, 2, 2))
NETWORKS = {
    "transformer": TRANSFORMER,
    "plain positions": TRANSFORMER.replace(rope=False),
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
            torch.testing.assert_close(bound(x, noise), backbone(x, noise, mask, label))
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
