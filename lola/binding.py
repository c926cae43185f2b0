r"""A network of windows with everything bound that stays the same during a rollout.

Windows of a rollout have the same masks (but for the first) and the same parameters, and a sampler visits
the same noise levels in each. What follows from these alone is computed once: the mask's part of the input,
the embeddings of positions, their rotations, the embedding of the parameters, and for each noise level the
weights that the modulation gives to every block. Where all simulations have the same parameters,
as members of an ensemble do, it is computed for one of them.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lola.nn.prepared import PreparedTransformer
from lola.nn.vit import Transformer

LEVELS = 64  # noise levels that are kept


class BoundNetwork:
    """A network of fields, mask and modulation, called with fields and noise levels alone.

    The network's weights must stay as they are; gradients reach the fields only.

    Arguments:
        network: The network, called with fields and mask `(B, 2 C, L, *grid)` and a modulation.
        mask: True where an element is known, `(B, 1, L, *grid)`; axes of size 1 stand for any size.
        parameters: Parameters of the simulations, with shape `(B, P)`.
        embed: The embedding of parameters, if there are any.
        modulate: The modulation of noise levels `(B)` or `(1)` and embedded parameters; without it, that of
            the embedded parameters alone.
        compiled: Whether the network is compiled.
    """

    def __init__(
        self,
        network: nn.Module,
        mask: Tensor,
        parameters: Tensor,
        *,
        embed: nn.Module | None,
        modulate: Callable[[Tensor, Tensor | None], Tensor] | None = None,
        compiled: bool = False,
    ) -> None:
        self.network, self.modulate, self.compiled = network, modulate, compiled
        self.mask = mask
        with torch.no_grad():
            same = bool((parameters == parameters[:1]).all())
            self.embedded = None if embed is None else embed(parameters[:1] if same else parameters)
        self.prepared: PreparedTransformer | None = None
        self.kept: dict[float | None, Any] = {}

    def __call__(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """Map fields `(B, C, L, *grid)`, at a noise level `()`, `(1)` or `(B)`, to the same shape."""
        if not isinstance(self.network, Transformer):
            mask = self.mask.expand_as(x).to(x)
            network = torch.compile(self.network, dynamic=False) if self.compiled else self.network
            return network(torch.cat((x, mask), dim=1), self._modulation(noise, len(x)))
        with torch.no_grad():
            if self.prepared is None:
                fixed = self.mask.expand(-1, *x.shape[1:]).to(x)
                self.prepared = PreparedTransformer(self.network, fixed, self.compiled)
            weights = self._weights(self.prepared, noise, len(x))
        return self.prepared(x, weights)

    def _weights(self, prepared: PreparedTransformer, noise: Tensor | None, rows: int) -> Any:
        if noise is not None and noise.numel() > 1:
            return prepared.modulate(self._modulation(noise, rows))
        level = None if noise is None else noise.item()
        if level not in self.kept:
            if len(self.kept) == LEVELS:
                self.kept.clear()
            self.kept[level] = prepared.modulate(self._modulation(noise, 1))
        return self.kept[level]

    def _modulation(self, noise: Tensor | None, rows: int) -> Tensor | None:
        """The modulation of `rows` windows, or of one if all have the same."""
        if self.modulate is None:
            return self.embedded if self.embedded is None else self._rows(self.embedded, rows)
        assert noise is not None
        return self._rows(self.modulate(noise.flatten(), self.embedded), rows)

    def _rows(self, modulation: Tensor, rows: int) -> Tensor:
        return modulation.expand(rows, -1) if len(modulation) == 1 else modulation
