"""The typed batch that data, models and training pass around."""

import dataclasses
from collections.abc import Callable, Sequence
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
    # True in cells of the domain, with shape `(B, 1, 1, *grid)`; None if all are, as of latents
    valid: Tensor | None = None

    def __post_init__(self) -> None:
        if self.states.ndim < 4:
            raise DataError(f"states must be (B, C, L, *grid), not {tuple(self.states.shape)}")
        if self.parameters.ndim != 2 or len(self.parameters) != len(self.states):
            raise DataError(f"parameters must be ({len(self.states)}, P), not {tuple(self.parameters.shape)}")
        shape = (len(self.states), 1, 1, *self.states.shape[3:])
        if self.valid is not None and self.valid.shape != shape:
            raise DataError(f"valid cells must be {shape}, not {tuple(self.valid.shape)}")

    def __len__(self) -> int:
        return len(self.states)

    @property
    def nbytes(self) -> int:
        """The bytes of its tensors."""
        return sum(part.nbytes for part in self._parts.values())

    @property
    def spatial(self) -> int:
        """The number of grid axes."""
        return self.states.ndim - 3

    @classmethod
    def join(cls, batches: Sequence[Self]) -> Self:
        """The windows of several batches."""
        return cls(**{name: torch.cat([each._parts[name] for each in batches]) for name in batches[0]._parts})

    def rows(self, start: int, stop: int) -> Self:
        """The windows from `start` to `stop`."""
        return self._map(lambda part: part[start:stop])

    def to(self, device: torch.device | str) -> Self:
        """The batch on another device; a copy from pinned memory does not block."""
        return self._map(lambda part: part.to(device, non_blocking=True))

    def pin(self) -> Self:
        """The batch in page-locked memory, for asynchronous copies to a GPU."""
        return self._map(lambda part: part.pin_memory())

    @property
    def _parts(self) -> dict[str, Tensor]:
        """The tensors that there are."""
        return {name: part for name, part in vars(self).items() if part is not None}

    def _map(self, function: Callable[[Tensor], Tensor]) -> Self:
        return type(self)(**{name: function(part) for name, part in self._parts.items()})
