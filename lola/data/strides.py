r"""Strides of training windows: one for all, or one that each sample draws.

Samples of $W$ states with strides drawn from $\{s_1, \dots, s_n\}$ all take $(W - 1) \max_i s_i + 1$ steps of
a trajectory, within which a window of a smaller stride lies anywhere. The network knows the stride $s$ by one
more parameter, $\log_2 (s / s_0)$, which is 0 at the stride $s_0$ that the model is evaluated at.
"""

import dataclasses

import numpy as np
import torch
from torch import Tensor

from lola.core.keys import Key, numpy_generator


@dataclasses.dataclass(frozen=True)
class Strides:
    """The strides of windows.

    Arguments:
        base: The stride of the evaluation.
        choices: The strides that samples draw from; with none all have that of the evaluation.
    """

    base: int
    choices: tuple[int, ...] = ()

    @property
    def largest(self) -> int:
        return max(self.choices or (self.base,))

    def span(self, length: int) -> int:
        """Steps from the first to the last of `length` states."""
        return (length - 1) * self.largest + 1

    def draw(self, length: int, keys: list[Key]) -> tuple[np.ndarray, np.ndarray]:
        """The first state of each sample of `length` states, counted from its span's, and its stride."""
        if not self.choices:
            return np.zeros(len(keys), dtype=int), np.full(len(keys), self.base)
        u, v = np.array([numpy_generator(*key, "stride").random(2) for key in keys]).T
        strides = np.array(self.choices)[(u * len(self.choices)).astype(int)]
        return (v * (self.span(length) - (length - 1) * strides)).astype(int), strides

    def label(self, parameters: Tensor, strides: np.ndarray) -> Tensor:
        """Parameters `(B, P)` of samples, with that of their strides if these are drawn, `(B, P + 1)`."""
        if not self.choices:
            return parameters
        relative = torch.from_numpy(np.log2(strides / self.base)).to(parameters)
        return torch.cat((parameters, relative[:, None]), dim=1)
