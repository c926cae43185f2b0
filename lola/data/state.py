"""The typed batch that data, models and training pass around."""

import dataclasses
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor

from lola.core.errors import DataError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """Windows of consecutive states with the parameters of their simulations.

    Raises:
        DataError: The shapes do not belong together.
    """

    states: Tensor  # standardised fields or latents, channels before time, with shape `(B, C, L, *grid)`
    parameters: Tensor  # constants and boundary codes of each simulation, with shape `(B, P)`

    def __post_init__(self) -> None:
        if self.states.ndim < 4:
            raise DataError(f"states must be (B, C, L, *grid), not {tuple(self.states.shape)}")
        if self.parameters.ndim != 2 or len(self.parameters) != len(self.states):
            raise DataError(f"parameters must be ({len(self.states)}, P), not {tuple(self.parameters.shape)}")

    def __len__(self) -> int:
        return len(self.states)

    @property
    def spatial(self) -> int:
        """The number of grid axes."""
        return self.states.ndim - 3

    def rows(self, start: int, stop: int) -> Self:
        """The windows from `start` to `stop`."""
        return self._map(lambda x: x[start:stop])

    def to(self, device: torch.device | str) -> Self:
        """The batch on another device; a copy from pinned memory does not block."""
        return self._map(lambda x: x.to(device, non_blocking=True))

    def pin(self) -> Self:
        """The batch in page-locked memory, for asynchronous copies to a GPU."""
        return self._map(Tensor.pin_memory)

    def _map(self, function: Callable[[Tensor], Tensor]) -> Self:
        return dataclasses.replace(self, states=function(self.states), parameters=function(self.parameters))
