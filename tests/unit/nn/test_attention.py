import math

import pytest
import torch
from torch.overrides import TorchFunctionMode

from lola.nn.attention import SHORT_SEQUENCE, GridAttention, SelfAttention, attend
from lola.nn.rotary import rotations


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_attention_is_softmax_of_normalised_products():
    attention = SelfAttention(12, heads=3)
    x = torch.randn(2, 5, 12)
    y = torch.empty(2, 5, 12)
    q, k, v = attention.qkv(x).chunk(3, dim=-1)
    for head in range(3):
        part = slice(4 * head, 4 * head + 4)
        qh, kh = (
            u[..., part] / torch.sqrt(u[..., part].square().mean(-1, keepdim=True) + 1e-5) for u in (q, k)
        )
        weights = torch.softmax(qh @ kh.mT / math.sqrt(4), dim=-1)
        y[..., part] = weights @ v[..., part]
    torch.testing.assert_close(attention(x), attention.out(y))


def test_grid_attention_is_blind_to_positions():
    attention = GridAttention(8, heads=2)
    x = torch.randn(2, 8, 3, 4)
    order = torch.randperm(12)
    shuffled = x.flatten(2)[..., order].unflatten(2, (3, 4))
    torch.testing.assert_close(attention(shuffled).flatten(2), attention(x).flatten(2)[..., order])


@pytest.mark.parametrize("tokens", [7, SHORT_SEQUENCE + 1])
def test_half_precision_attends_as_torch_does(tokens):
    q, k, v = torch.randn(3, 2, 3, tokens, 16)
    exact = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    half = [part.bfloat16() for part in (q, k, v)]
    fused = torch.nn.functional.scaled_dot_product_attention(*half)
    ours = attend(*half)
    assert ours.dtype == torch.bfloat16
    assert (ours - exact).norm() <= 1.5 * (fused - exact).norm()
    torch.testing.assert_close(attend(q, k, v), exact)


class Attended(TorchFunctionMode):
    """Records what is given to torch's attention."""

    def __init__(self):
        super().__init__()
        self.given = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.nn.functional.scaled_dot_product_attention:
            self.given.append((args, kwargs or {}))
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("grid", [False, True], ids=["tokens", "grid"])
@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
def test_attention_is_given_what_flash_attention_takes(grid, training):
    """Half precision, contiguous features of a multiple of 8 per head, and no mask: others are slow."""
    x = torch.randn(2, 576, 128)
    x = x.mT.unflatten(2, (24, 24)) if grid else x
    module = (GridAttention(128, heads=2) if grid else SelfAttention(128, heads=2)).bfloat16()
    rotation = None if grid else rotations(torch.arange(576.0)[:, None], torch.randn(1, 64), 2)
    with Attended() as attended, torch.set_grad_enabled(training):
        module(x.bfloat16(), rotation)
    ((tensors, options),) = attended.given
    assert not options
    for each in tensors:
        assert each.shape == (2, 2, 576, 64)
        assert each.dtype == torch.bfloat16
        assert each.stride(-1) == 1
        assert all(stride % 8 == 0 for stride in each.stride()[:-1])
