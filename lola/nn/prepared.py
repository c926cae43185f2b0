r"""A transformer whose constant parts are computed once, for inference.

While windows of the same known states are completed, only the fields change from call to call. With `W` the
input map, `w` its columns of the fields `x` and `w'` those of the fixed channels `k` (the mask), `e` the
position embedding:

    h = W [x, k] + b = w x + (w' k + b)
    x_0 = h + e

The bracket, `e` and the rotations of tokens are computed here; the blocks' weights follow from the modulation
alone, and whoever calls again with the same modulation keeps them.

Where gradients are not asked for, blocks are computed in place, in as few operations as there are: small
networks spend more time between operations than in them. In half precision the matrices are cast once, where
autocast would cast them again in every window. Of the last block, only the states that are asked for are
computed: nothing but its keys and values depends on the others.
"""

import contextlib
import math
from collections.abc import Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lola.nn.attention import SelfAttention, attend
from lola.nn.compiling import compiled
from lola.nn.embedding import coordinates
from lola.nn.layers import depth_to_space, space_to_depth
from lola.nn.rotary import EPSILON, normalise, rotate
from lola.nn.vit import Transformer, TransformerBlock, Weights


class Matrices(NamedTuple):
    """The matrices and biases of a block, and its number of heads."""

    qkv: Tensor
    qkv_bias: Tensor | None
    out: Tensor
    out_bias: Tensor
    up: Tensor
    up_bias: Tensor
    down: Tensor
    down_bias: Tensor
    heads: int
    qk_norm: bool


class PreparedTransformer:
    """A transformer with the last of its input channels fixed. Its weights must not change meanwhile.

    It computes in the type that autocast has where it is made.

    Arguments:
        network: The transformer.
        fixed: The last input channels, with shape `(B, C, L, *grid)`; B may be 1 for any batch.
        compiled: Whether the blocks are compiled.
        graphs: Whether the compiled blocks are replayed as one CUDA graph.
    """

    def __init__(
        self, network: Transformer, fixed: Tensor, compiled: bool = False, graphs: bool = False
    ) -> None:
        self.network, self.compiled, self.graphs = network, compiled, graphs
        self.blocks = [block for block in network.blocks if isinstance(block, TransformerBlock)]
        patches = space_to_depth(fixed, network.patch_size)
        self.shape = patches.shape[2:]
        self.device = fixed.device
        self.weight, rest = network.project_in.weight.tensor_split([-patches.shape[1]], dim=1)
        self.start = F.linear(patches.flatten(2).transpose(1, 2), rest, network.project_in.bias)
        p = coordinates(self.shape, fixed.device)
        self.position = network.position(network.encoding(p).flatten(-2))
        self.rotations = [block.rotation(p) for block in self.blocks]
        kind = fixed.device.type
        self.cast = torch.is_autocast_enabled(kind)
        self.dtype = torch.get_autocast_dtype(kind) if self.cast else network.project_in.weight.dtype
        self.matrices = matrices_of(network, self.dtype)

    def modulate(self, m: Tensor | None) -> list[Weights]:
        """The weights of every block for a modulation `(B, modulation)`; B may be 1 for any batch."""
        return [block.weigh(m) for block in self.blocks]

    def __call__(self, x: Tensor, weights: Sequence[Weights], states: slice | None = None) -> Tensor:
        """Map fields `(B, C, L, *grid)` as the network maps them with the fixed channels behind them.

        Arguments:
            x: The fields.
            weights: What `modulate` gave.
            states: Those that are wanted of the L, if not all.
        """
        patch_size = self.network.patch_size
        tokens = space_to_depth(x, patch_size).flatten(2).transpose(1, 2)
        h = F.linear(tokens, self.weight) + self.start
        wanted = self._tokens(states)
        y = self.network.project_out(self.run(h + self.position, h, weights, wanted))
        y = depth_to_space(y.transpose(1, 2).unflatten(2, (-1, *self.shape[1:])), patch_size).contiguous()
        return y if states is None or wanted is not None else y[:, :, states]

    def _tokens(self, states: slice | None) -> slice | None:
        """The tokens of states; None for all, as where a token has states of both kinds."""
        each = self.network.patch_size[0]
        if states is None or states.start % each or states.stop % each:
            return None
        tokens = self.shape[1:].numel()
        return slice(states.start // each * tokens, states.stop // each * tokens)

    def run(self, x: Tensor, h: Tensor, weights: Sequence[Weights], wanted: slice | None = None) -> Tensor:
        """The blocks alone, from all tokens to those wanted."""
        if torch.is_grad_enabled() or self.network.training:
            y = self.network.run(x, h, weights, self.rotations)
            return y if wanted is None else y[:, wanted]
        with torch.autocast(self.device.type, enabled=False) if self.cast else contextlib.nullcontext():
            x, h = x.to(torch.float32) if self.cast else x, h.to(torch.float32) if self.cast else h
            function = compiled(update_all, self.graphs) if self.compiled else update_all
            return function(x, h, weights, self.rotations, self.matrices, wanted)


def update_all(
    x: Tensor,
    h: Tensor,
    weights: Sequence[Weights],
    rotations: Sequence[Tensor | None],
    matrices: Sequence[Matrices],
    wanted: slice | None,
) -> Tensor:
    """All blocks, one after another; arguments as of `update`, one of each per block."""
    last = len(matrices) - 1
    for i, block in enumerate(zip(weights, rotations, matrices, strict=True)):
        x = update(x, h, *block, wanted if i == last else None)
    return x


def update(
    x: Tensor, h: Tensor, weights: Weights, turn: Tensor | None, matrices: Matrices, wanted: slice | None
) -> Tensor:
    """What `TransformerBlock.update` computes, without gradients.

    Arguments:
        x, h: Tokens and the input map's, with shape `(B, N, features)`.
        weights: What the modulation makes of the formulas.
        turn: The rotation of tokens, if attention sees positions.
        matrices: The block's matrices, in the type of the products.
        wanted: The tokens that are returned; None for all.
    """
    scale, shift, of_x, of_y, of_h = weights
    if scale.numel() == x.shape[-1]:  # one modulation serves all windows
        y = F.layer_norm(x, x.shape[-1:], scale.flatten(), shift.flatten(), EPSILON)
    else:
        y = torch.addcmul(shift, scale, F.layer_norm(x, x.shape[-1:], eps=EPSILON))
    dtype = matrices.qkv.dtype
    seen = _attention(y.to(dtype), turn, matrices, wanted)
    if wanted is not None:
        x, h, y = x[:, wanted], h[:, wanted], y[:, wanted].contiguous()
    y = y.add_(seen)
    y = F.silu(F.linear(y.to(dtype), matrices.up, matrices.up_bias), inplace=True)
    y = F.linear(y, matrices.down, matrices.down_bias)
    return (of_x * x).addcmul_(of_y, y).addcmul_(of_h, h)


def _attention(x: Tensor, turn: Tensor | None, matrices: Matrices, wanted: slice | None) -> Tensor:
    batch, count, features = x.shape
    qkv = F.linear(x, matrices.qkv, matrices.qkv_bias).view(batch, count, 3, matrices.heads, -1)
    qk, v = qkv[:, :, :2], qkv[:, :, 2]
    if torch.compiler.is_compiling() and turn is not None:
        qk = rotate(qk, turn, norm=matrices.qk_norm)
    elif turn is not None:
        qk = _rotate(qk, turn, matrices.qk_norm)
    elif matrices.qk_norm:
        qk = normalise(qk)
    q, k = qk[:, :, 0] if wanted is None else qk[:, wanted, 0], qk[:, :, 1]
    y = attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2)
    return F.linear(y.reshape(batch, -1, features), matrices.out, matrices.out_bias)


def _rotate(x: Tensor, turn: Tensor, norm: bool) -> Tensor:
    """What `rotate` computes: a product of complex numbers, and the norm's factor of every head."""
    wide = x.to(turn.dtype)
    pairs = torch.view_as_complex(wide.unflatten(-1, (-1, 2)))
    y = torch.view_as_real(pairs * torch.view_as_complex(turn)[:, None]).flatten(-2)
    if norm:
        length = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        y.mul_(length.mul_(1 / math.sqrt(x.shape[-1])).square_().add_(EPSILON).rsqrt_())
    return y.to(x.dtype)


_kept: WeakKeyDictionary[nn.Module, dict[torch.dtype, tuple[tuple[int, ...], list[Matrices]]]] = (
    WeakKeyDictionary()
)


def matrices_of(network: Transformer, dtype: torch.dtype) -> list[Matrices]:
    """The matrices of every block in a type; those that were cast are kept until the network changes."""
    blocks = [block for block in network.blocks if isinstance(block, TransformerBlock)]
    weights = [weight for block in blocks for weight in block.parameters()]
    if all(weight.dtype == dtype for weight in weights) or any(each.is_inference() for each in weights):
        return [_matrices(block, dtype) for block in blocks]
    state = tuple(number for weight in weights for number in (weight.data_ptr(), weight._version))
    kept = _kept.setdefault(network, {})
    if dtype not in kept or kept[dtype][0] != state:
        kept[dtype] = state, [_matrices(block, dtype) for block in blocks]
    return kept[dtype][1]


def _matrices(block: TransformerBlock, dtype: torch.dtype) -> Matrices:
    attention, up, down = block.attention, block.feedforward[0], block.feedforward[3]
    assert isinstance(attention, SelfAttention)
    assert isinstance(up, nn.Linear)
    assert isinstance(down, nn.Linear)
    return Matrices(
        qkv=_cast(attention.qkv.weight, dtype),
        qkv_bias=None if attention.qkv.bias is None else _cast(attention.qkv.bias, dtype),
        out=_cast(attention.out.weight, dtype),
        out_bias=_cast(attention.out.bias, dtype),
        up=_cast(up.weight, dtype),
        up_bias=_cast(up.bias, dtype),
        down=_cast(down.weight, dtype),
        down_bias=_cast(down.bias, dtype),
        heads=attention.heads,
        qk_norm=attention.qk_norm,
    )


def _cast(weight: Tensor, dtype: torch.dtype) -> Tensor:
    return weight.detach().to(dtype)
