r"""A transformer whose constant parts are computed once, for inference.

While windows of the same known states are completed, only the fields change from call to call. With `W` the
input map, `w` its columns of the fields `x` and `w'` those of the fixed channels `k` (the mask), `e` the
position embedding:

    h = W [x, k] + b = w x + (w' k + b)
    x_0 = h + e

The bracket, `e` and the rotations of tokens are computed here; the blocks' weights follow from the modulation
alone, and whoever calls again with the same modulation keeps them.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lola.nn.embedding import coordinates
from lola.nn.layers import depth_to_space, space_to_depth
from lola.nn.vit import Transformer, TransformerBlock, Weights


class PreparedTransformer:
    """A transformer with the last of its input channels fixed. Its weights must not change meanwhile.

    Arguments:
        network: The transformer.
        fixed: The last input channels, with shape `(B, C, L, *grid)`; B may be 1 for any batch.
        compiled: Whether the blocks are compiled.
    """

    def __init__(self, network: Transformer, fixed: Tensor, compiled: bool = False) -> None:
        self.network = network
        self.blocks = [block for block in network.blocks if isinstance(block, TransformerBlock)]
        self.run = torch.compile(network.run, dynamic=False) if compiled else network.run
        patches = space_to_depth(fixed, network.patch_size)
        self.shape = patches.shape[2:]
        self.weight, rest = network.project_in.weight.tensor_split([-patches.shape[1]], dim=1)
        self.start = F.linear(patches.flatten(2).transpose(1, 2), rest, network.project_in.bias)
        p = coordinates(self.shape, fixed.device)
        self.position = network.position(network.encoding(p).flatten(-2))
        self.rotations = [block.rotation(p) for block in self.blocks]

    def modulate(self, m: Tensor | None) -> list[Weights]:
        """The weights of every block for a modulation `(B, modulation)`; B may be 1 for any batch."""
        return [block.weigh(m) for block in self.blocks]

    def __call__(self, x: Tensor, weights: Sequence[Weights]) -> Tensor:
        """Map fields `(B, C, L, *grid)` as the network maps them with the fixed channels behind them."""
        tokens = space_to_depth(x, self.network.patch_size).flatten(2).transpose(1, 2)
        h = F.linear(tokens, self.weight) + self.start
        y = self.run(h + self.position, h, weights, self.rotations)
        y = self.network.project_out(y).transpose(1, 2).unflatten(2, self.shape)
        return depth_to_space(y, self.network.patch_size).contiguous()
