"""Blocks that may recompute their activations: gradient checkpointing.

Autograd stores the activations of every layer for the backward pass. A block that recomputes stores only
its inputs and runs its forward pass again in the backward pass: activations of one block at a time instead of
all, for about a third more arithmetic. The state of the random streams is stored with the inputs, so that
dropout masks, and hence gradients, are the same.
"""

from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


class Block(nn.Module):
    """Base class of the blocks that networks stack; `recompute` switches recomputation on."""

    recompute: bool = False

    def __call__(self, *inputs: Any) -> Any:
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(super().__call__, *inputs, use_reentrant=False)
        return super().__call__(*inputs)
