r"""Multi-head self-attention with optional query-key normalisation and rotary positions.

    q, k, v = W x,  q, k <- q / rms(q), k / rms(k)  (per head)
    q_n <- R(phi_n) q_n,  k_n <- R(phi_n) k_n,  phi_n = p_n theta
    y = W' softmax(q k^T / sqrt(d)) v + b'

`p_n` are the integer coordinates of token `n` and `theta` the angles per step along each axis; R turns
consecutive pairs of features, so that the product of two tokens depends on `p_n - p_m` alone.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPSILON = 1e-5
Rotation = tuple[Tensor, Tensor]


def rotation(coordinates: Tensor, theta: Tensor, heads: int) -> Rotation:
    """Cosines and sines of the rotary angles.

    Arguments:
        coordinates: Positions of tokens, with shape `(N, axes)`.
        theta: Angles per step, with shape `(axes, heads * d / 2)`.
        heads: The number of heads.

    Returns:
        Two tensors of shape `(heads, N, d / 2)`.
    """
    # Not a matrix product, which autocast would compute in half precision
    angles = (coordinates[..., None] * theta).sum(dim=-2)
    angles = angles.unflatten(-1, (heads, -1)).movedim(-2, 0)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Turn consecutive pairs of the features of `(B, heads, N, d)`."""
    cos, sin = (part.to(x.dtype) for part in rotation)
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2)


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

    def forward(self, x: Tensor, rotation: Rotation | None = None) -> Tensor:
        """Map `(B, N, features)` to `(B, N, features)`."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if self.qk_norm:
            q, k = (F.rms_norm(part, part.shape[-1:], eps=EPSILON) for part in (q, k))
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.out(y.transpose(1, 2).flatten(-2))


class GridAttention(SelfAttention):
    """Self-attention over all positions of `(B, C, *grid)`, without positions or normalisation."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__(channels, heads, bias=True, qk_norm=False)

    def forward(self, x: Tensor, rotation: Rotation | None = None) -> Tensor:
        grid = x.shape[2:]
        y = super().forward(x.flatten(2).transpose(1, 2), rotation)
        return y.transpose(1, 2).unflatten(2, grid)
