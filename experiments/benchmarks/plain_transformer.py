r"""The transformer written the plain way: what `lola.nn.transformer` is measured against.

The same function of the same parameters, which have the same names, from stock operators alone: normalisation
by mean and variance as separate operations, rotary angles computed by every block in every call, the block's
formulas as they are printed; attention is torch's own.
"""

import einops
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lola.models.transformer_config import TransformerConfig

EPSILON = 1e-5


class PlainTransformerBlock(nn.Module):
    """A modulated block, from tokens `(B, N, features)` to the same shape."""

    def __init__(self, features: int, heads: int, axes: int, modulation: int, ffn_factor: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention = nn.ModuleDict(
            {"qkv": nn.Linear(features, 3 * features, bias=False), "out": nn.Linear(features, features)}
        )
        self.feedforward = nn.Sequential(
            nn.Linear(features, ffn_factor * features),
            nn.SiLU(),
            nn.Dropout(0.0),
            nn.Linear(ffn_factor * features, features),
        )
        self.modulation = nn.Sequential(
            nn.Linear(modulation, modulation), nn.SiLU(), nn.Linear(modulation, 4 * features)
        )
        self.theta = nn.Parameter(torch.empty(axes, features // 2))

    def forward(self, x: Tensor, h: Tensor, m: Tensor, p: Tensor) -> Tensor:
        a, b, c, d = self.modulation(m)[:, None].chunk(4, dim=-1)
        variance, mean = torch.var_mean(x, dim=-1, keepdim=True, correction=0)
        y = (1 + a) * ((x - mean) / torch.sqrt(variance + EPSILON)) + b
        y = y + self.attend(y, p)
        y = self.feedforward(y)
        y = (x + c * y) / torch.sqrt(1 + c**2)
        return (y + d * h) / torch.sqrt(1 + d**2)

    def attend(self, y: Tensor, p: Tensor) -> Tensor:
        """Self-attention with normalised queries and keys and rotary positions."""
        q, k, v = einops.rearrange(
            self.attention["qkv"](y), "b n (part h d) -> part b h n d", part=3, h=self.heads
        )
        angles = (p[..., None] * self.theta).sum(dim=-2)
        angles = einops.rearrange(angles, "n (h d) -> h n d", h=self.heads)
        q, k = (plain_rotate(plain_rms(part), angles) for part in (q, k))
        out = F.scaled_dot_product_attention(q, k, v)
        return self.attention["out"](einops.rearrange(out, "b h n d -> b n (h d)"))


def plain_rms(x: Tensor) -> Tensor:
    """Divide by the root mean square over the last axis."""
    return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + EPSILON)


def plain_rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Turn consecutive pairs of features by angles."""
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)


class PlainTransformer(nn.Module):
    """The transformer, from `(B, inputs, L, H, W)` and `(B, modulation)` to `(B, outputs, L, H, W)`."""

    def __init__(self, config: TransformerConfig, inputs: int, outputs: int) -> None:
        super().__init__()
        features, patch_size = config.features, config.patches(2)
        axes, cells = len(patch_size), torch.Size(patch_size).numel()
        self.sizes = dict(zip("ijk", patch_size, strict=True))
        self.project_in = nn.Linear(inputs * cells, features)
        self.position = nn.Linear(axes * features, features)
        self.blocks = nn.ModuleList(
            PlainTransformerBlock(features, config.heads, axes, config.modulation, config.ffn_factor)
            for _ in range(config.blocks)
        )
        self.project_out = nn.Linear(features, outputs * cells)
        self.features = features

    def forward(self, x: Tensor, m: Tensor) -> Tensor:
        x = einops.rearrange(x, "b c (l i) (h j) (w k) -> b l h w (c i j k)", **self.sizes)
        shape = dict(zip("lhw", x.shape[1:4], strict=True))
        axes = [torch.arange(size, dtype=torch.float32, device=x.device) for size in shape.values()]
        p = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2)
        n = self.features // 2
        frequencies = 1e3 ** -torch.linspace(0, 1, n, device=x.device)
        angles = p[..., None] * frequencies
        h = self.project_in(x.flatten(1, 3))
        x = h + self.position(torch.cat((angles.sin(), angles.cos()), dim=-1).flatten(-2))
        for block in self.blocks:
            x = block(x, h, m, p)
        x = self.project_out(x)
        return einops.rearrange(x, "b (l h w) (c i j k) -> b c (l i) (h j) (w k)", **shape, **self.sizes)
