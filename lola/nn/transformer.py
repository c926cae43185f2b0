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
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lola.nn.attention import Projections, SelfAttention, self_attention
from lola.nn.embedding import SineEncoding, coordinates, mlp
from lola.nn.layers import depth_to_space, scale_parameters, space_to_depth
from lola.nn.recompute import Block
from lola.nn.rotary import rotations

ModulationWeights = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""1 + a, b, and the weights of x, y and h in the sum, `(features)` or `(B, 1, features)` each."""


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
        self._dropout = dropout
        self._cached_rotation: tuple[Tensor, tuple[int, int], Tensor] | None = None

    def forward(self, x: Tensor, h: Tensor, m: Tensor | None, p: Tensor) -> Tensor:
        """Map tokens `(B, N, features)`, given `h` alike, `m` `(B, modulation)`, coordinates `(N, axes)`."""
        weights, rotation = self.modulation_weights(m), self.rotation(p)
        return update(x, h, weights, rotation, self.matrices(), dropout=self.dropout)

    def modulation_weights(self, m: Tensor | None) -> ModulationWeights:
        """The weights in the formulas, given `m` `(B, modulation)`, if the block is modulated."""
        if self.modulation is None:
            a, b, c, d = self.abcd
        else:
            a, b, c, d = self.modulation(m)[:, None].chunk(4, dim=-1)
        last = torch.rsqrt(1 + d * d)
        both = last * torch.rsqrt(1 + c * c)
        return 1 + a, b, both, both * c, last * d

    def rotation(self, p: Tensor) -> Tensor | None:
        """The rotation of tokens at coordinates `(N, axes)`, cached where gradients are off; None without
        positions."""
        if not self.rope:
            return None
        heads = self.attention.heads
        if torch.compiler.is_compiling():
            return rotations(p, self.theta, heads)
        if torch.is_grad_enabled() or self.theta.is_inference():
            self._cached_rotation = None
            return rotations(p, self.theta, heads)
        version = (self.theta.data_ptr(), self.theta._version)
        cached = self._cached_rotation
        if cached is None or cached[0] is not p or cached[1] != version:
            self._cached_rotation = cached = (p, version, rotations(p, self.theta, heads))
        return cached[2]

    @property
    def dropout(self) -> float:
        """The probability of dropping within the feed-forward network in the current mode."""
        return self._dropout if self.training else 0.0

    def matrices(self) -> "Matrices":
        """The matrices that `update` takes."""
        up, down = self.feedforward[0], self.feedforward[3]
        assert isinstance(up, nn.Linear)
        assert isinstance(down, nn.Linear)
        return Matrices(self.attention.projections(), up.weight, up.bias, down.weight, down.bias)


class Matrices(NamedTuple):
    """The matrices and biases of a block."""

    attention: Projections
    up: Tensor
    up_bias: Tensor
    down: Tensor
    down_bias: Tensor


def update(
    x: Tensor,
    h: Tensor,
    weights: ModulationWeights,
    rotation: Tensor | None,
    matrices: Matrices,
    tokens: slice | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """The formulas of a block, in the dtype of `x`, with matrix products in that of the matrices.

    Arguments:
        x, h: Tokens and the input map's, with shape `(B, N, features)`.
        weights, rotation, matrices: The block's.
        tokens: Those that are returned; None for all.
        dropout: Probability of dropping within the feed-forward network.
    """
    scale, shift, of_x, of_y, of_h = weights
    inference = not torch.is_grad_enabled()  # nothing is saved for a backward pass, and may be overwritten
    if scale.numel() == x.shape[-1] and inference:  # one modulation serves all windows
        y = F.layer_norm(x, x.shape[-1:], scale.flatten(), shift.flatten())
    else:
        y = torch.addcmul(shift, scale, F.layer_norm(x, x.shape[-1:]))
    dtype = matrices.up.dtype
    attended = self_attention(y.to(dtype), matrices.attention, rotation, tokens)
    if tokens is not None:
        x, h, y = x[:, tokens], h[:, tokens], y[:, tokens].contiguous()
    y = y.add_(attended) if inference else y + attended
    y = F.silu(F.linear(y.to(dtype), matrices.up, matrices.up_bias), inplace=inference)
    if dropout:
        y = F.dropout(y, dropout)
    y = F.linear(y, matrices.down, matrices.down_bias)
    return (of_x * x).addcmul_(of_y, y).addcmul_(of_h, h)


def update_all(
    x: Tensor,
    h: Tensor,
    weights: Sequence[ModulationWeights],
    rotations: Sequence[Tensor | None],
    matrices: Sequence[Matrices],
    tokens: slice | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """All blocks, one after another; arguments as of `update`, one of each per block.

    Of the last block only the wanted tokens are computed: nothing but its keys and values depends on others.
    """
    last = len(matrices) - 1
    for i, block in enumerate(zip(weights, rotations, matrices, strict=True)):
        x = update(x, h, *block, tokens=tokens if i == last else None, dropout=dropout)
    return x


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
