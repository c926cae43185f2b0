r"""Embeddings of positions, times and simulation parameters.

Sine encoding of a number s in F features, n = F / 2:

    e(s) = [sin(w_0 s), ..., sin(w_{n-1} s), cos(w_0 s), ..., cos(w_{n-1} s)],  w_j = 1000^(-j / (n - 1))
"""

import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SineEncoding(nn.Module):
    """Map numbers of shape `(*)` to sines and cosines of shape `(*, features)`; features is even."""

    frequencies: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        j = torch.linspace(0, 1, features // 2, dtype=torch.float64)
        self.register_buffer("frequencies", (1e3**-j).float(), persistent=False)

    def forward(self, s: Tensor) -> Tensor:
        angles = s[..., None] * self.frequencies
        return torch.cat((angles.sin(), angles.cos()), dim=-1)


def mlp(inputs: int, outputs: int, width: int | None = None) -> nn.Sequential:
    """A linear map, SiLU, a linear map; the hidden width defaults to that of the outputs."""
    width = width or outputs
    return nn.Sequential(nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, outputs))


def zero_last(layers: nn.Sequential) -> nn.Sequential:
    """Set the last linear map of `mlp` to zero, in place, so that its result is zero until it trains."""
    for parameter in layers[-1].parameters():
        nn.init.zeros_(parameter)
    return layers


class ParameterEmbedding(nn.Sequential):
    """An `mlp` of parameters `(B, P)`, of which the last `optional` ones may be missing and are 0 then."""

    def __init__(self, inputs: int, outputs: int, optional: int = 0) -> None:
        super().__init__(*mlp(inputs, outputs))
        self.inputs, self.optional = inputs, optional

    def forward(self, parameters: Tensor) -> Tensor:
        missing = self.inputs - parameters.shape[-1]
        padded = 0 < missing <= self.optional
        return super().forward(F.pad(parameters, (0, missing)) if padded else parameters)


def coordinates(shape: Sequence[int], device: torch.device) -> Tensor:
    """Integer coordinates of all cells of a grid, first axis slowest, with shape `(N, axes)`, float32."""
    if torch.compiler.is_compiling():
        return _grid(tuple(shape), device)
    return _coordinates(tuple(shape), device)


@functools.lru_cache(maxsize=32)
def _coordinates(shape: tuple[int, ...], device: torch.device) -> Tensor:
    # A tensor created in inference mode could not be used in training later
    with torch.inference_mode(False):
        return _grid(shape, device)


def _grid(shape: tuple[int, ...], device: torch.device) -> Tensor:
    axes = [torch.arange(size, dtype=torch.float32, device=device) for size in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2)
