r"""A network of windows with all inputs bound that are constant during a rollout.

Windows of a rollout have the same masks (but for the first) and the same parameters, and a sampler visits
the same noise levels in each. What depends on these alone is computed once: the mask's part of the input,
the embeddings of positions, their rotations, the embedding of the parameters, and for each noise level the
weights that the modulation gives to every block. Where all simulations have the same parameters,
as members of an ensemble do, it is computed for one of them.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lola.nn.compiling import compiled as compile_once
from lola.nn.prepared import PreparedTransformer
from lola.nn.transformer import Transformer

MAX_CACHED_LEVELS = 64  # noise levels

NoiseLevel = float | tuple[float, float]
"""The noise level of an evaluation, or those of both ends of a step, where the network takes them."""


class BoundNetwork:
    """A network of fields, mask and modulation, called with fields and noise levels alone.

    The network's weights must stay as they are; gradients reach the fields only.

    Arguments:
        network: The network, called with fields and mask `(B, 2 C, L, *grid)` and a modulation.
        mask: True where an element is known, `(B, 1, L, *grid)`; axes of size 1 stand for any size.
        parameters: Parameters of the simulations, with shape `(B, P)`.
        embed: The embedding of parameters, if there are any.
        modulate: The modulation of noise levels `(B)` or `(1)`, of pairs of them `(B, 2)` or `(1, 2)`, or of
            noise `(B, N)`, and embedded parameters; without it, that of the embedded parameters alone.
        compiled: Whether the network is compiled.
        graphs: Whether GPUs replay the compiled network as a CUDA graph.
    """

    def __init__(
        self,
        network: nn.Module,
        mask: Tensor,
        parameters: Tensor,
        *,
        embed: Callable[[Tensor], Tensor] | None,
        modulate: Callable[[Tensor, Tensor | None], Tensor] | None = None,
        compiled: bool = False,
        graphs: bool = False,
    ) -> None:
        self.network, self.modulate = network, modulate
        self.compiled, self.graphs = compiled, graphs
        self.mask = mask
        self.unknown = _unknown_slice(~mask)
        # Embeddings and modulations are small: they are computed in full precision
        with torch.no_grad(), torch.autocast(mask.device.type, enabled=False):
            same = bool((parameters == parameters[:1]).all())
            self.embedded = None if embed is None else embed(parameters[:1] if same else parameters)
        self.prepared: PreparedTransformer | None = None
        self.cache: dict[NoiseLevel | None, Any] = {}

    def __call__(
        self, x: Tensor, noise: Tensor | NoiseLevel | None = None, states: slice | None = None
    ) -> Tensor:
        """Map fields to the same shape, or to fewer states.

        Arguments:
            x: The fields, with shape `(B, C, L, *grid)`.
            noise: The noise level, `()`, `(1)` or `(B)`, a pair of levels, or vectors of noise `(B, N)`, if
                there are any.
            states: Which of the L states to return, if not all.
        """
        if not isinstance(self.network, Transformer):
            mask = self.mask.expand_as(x).to(x)
            network = compile_once(self.network, self.graphs) if self.compiled else self.network
            y = network(torch.cat((x, mask), dim=1), self._modulation(_as_rows(noise, x.device), len(x)))
            if self.compiled and self.graphs:
                y = y.clone()  # the next call overwrites it, and samplers keep several
            return y if states is None else y[:, :, states]
        with torch.no_grad():
            weights = self._weights(self._prepare(x), noise, len(x))
        return self._prepare(x)(x, weights, states)

    def precompute(self, x: Tensor, levels: Sequence[NoiseLevel]) -> None:
        """Compute and cache a transformer's modulation weights of several noise levels at once.

        Does nothing where simulations have different parameters, which would take much memory: each level is
        then computed when it is first used.
        """
        one = self.embedded is None or len(self.embedded) == 1
        missing = [level for level in dict.fromkeys(levels) if level not in self.cache][:MAX_CACHED_LEVELS]
        if not isinstance(self.network, Transformer) or not one or len(missing) < 2:
            return
        if len(self.cache) + len(missing) > MAX_CACHED_LEVELS:
            self.cache.clear()
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            assert self.modulate is not None
            together = self._prepare(x).modulate(
                self.modulate(torch.tensor(missing, device=x.device), self.embedded)
            )
        for i, level in enumerate(missing):
            self.cache[level] = [
                tuple(part[i : i + 1] if part.ndim == 3 else part for part in block) for block in together
            ]

    def _prepare(self, x: Tensor) -> PreparedTransformer:
        if self.prepared is None:
            assert isinstance(self.network, Transformer)
            fixed = self.mask.expand(-1, *x.shape[1:]).to(x)
            self.prepared = PreparedTransformer(self.network, fixed, self.compiled, self.graphs)
        return self.prepared

    def _weights(self, prepared: PreparedTransformer, noise: Tensor | NoiseLevel | None, rows: int) -> Any:
        with torch.autocast(prepared.device.type, enabled=False):
            if isinstance(noise, Tensor) and (noise.ndim == 2 or noise.numel() > 1):
                return prepared.modulate(self._modulation(noise, rows))
            level = noise.item() if isinstance(noise, Tensor) else noise
            if level not in self.cache:
                if len(self.cache) == MAX_CACHED_LEVELS:
                    self.cache.clear()
                self.cache[level] = prepared.modulate(self._modulation(_as_rows(level, prepared.device), 1))
            return self.cache[level]

    def _modulation(self, noise: Tensor | None, rows: int) -> Tensor | None:
        """The modulation of `rows` windows, or of one if all have the same."""
        if self.modulate is None:
            return self.embedded if self.embedded is None else self._rows(self.embedded, rows)
        assert noise is not None
        return self._rows(self.modulate(noise if noise.ndim == 2 else noise.flatten(), self.embedded), rows)

    def _rows(self, modulation: Tensor, rows: int) -> Tensor:
        return modulation.expand(rows, -1) if len(modulation) == 1 else modulation


def _as_rows(noise: Tensor | NoiseLevel | None, device: torch.device) -> Tensor | None:
    """A noise level `(1)` or a pair `(1, 2)` as a tensor; tensors as they are."""
    return noise if noise is None or isinstance(noise, Tensor) else torch.tensor([noise], device=device)


def _unknown_slice(unknown: Tensor) -> slice | None:
    """The unknown states as a slice if they are complete, consecutive and the same in all windows."""
    if unknown.ndim < 3 or unknown.numel() != unknown.shape[2]:
        return None
    states = unknown.flatten().nonzero().flatten().tolist()
    if not states or states[-1] - states[0] + 1 != len(states):
        return None
    return slice(states[0], states[-1] + 1)
