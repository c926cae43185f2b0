r"""Multi-head self-attention with optional query-key normalisation and rotary positions.

    q, k, v = W x,  q, k <- q / rms(q), k / rms(k)  (per head)
    q_n <- R(phi_n) q_n,  k_n <- R(phi_n) k_n,  phi_n = p_n theta
    y = W' softmax(q k^T / sqrt(d)) v + b'

`p_n` are the integer coordinates of token `n` and `theta` the angles per step along each axis; R turns
consecutive pairs of features, so that the product of two tokens depends on `p_n - p_m` alone.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lola.nn.rotary import normalise, rotate

SHORT = 512


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v of `(B, heads, N, d)`."""
    if q.is_cpu and q.dtype == torch.bfloat16 and q.shape[-2] <= SHORT:
        # Where a few tokens meet, torch's fused kernel for CPUs is slower in half precision than its parts
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

    def forward(self, x: Tensor, rotation: Tensor | None = None) -> Tensor:
        """Map `(B, N, features)` to the same shape; `rotation` is `(N, heads, d / 2, 2)`."""
        qk, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).split((2, 1), dim=2)
        if rotation is not None:
            qk = rotate(qk, rotation, norm=self.qk_norm)
        elif self.qk_norm:
            qk = normalise(qk)
        q, k, v = (part.transpose(1, 2) for part in (*qk.unbind(2), v.squeeze(2)))
        y = attend(q, k, v)
        return self.out(y.transpose(1, 2).flatten(-2))


class GridAttention(SelfAttention):
    """Self-attention over all positions of `(B, C, *grid)`, without positions or normalisation."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__(channels, heads, bias=True, qk_norm=False)

    def forward(self, x: Tensor, rotation: Tensor | None = None) -> Tensor:
        grid = x.shape[2:]
        y = super().forward(x.flatten(2).transpose(1, 2), rotation)
        return y.transpose(1, 2).unflatten(2, grid)
