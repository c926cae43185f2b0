r"""Multi-head self-attention with optional query-key normalisation and rotary positions.

    q, k, v = W x,  q, k <- q / rms(q), k / rms(k)  (per head)
    q_n <- R(phi_n) q_n,  k_n <- R(phi_n) k_n,  phi_n = p_n theta
    y = W' softmax(q k^T / sqrt(d)) v + b'

`p_n` are the integer coordinates of token `n` and `theta` the angles per step along each axis; R rotates
consecutive pairs of features, so that the product of two tokens depends on `p_n - p_m` alone.
"""

import math

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

    def forward(self, x: Tensor, rotation: Tensor | None = None, queries: slice | None = None) -> Tensor:
        """Map tokens `(B, N, features)` to the same shape.

        Arguments:
            x: The tokens.
            rotation: Their rotations, with shape `(N, heads, d / 2, 2)`, if attention sees positions.
            queries: The tokens whose outputs are wanted, if not all.
        """
        qkv = rearrange(self.qkv(x), "b n (part heads d) -> b n part heads d", part=3, heads=self.heads)
        qk, v = qkv[:, :, :2], qkv[:, :, 2]
        if rotation is not None:
            qk = rotate(qk, rotation, norm=self.qk_norm)
        elif self.qk_norm:
            qk = normalise(qk)
        q, k = qk.unbind(2)
        if queries is not None:
            q = q[:, queries]
        y = attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        return self.out(rearrange(y, "b heads n d -> b n (heads d)"))


class GridAttention(SelfAttention):
    """Self-attention over all positions of `(B, C, *grid)`, without positions or normalisation."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__(channels, heads, bias=True, qk_norm=False)

    def forward(self, x: Tensor, rotation: Tensor | None = None, queries: slice | None = None) -> Tensor:
        """Map `(B, C, *grid)` to the same shape."""
        y = super().forward(rearrange(x, "b c ... -> b (...) c"), rotation, queries)
        return y.mT.unflatten(2, x.shape[2:])
