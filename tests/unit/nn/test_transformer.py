import pytest
import torch
from gradients import without_gradient

from lola.nn.embedding import coordinates
from lola.nn.rotary import rotations
from lola.nn.transformer import Transformer, TransformerBlock


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def transformer(**changes):
    options = {"features": 16, "blocks": 2, "heads": 2, "patch_size": (1, 2, 3), **changes}
    return Transformer(4, 2, 8, **options)


def transformer_of(network):
    fresh = transformer()
    fresh.load_state_dict(network.state_dict())
    return fresh


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
        assert not without_gradient(network)


def test_a_block_is_that_of_the_definition():
    block = TransformerBlock(16, 2, axes=2, modulation=0)
    torch.nn.init.normal_(block.abcd)
    x, h = torch.randn(2, 3, 6, 16)
    p = coordinates((2, 3), x.device)
    a, b, c, d = block.abcd
    deviation = torch.sqrt(x.var(dim=-1, correction=0, keepdim=True) + 1e-5)
    y = (1 + a) * (x - x.mean(dim=-1, keepdim=True)) / deviation + b
    y = block.feedforward(y + block.attention(y, rotations(p, block.theta, heads=2)))
    y = (x + c * y) / torch.sqrt(1 + c**2)
    torch.testing.assert_close(block(x, h, None, p), (y + d * h) / torch.sqrt(1 + d**2))


def test_rotations_kept_for_inference_follow_the_weights():
    network = transformer()
    for block in network.blocks:  # blocks start near the identity, which sees no positions at all
        torch.nn.init.ones_(block.modulation[-1].bias)
    x, m = torch.randn(1, 4, 5, 4, 6), torch.randn(1, 8)

    before = network(x, m).detach()
    with torch.no_grad():
        torch.testing.assert_close(network(x, m), before)
        kept = network.blocks[0]._cached_rotation
        network(x, m)
        assert network.blocks[0]._cached_rotation is kept

        network.blocks[0].theta.mul_(2)
        assert not torch.equal(network(x, m), before)
        other = transformer()
        network.load_state_dict(other.state_dict())
        torch.testing.assert_close(network(x, m), other(x, m))
        shorter = torch.randn(1, 4, 3, 4, 6)
        torch.testing.assert_close(network(shorter, m), other(shorter, m))


def test_rotations_kept_in_inference_mode_do_not_reach_training():
    network = transformer()
    x, m = torch.randn(1, 4, 5, 4, 6), torch.randn(1, 8)
    with torch.inference_mode():
        expected = network(x, m)
    y = network(x, m)
    torch.testing.assert_close(y, expected.clone())
    y.sum().backward()
    assert network.blocks[0].theta.grad.abs().sum() > 0
    with torch.no_grad():
        network.blocks[0].theta.data.add_(1.0)  # an optimiser that leaves no trace
        torch.testing.assert_close(network(x, m), transformer_of(network)(x, m))
