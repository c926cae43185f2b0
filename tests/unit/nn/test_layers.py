import itertools
import math

import einops
import pytest
import torch

from lola.nn.layers import (
    ChannelNorm,
    Down,
    Up,
    WindowConvolution,
    convolution,
    depth_to_space,
    has_few_positions,
    init_near_identity_,
    normalisation,
    space_to_depth,
    to_fast_memory_format,
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("spatial", [1, 2, 3])
def test_channel_norm_is_that_of_the_definition(spatial):
    x = 3 + 2 * torch.randn(2, 7, *range(3, 3 + spatial))
    mean, variance = x.mean(dim=1, keepdim=True), x.var(dim=1, correction=1, keepdim=True)
    torch.testing.assert_close(ChannelNorm()(x), (x - mean) / torch.sqrt(variance + 1e-5))


def test_channel_norm_keeps_the_bessel_corrected_epsilon_of_small_variances():
    x = 1e-3 * torch.randn(2, 3, 4, 4)
    variance = x.var(dim=1, correction=1, keepdim=True)
    torch.testing.assert_close(
        ChannelNorm()(x), (x - x.mean(dim=1, keepdim=True)) / torch.sqrt(variance + 1e-5)
    )


def test_rms_norm_has_a_unit_root_mean_square():
    y = ChannelNorm("rms")(5 * torch.randn(2, 8, 4, 4) + 1)
    torch.testing.assert_close(y.square().mean(dim=1), torch.ones(2, 4, 4))


@pytest.mark.parametrize(("channels", "groups"), [(32, 16), (6, 6)])
def test_group_norm_is_over_the_grid_and_at_most_sixteen_groups(channels, groups):
    x = 3 + 2 * torch.randn(2, channels, 4, 5)
    parts = einops.rearrange(x, "b (g c) h w -> b g (c h w)", g=groups)
    y = (parts - parts.mean(dim=-1, keepdim=True)) / torch.sqrt(
        parts.var(dim=-1, correction=0, keepdim=True) + 1e-5
    )
    expected = einops.rearrange(y, "b g (c h w) -> b (g c) h w", h=4, w=5)
    torch.testing.assert_close(normalisation("group", channels)(x), expected)
    assert not list(normalisation("group", channels).parameters())


def test_space_to_depth_is_channel_major_over_any_axes():
    x = torch.randn(2, 3, 4, 6, 10)
    y = einops.rearrange(x, "b c (l i) (h j) (w k) -> b (c i j k) l h w", i=1, j=3, k=5)
    assert torch.equal(space_to_depth(x, (1, 3, 5)), y)
    assert torch.equal(depth_to_space(y, (1, 3, 5)), x)


def test_space_to_depth_is_torch_pixel_unshuffle_in_2d():
    x = torch.randn(2, 3, 8, 6)
    y = torch.nn.functional.pixel_unshuffle(x, 2)
    assert torch.equal(space_to_depth(x, (2, 2)), y)
    assert torch.equal(depth_to_space(y, (2, 2)), torch.nn.functional.pixel_shuffle(y, 2))


@pytest.mark.parametrize(("spatial", "inputs", "outputs"), [(1, 4, 4), (2, 3, 8), (3, 8, 3)])
def test_near_identity_copies_channels_in_turn(spatial, inputs, outputs):
    layer = convolution(inputs, outputs, spatial)
    init_near_identity_(layer)
    x = torch.randn(2, inputs, *[5] * spatial)
    copies = x[:, [i % inputs for i in range(outputs)]]
    residual = layer(x) - copies
    assert 0 < residual.std() < 0.03


def test_periodic_convolution_commutes_with_rolls():
    layer = convolution(2, 3, 2, periodic=True)
    x = torch.randn(1, 2, 6, 8)
    torch.testing.assert_close(layer(x.roll((2, 3), (2, 3))), layer(x).roll((2, 3), (2, 3)))
    walls = convolution(2, 3, 2)
    assert not torch.allclose(walls(x.roll((2, 3), (2, 3))), walls(x).roll((2, 3), (2, 3)))


def shifted_sum(layer, x, wrap):
    """A convolution of windows as a sum over its kernel, of shifted and padded windows, term by term."""
    kernel = layer.weight.shape[2:]
    padded = x
    for axis, size in enumerate(kernel, 2):
        last = padded.movedim(axis, -1)
        sides = torch.zeros_like(last[..., : size // 2])
        left, right = (
            (last[..., -(size // 2) :], last[..., : size // 2]) if wrap and axis > 2 else (sides,) * 2
        )
        padded = torch.cat((left, last, right), dim=-1).movedim(-1, axis) if size > 1 else padded
    y = layer.bias.reshape(-1, *[1] * len(kernel))
    for place in itertools.product(*map(range, kernel)):
        part = padded
        for axis, (start, size) in enumerate(zip(place, x.shape[2:], strict=True), 2):
            part = part.narrow(axis, start, size)
        y = y + torch.einsum("oi,bi...->bo...", layer.weight[(..., *place)], part)
    strides = [slice(None, None, step) for step in layer.stride]
    return y[(slice(None), slice(None), *strides)]


@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize(
    ("kernel_size", "stride"),
    [((3, 3), (1, 2)), ((3, 3, 5), (2, 1, 2)), ((1, 3, 3, 3), (1, 2, 2, 1)), ((3, 3, 1, 3), (2, 1, 1, 2))],
)
def test_window_convolution_is_that_of_the_definition(kernel_size, stride, periodic):
    layer = WindowConvolution(2, 3, kernel_size, stride, periodic).double()
    x = torch.randn(2, 2, *(5, 4, 6, 3)[: len(kernel_size)], dtype=torch.float64)
    torch.testing.assert_close(layer(x), shifted_sum(layer, x, periodic))


def test_window_convolution_starts_as_those_of_torch():
    ours, theirs = WindowConvolution(16, 64, (3, 3, 3)), torch.nn.Conv3d(16, 64, 3)
    assert ours.weight.shape == theirs.weight.shape
    for name in ("weight", "bias"):
        a, b = getattr(ours, name), getattr(theirs, name)
        torch.testing.assert_close(a.abs().max(), b.abs().max(), rtol=0.1, atol=0)
        torch.testing.assert_close(a.std(), b.std(), rtol=0.3, atol=0)


@pytest.mark.parametrize("spatial", [1, 2, 3])
@pytest.mark.parametrize("positions", ["few", "many"])
@pytest.mark.parametrize("periodic", [True, False])
def test_resampling_is_a_convolution_of_folded_states(spatial, positions, periodic):
    """However weights and states are laid out in memory."""
    factors, batch = (2, 3, 1)[:spatial], 2 if positions == "few" else 100
    cells = math.prod(factors)
    x = torch.randn(batch, 4, *(4, 6, 5)[:spatial])
    down = Down(factors, convolution(4 * cells, 7, spatial, periodic=periodic))
    z = space_to_depth(x, factors)
    torch.testing.assert_close(down(x), down[1](z), atol=1e-5, rtol=1e-4)
    up = Up(convolution(4 * cells, 7 * cells, spatial, periodic=periodic), factors)
    torch.testing.assert_close(up(z), depth_to_space(up[0](z), factors), atol=1e-5, rtol=1e-4)
    assert has_few_positions(z) == (positions == "few")
    assert has_few_positions(x, cells) == has_few_positions(z)


def test_states_are_channels_last_unless_they_are_few():
    many, few = (
        to_fast_memory_format(torch.randn(2, 4, 8, 8)),
        to_fast_memory_format(torch.randn(2, 64, 4, 4).mT),
    )
    assert many.is_contiguous(memory_format=torch.channels_last)
    assert few.is_contiguous()


@pytest.mark.parametrize("shape", [(2, 8, 16, 16), (2, 64, 2, 2)])
def test_half_precision_normalisation_is_exact_up_to_rounding(shape):
    x = torch.randn(shape).bfloat16()
    y = ChannelNorm()(x)
    assert y.dtype == torch.bfloat16
    assert (y.float() - ChannelNorm()(x.float())).abs().max() <= 2**-8 * y.abs().max()
