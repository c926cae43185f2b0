"""Blocks that may recompute their activations: gradient checkpointing.

A network keeps what the backward pass needs of every layer. A block that recomputes keeps its inputs alone
and runs its forward pass again when its gradient is asked for: activations of one block at a time instead of
all, for about a third more arithmetic. The state of the random streams is kept with the inputs, so that
dropout repeats itself, and the gradient is the same.
"""

from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


class Block(nn.Module):
    """Base of the blocks that networks stack; `recompute` makes it recompute its activations."""

    recompute: bool = False

    def __call__(self, *inputs: Any) -> Any:
        """The block's output; inputs are tensors or None."""
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(super().__call__, *inputs, use_reentrant=False)
        return super().__call__(*inputs)
