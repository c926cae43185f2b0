import pytest
import torch

from lola.nn.vit import Transformer, TransformerBlock


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def transformer(**changes):
    options = {"features": 16, "blocks": 2, "heads": 2, "patch_size": (1, 2, 3), **changes}
    return Transformer(4, 2, 8, **options)


def test_shapes_and_the_order_of_tokens():
    x, m = torch.randn(2, 4, 5, 4, 6), torch.randn(2, 8)
    assert transformer()(x, m).shape == (2, 2, 5, 4, 6)


def test_without_positions_tokens_may_be_reordered():
    network = transformer(rope=False)
    torch.nn.init.zeros_(network.position.weight)
    x, m = torch.randn(1, 4, 5, 4, 6), torch.randn(1, 8)
    order = torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(network(x[:, :, order], m), network(x, m)[:, :, order])


def test_positions_are_seen_in_two_ways():
    x, m = torch.randn(1, 4, 5, 4, 6), torch.randn(1, 8)
    order = torch.tensor([3, 1, 4, 0, 2])
    absolute, relative = transformer(rope=False), transformer()
    torch.nn.init.zeros_(relative.position.weight)
    for block in relative.blocks:  # blocks start near the identity, which sees no positions at all
        torch.nn.init.ones_(block.modulation[-1].bias)
        torch.nn.init.normal_(block.theta)
    for network in (absolute, relative):
        assert not torch.allclose(network(x[:, :, order], m), network(x, m)[:, :, order], atol=1e-4)


def test_a_block_starts_near_the_identity():
    x, h = torch.randn(2, 3, 6, 16)
    p = torch.zeros(6, 2)
    for modulation in (0, 8):
        block = TransformerBlock(16, 2, axes=2, modulation=modulation)
        m = torch.randn(3, modulation) if modulation else None
        assert (block(x, h, m, p) - x).abs().mean() < 0.05


def test_modulation_differs_between_samples():
    network = transformer()
    x, m = torch.randn(1, 4, 5, 4, 6).expand(2, -1, -1, -1, -1), torch.randn(2, 8)
    y = network(x, m)
    assert not torch.allclose(y[0], y[1])
    torch.testing.assert_close(network(x[:1], m[:1]), y[:1])


def test_every_parameter_learns():
    for modulation in (0, 8):
        network = Transformer(4, 2, modulation, features=16, blocks=2, heads=2, patch_size=(1, 2, 2))
        m = torch.randn(2, modulation) if modulation else None
        network(torch.randn(2, 4, 5, 4, 6), m).square().sum().backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name
