r"""Multi-head self-attention with optional query-key normalisation and rotary positions.

    q, k, v = W x,  q, k <- q / rms(q), k / rms(k)  (per head)
    q_n <- R(phi_n) q_n,  k_n <- R(phi_n) k_n,  phi_n = p_n theta
    y = W' softmax(q k^T / sqrt(d)) v + b'

`p_n` are the integer coordinates of token `n` and `theta` the angles per step along each axis; R rotates
consecutive pairs of features, so that the product of two tokens depends on `p_n - p_m` alone.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from lola.nn.rotary import normalise, rotate

SHORT_SEQUENCE = 512
"""Tokens up to which CPUs attend faster in half precision without torch's fused kernel."""


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v of `(B, heads, N, d)`."""
    if q.is_cpu and q.dtype == torch.bfloat16 and q.shape[-2] <= SHORT_SEQUENCE:
        weights = torch.softmax((q / math.sqrt(q.shape[-1])) @ k.mT, dim=-1)
        return weights @ v
    return F.scaled_dot_product_attention(q, k, v)


class Projections(NamedTuple):
    """The matrices and biases of self-attention, its number of heads and whether it normalises."""

    qkv: Tensor
    qkv_bias: Tensor | None
    out: Tensor
    out_bias: Tensor
    heads: int
    qk_norm: bool


def self_attention(
    x: Tensor, weights: Projections, rotation: Tensor | None = None, queries: slice | None = None
) -> Tensor:
    """Self-attention over tokens.

    Arguments:
        x: The tokens, with shape `(B, N, features)`.
        weights: The projections, in the dtype of `x` unless autocast casts both.
        rotation: The tokens' rotations, with shape `(N, heads, d / 2, 2)`, if attention sees positions.
        queries: The tokens whose outputs are returned; None for all.
    """
    qkv = F.linear(x, weights.qkv, weights.qkv_bias).unflatten(-1, (3, weights.heads, -1))
    qk, v = qkv[:, :, :2], qkv[:, :, 2]
    if rotation is not None:
        qk = rotate(qk, rotation, norm=weights.qk_norm)
    elif weights.qk_norm:
        qk = normalise(qk)
    q, k = qk[:, :, 0] if queries is None else qk[:, queries, 0], qk[:, :, 1]
    y = attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return F.linear(y.transpose(1, 2).flatten(-2), weights.out, weights.out_bias)


class SelfAttention(nn.Module):
    """Self-attention over all tokens.

    Arguments:
        features: Features per token, divisible by `heads`.
        heads: The number of heads.
        bias: Whether the projection to queries, keys and values has a bias.
        qk_norm: Whether queries and keys are normalised per head.
    """

    def __init__(self, features: int, heads: int, bias: bool = False, qk_norm: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.qk_norm = qk_norm
        self.qkv = nn.Linear(features, 3 * features, bias=bias)
        self.out = nn.Linear(features, features)

    def projections(self) -> Projections:
        """The matrices that `self_attention` takes."""
        qkv, out = self.qkv, self.out
        return Projections(qkv.weight, qkv.bias, out.weight, out.bias, self.heads, self.qk_norm)

    def forward(self, x: Tensor, rotation: Tensor | None = None) -> Tensor:
        """Map `(B, N, features)` to the same shape; `rotation` is `(N, heads, d / 2, 2)`."""
        return self_attention(x, self.projections(), rotation)


class GridAttention(SelfAttention):
    """Self-attention over all positions of `(B, C, *grid)`, without positions or normalisation."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__(channels, heads, bias=True, qk_norm=False)

    def forward(self, x: Tensor, rotation: Tensor | None = None) -> Tensor:
        """Map `(B, C, *grid)` to the same shape."""
        y = super().forward(rearrange(x, "b c ... -> b (...) c"), rotation)
        return y.mT.unflatten(2, x.shape[2:])
