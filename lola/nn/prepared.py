r"""A transformer whose constant parts are computed once, for inference.

While windows of the same known states are completed, only the fields change from call to call. With `W` the
input map, `w` its columns of the fields `x` and `w'` those of the fixed channels `k` (the mask), `e` the
position embedding:

    h = W [x, k] + b = w x + (w' k + b)
    x_0 = h + e

The bracket, `e` and the rotations of tokens are computed here; the blocks' weights follow from the modulation
alone, and callers cache them for a modulation that returns.

In half precision the matrices are cast once, where autocast would cast them again in every window. Of the
last block, only the requested states are computed.
"""

import contextlib
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from lola.nn.compiling import compiled
from lola.nn.embedding import coordinates
from lola.nn.layers import depth_to_space, space_to_depth
from lola.nn.transformer import Matrices, ModulationWeights, Transformer, TransformerBlock, update_all


class PreparedTransformer:
    """A transformer with the last of its input channels fixed. Its weights must not change meanwhile.

    It computes in the dtype of the autocast that it is constructed under.

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
        self.matrices = cast_matrices(network, self.dtype)

    def modulate(self, m: Tensor | None) -> list[ModulationWeights]:
        """The weights of every block for a modulation `(B, modulation)`; B may be 1 for any batch."""
        return [block.modulation_weights(m) for block in self.blocks]

    def __call__(
        self, x: Tensor, weights: Sequence[ModulationWeights], states: slice | None = None
    ) -> Tensor:
        """Map fields `(B, C, L, *grid)` as the network maps them followed by the fixed channels.

        Arguments:
            x: The fields.
            weights: What `modulate` returned.
            states: The requested ones of the L, if not all.
        """
        patch_size = self.network.patch_size
        tokens = space_to_depth(x, patch_size).flatten(2).transpose(1, 2)
        h = F.linear(tokens, self.weight) + self.start
        requested = self._tokens(states)
        y = self.network.project_out(self._update(h + self.position, h, weights, requested))
        y = depth_to_space(y.transpose(1, 2).unflatten(2, (-1, *self.shape[1:])), patch_size).contiguous()
        return y if states is None or requested is not None else y[:, :, states]

    def _tokens(self, states: slice | None) -> slice | None:
        """The tokens of states; None for all, as where a token has states of both kinds."""
        each = self.network.patch_size[0]
        if states is None or states.start % each or states.stop % each:
            return None
        tokens = self.shape[1:].numel()
        return slice(states.start // each * tokens, states.stop // each * tokens)

    def _update(
        self, x: Tensor, h: Tensor, weights: Sequence[ModulationWeights], tokens: slice | None
    ) -> Tensor:
        """Update tokens by all blocks; autocast's casts were made beforehand."""
        if torch.is_grad_enabled() or self.network.training:
            matrices = [block.matrices() for block in self.blocks]
            return update_all(x, h, weights, self.rotations, matrices, tokens, self.blocks[0].dropout)
        with torch.autocast(self.device.type, enabled=False) if self.cast else contextlib.nullcontext():
            x, h = (x.float(), h.float()) if self.cast else (x, h)
            function = compiled(update_all, self.graphs) if self.compiled else update_all
            return function(x, h, weights, self.rotations, self.matrices, tokens)


_cache: WeakKeyDictionary[nn.Module, dict[torch.dtype, tuple[tuple[int, ...], list[Matrices]]]] = (
    WeakKeyDictionary()
)


def cast_matrices(network: Transformer, dtype: torch.dtype) -> list[Matrices]:
    """The matrices of every block in a dtype; casts are cached until a parameter changes."""
    blocks = [block for block in network.blocks if isinstance(block, TransformerBlock)]
    parameters = [parameter for block in blocks for parameter in block.parameters()]
    if all(parameter.dtype == dtype for parameter in parameters) or any(
        parameter.is_inference() for parameter in parameters
    ):
        return [_cast(block.matrices(), dtype) for block in blocks]
    version = tuple(
        number for parameter in parameters for number in (parameter.data_ptr(), parameter._version)
    )
    cached = _cache.setdefault(network, {})
    if dtype not in cached or cached[dtype][0] != version:
        cached[dtype] = version, [_cast(block.matrices(), dtype) for block in blocks]
    return cached[dtype][1]


def _cast(matrices: Matrices, dtype: torch.dtype) -> Matrices:
    cast: Matrices = tree_map_only(Tensor, lambda matrix: matrix.detach().to(dtype), matrices)
    return cast
