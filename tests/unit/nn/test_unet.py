import pytest
import torch
from gradients import without_gradient

from lola.nn.unet import UNet, UNetBlock

GRID = (8, 4, 12)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def unet(spatial=2, modulation=8, **changes):
    options = {
        "channels": (8, 12, 16),
        "blocks": (1, 2, 1),
        "heads": (0, 0, 2),
        "kernel_size": [3] * (1 + spatial),
        "stride": [1] + [2] * spatial,
    }
    return UNet(4, 2, modulation, **options | changes)


def stir(network):
    """Make every block count: near the start they are all but the identity."""
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3 if parameter.ndim == 1 else parameter[0].numel() ** -0.5)
    return network


@pytest.mark.parametrize("spatial", [1, 2, 3])
@pytest.mark.parametrize("modulation", [0, 8])
@pytest.mark.parametrize("norm", ["layer", "rms", "group"])
def test_shapes_and_gradients_of_all_parameters(spatial, modulation, norm):
    network = unet(spatial, modulation, norm=norm, channels=(8, 12, 16))
    x = torch.randn(2, 4, 5, *GRID[:spatial])
    y = network(x, torch.randn(2, modulation) if modulation else None)
    assert y.shape == (2, 2, 5, *GRID[:spatial])
    y.square().sum().backward()
    assert not without_gradient(network)


@pytest.mark.parametrize("modulation", [0, 8])
def test_a_block_is_that_of_the_definition(modulation):
    block = stir(UNetBlock(6, modulation, (3, 3), heads=2))
    x = torch.randn(3, 6, 5, 4)
    m = torch.randn(3, modulation) if modulation else None
    vectors = block.modulation(m) if modulation else block.abc.flatten().expand(3, -1)
    a, b, c = (part[:, :, None, None] for part in vectors.chunk(3, dim=1))
    deviation = torch.sqrt(x.var(dim=1, correction=1, keepdim=True) + 1e-5)
    y = (1 + a) * (x - x.mean(dim=1, keepdim=True)) / deviation + b
    y = y + block.attention(y)
    y = block.conv_out(torch.nn.functional.silu(block.conv_in(y)))
    torch.testing.assert_close(block(x, m), (x + c * y) / torch.sqrt(1 + c**2))


@pytest.mark.parametrize("modulation", [0, 8])
def test_near_the_start_only_the_outer_convolutions_act(modulation):
    """Blocks are close to the identity, and every merge copies what came before the descent."""
    m = torch.randn(2, modulation) if modulation else None
    x = torch.randn(2, 4, 5, 8, 4)
    errors = []
    for identity_init in (True, False):
        network = unet(modulation=modulation, periodic=True, identity_init=identity_init)
        seen = []
        network.down[0].into.register_forward_hook(lambda module, inputs, y, seen=seen: seen.append(y))
        y = network(x, m)
        plain = network.project_out(seen[0])
        errors.append(((y - plain).norm() / plain.norm()).item())
    assert errors[0] < 0.1
    assert errors[1] > 0.5


@pytest.mark.parametrize("spatial", [1, 2, 3])
def test_periodic_networks_commute_with_rolls_by_the_downsampling(spatial):
    x, m = torch.randn(2, 4, 3, *GRID[:spatial]), torch.randn(2, 8)
    shifts, axes = (4, 0, -8)[:spatial], tuple(range(3, 3 + spatial))
    network = stir(unet(spatial, periodic=True))
    torch.testing.assert_close(
        network(x.roll(shifts, axes), m), network(x, m).roll(shifts, axes), atol=1e-4, rtol=1e-4
    )
    walled = stir(unet(spatial))
    assert not torch.allclose(walled(x.roll(shifts, axes), m), walled(x, m).roll(shifts, axes), atol=1e-2)


def test_time_does_not_wrap_around_and_has_an_order():
    network, m = stir(unet(periodic=True, heads=(0, 0, 0))), torch.randn(1, 8)
    x = torch.randn(1, 4, 5, 8, 4)
    assert not torch.allclose(network(x.roll(1, 2), m), network(x, m).roll(1, 2), atol=1e-2)


def test_every_state_and_scale_affects_the_output():
    network, m = stir(unet(heads=(0, 0, 0))), torch.randn(1, 8)
    x = torch.randn(1, 4, 5, 8, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(network(x, m)[0, 0, 2, 0, 0], x)
    assert gradient.abs().sum(dim=(0, 1)).min() > 0


def test_axes_that_the_stride_does_not_divide_are_cropped():
    network = unet(stride=(2, 2, 2))
    x = torch.randn(2, 4, 5, 7, 6)
    assert network(x, torch.randn(2, 8)).shape == (2, 2, 5, 7, 6)


def test_modulation_differs_between_samples():
    network = stir(unet())
    x, m = torch.randn(1, 4, 5, 8, 4).expand(2, -1, -1, -1, -1), torch.randn(2, 8)
    y = network(x, m)
    assert not torch.allclose(y[0], y[1], atol=1e-2)
    torch.testing.assert_close(network(x[:1], m[:1]), y[:1])
