r"""The exponential moving average (EMA) of weights.

After step `t = 0, 1, ...` that was applied, with weights `w_t` and the configured decay `d`,

    v_t = d_t v_{t-1} + (1 - d_t) w_t,    d_t = min(d, (1 + t) / (10 + t)),    v_{-1} the initial weights

so that the average forgets its start: while the decay warms up, the initial weights hold a share of
T! 9! / (T + 9)! after `T` steps, less than 1e-12 after 100. The average is a function of the weights so far;
no other state needs to be stored.
"""

import copy

import torch
from torch import nn


class EMA:
    """The average of a model's weights, in a copy of the model that never trains; `decay` is `d`."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, applied: int) -> None:
        """Take in the weights after step number `applied`, counted from 0; buffers are copied."""
        decay = min(self.decay, (1 + applied) / (10 + applied))
        # All at once: on a GPU a kernel for each would be hundreds of launches
        means: list[torch.Tensor] = list(self.model.parameters())
        parameters: list[torch.Tensor] = list(model.parameters())
        torch._foreach_lerp_(means, parameters, 1 - decay)
        for copied, buffer in zip(self.model.buffers(), model.buffers(), strict=True):
            copied.copy_(buffer)
