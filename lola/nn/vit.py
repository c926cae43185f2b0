r"""A modulated transformer over the states of a window (Section 3.3).

The tokens are patches over time and grid, time slowest. With `h` the tokens after the input map, `m` the
modulation vector and `a, b, c, d` per block either functions of `m` or free parameters:

    y = (1 + a) norm(x) + b
    y <- y + attention(y)
    y <- feedforward(y)
    y <- (x + c y) / sqrt(1 + c^2)
    x <- (y + d h) / sqrt(1 + d^2)

The last two lines are computed as one weighted sum of x, y and h, since their weights are small tensors.
Where the modulation and part of the input stay the same from call to call, `lola.nn.prepared` computes what
follows from them once.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lola.nn.attention import SelfAttention
from lola.nn.embedding import SineEncoding, coordinates, mlp
from lola.nn.layers import depth_to_space, scale_parameters, space_to_depth
from lola.nn.recompute import Block
from lola.nn.rotary import rotation

Weights = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


class TransformerBlock(Block):
    """A block of the transformer.

    Arguments:
        features: Features per token.
        heads: Attention heads.
        axes: Axes of the tokens' coordinates: time and grid.
        modulation: Features of the modulation vector; 0 makes a, b, c, d free parameters.
        ffn_factor: Width of the feed-forward network over `features`.
        dropout: Probability of dropping within the feed-forward network.
        qk_norm: Whether queries and keys are normalised.
        rope: Whether attention sees relative positions.
    """

    def __init__(
        self,
        features: int,
        heads: int,
        axes: int,
        modulation: int,
        ffn_factor: int = 4,
        dropout: float = 0.0,
        qk_norm: bool = True,
        rope: bool = True,
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(features, elementwise_affine=False)
        self.attention = SelfAttention(features, heads, qk_norm=qk_norm)
        self.feedforward = nn.Sequential(
            nn.Linear(features, ffn_factor * features),
            nn.SiLU(),
            nn.Dropout(dropout),
            nn.Linear(ffn_factor * features, features),
        )
        self.modulation = mlp(modulation, 4 * features, modulation) if modulation else None
        if self.modulation is None:
            self.abcd = nn.Parameter(1e-2 * torch.randn(4, features))
        else:
            scale_parameters(self.modulation[-1], 1e-2)
        if rope:
            # Random directions in space-time, wavelengths of 2 pi to 200 pi tokens
            direction = nn.functional.normalize(torch.randn(axes, features // 2), dim=0)
            self.theta = nn.Parameter(direction * 100 ** -torch.rand(features // 2))
        self.rope = rope
        self._turned: tuple[Tensor, tuple[int, int], Tensor] | None = None

    def forward(self, x: Tensor, h: Tensor, m: Tensor | None, p: Tensor) -> Tensor:
        """Map tokens `(B, N, features)`, given `h` alike, `m` `(B, modulation)`, coordinates `(N, axes)`."""
        return self.update(x, h, self.weigh(m), self.rotation(p))

    def weigh(self, m: Tensor | None) -> Weights:
        """What the modulation makes of the formulas: 1 + a, b, and the weights of x, y and h in the sum."""
        if self.modulation is None:
            a, b, c, d = self.abcd
        else:
            a, b, c, d = self.modulation(m)[:, None].chunk(4, dim=-1)
        last = torch.rsqrt(1 + d * d)
        both = last * torch.rsqrt(1 + c * c)
        return 1 + a, b, both, both * c, last * d

    def update(self, x: Tensor, h: Tensor, weights: Weights, rotation: Tensor | None) -> Tensor:
        """The formulas, given the weights and the rotation of tokens."""
        scale, shift, of_x, of_y, of_h = weights
        if scale.numel() == x.shape[-1] and not torch.is_grad_enabled():  # one modulation serves all windows
            y = F.layer_norm(x, x.shape[-1:], scale.flatten(), shift.flatten(), self.norm.eps)
        else:
            y = torch.addcmul(shift, scale, self.norm(x))
        y = y + self.attention(y, rotation)
        y = self.feedforward(y)
        return torch.addcmul(torch.addcmul(of_x * x, of_y, y), of_h, h)

    def rotation(self, p: Tensor) -> Tensor | None:
        """The rotation of tokens at coordinates `(N, axes)`, if attention sees their positions."""
        return self._rotation(p) if self.rope else None

    def _rotation(self, p: Tensor) -> Tensor:
        """The rotation of tokens, kept between calls that do not train."""
        if torch.compiler.is_compiling():
            return rotation(p, self.theta, self.attention.heads)
        if torch.is_grad_enabled() or self.theta.is_inference():
            self._turned = None
            return rotation(p, self.theta, self.attention.heads)
        state = (self.theta.data_ptr(), self.theta._version)
        if self._turned is None or self._turned[0] is not p or self._turned[1] != state:
            self._turned = (p, state, rotation(p, self.theta, self.attention.heads))
        return self._turned[2]


class Transformer(nn.Module):
    """The transformer, from `(B, inputs, L, *grid)` to `(B, outputs, L, *grid)`.

    Arguments:
        inputs, outputs: Channels in and out.
        modulation: Features of the modulation vector; 0 is none.
        features: Features per token.
        blocks: The number of blocks.
        heads: Attention heads.
        patch_size: Sizes of a patch along time and each grid axis.
        ffn_factor, dropout, qk_norm, rope: As in `TransformerBlock`.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        modulation: int,
        *,
        features: int,
        blocks: int,
        heads: int,
        patch_size: Sequence[int],
        ffn_factor: int = 4,
        dropout: float = 0.0,
        qk_norm: bool = True,
        rope: bool = True,
    ) -> None:
        super().__init__()
        axes = len(patch_size)
        cells = torch.Size(patch_size).numel()
        self.patch_size = tuple(patch_size)
        self.project_in = nn.Linear(inputs * cells, features)
        self.encoding = SineEncoding(features)
        self.position = nn.Linear(axes * features, features)
        self.blocks = nn.ModuleList(
            TransformerBlock(features, heads, axes, modulation, ffn_factor, dropout, qk_norm, rope)
            for _ in range(blocks)
        )
        self.project_out = nn.Linear(features, outputs * cells)

    def forward(self, x: Tensor, m: Tensor | None = None) -> Tensor:
        """Map `(B, inputs, L, *grid)`, modulated by `m` `(B, modulation)`, to `(B, outputs, L, *grid)`."""
        x = space_to_depth(x, self.patch_size)
        shape = x.shape[2:]
        p = coordinates(shape, x.device)
        h = self.project_in(x.flatten(2).transpose(1, 2))
        x = h + self.position(self.encoding(p).flatten(-2))
        for block in self.blocks:
            x = block(x, h, m, p)
        x = self.project_out(x).transpose(1, 2).unflatten(2, shape)
        return depth_to_space(x, self.patch_size).contiguous()

    def run(
        self, x: Tensor, h: Tensor, weights: Sequence[Weights], rotations: Sequence[Tensor | None]
    ) -> Tensor:
        """The blocks alone, from tokens to tokens, given the weights and the rotation of each."""
        for block, weight, turn in zip(self.blocks, weights, rotations, strict=True):
            x = block.update(x, h, weight, turn)  # type: ignore[operator]
        return x
