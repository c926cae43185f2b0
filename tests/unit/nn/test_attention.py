import math

import pytest
import torch

from lola.nn.attention import GridAttention, SelfAttention, rotate, rotation
from lola.nn.embedding import coordinates


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


def test_rotation_turns_consecutive_pairs_by_the_angle():
    theta = torch.tensor([[0.5, -0.2], [0.1, 0.3]])
    p = torch.tensor([[2.0, 3.0]])
    x = torch.randn(1, 1, 1, 4)
    y = rotate(x, rotation(p, theta, heads=1))
    turned = torch.view_as_complex(x.unflatten(-1, (2, 2))) * torch.exp(1j * (p @ theta))
    torch.testing.assert_close(y, torch.view_as_real(turned).flatten(-2))


def test_rotary_products_depend_on_relative_positions_alone():
    theta = torch.randn(2, 8)
    p = coordinates((3, 4), torch.device("cpu"))
    q, k = torch.randn(2, 1, 2, 1, 8)
    shift = torch.tensor([5.0, -7.0])
    products = []
    for positions in (p, p + shift):
        turn = rotation(positions, theta, heads=2)
        products.append(rotate(q.expand(1, 2, 12, 8), turn) @ rotate(k.expand(1, 2, 12, 8), turn).mT)
    torch.testing.assert_close(*products, atol=1e-4, rtol=1e-4)


def test_angles_stay_exact_under_autocast():
    theta, p = torch.rand(1, 4), torch.arange(100.0)[:, None]
    expected = rotation(p, theta, 2)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(rotation(p, theta, 2), expected)


def test_grid_attention_is_blind_to_positions():
    attention = GridAttention(8, heads=2)
    x = torch.randn(2, 8, 3, 4)
    order = torch.randperm(12)
    shuffled = x.flatten(2)[..., order].unflatten(2, (3, 4))
    torch.testing.assert_close(attention(shuffled).flatten(2), attention(x).flatten(2)[..., order])
