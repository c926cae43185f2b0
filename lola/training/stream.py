r"""The order of training samples, as a pure function of (seed, step, position).

Sample `i` of global step `s` with batch size `B` is number `n = s B + i` of an endless stream. With `N`
windows in the source it belongs to epoch `e = n div N` and is the window `pi_e(n mod N)`, where `pi_e` is
a permutation drawn from `(seed, e)`. Rank `r` of `R` takes the slice `[r B / R, (r + 1) B / R)` of each
step, so that the position to resume from is the step alone, and any number of workers reads one stream.
"""

import functools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from lola.data.state import Batch
from lola.seeding import Key, numpy_generator


class Source(Protocol):
    """Windows that can be read in any order."""

    def __len__(self) -> int:
        """The number of windows."""

    def read(self, index: int, key: Key) -> tuple[Tensor, Tensor]:
        """The states `(C, L, *grid)` and parameters `(P,)` of a window; the key decides its augmentation."""


class Stream:
    """One rank's share of the endless stream of batches.

    Arguments:
        source: Where windows are read from.
        seed: The seed of the order and of every random number of the samples.
        batch_size: The global batch size `B`.
        rank, world: This worker's rank and the number `R` of workers.
    """

    def __init__(self, source: Source, *, seed: int, batch_size: int, rank: int = 0, world: int = 1) -> None:
        self.source, self.seed, self.batch_size = source, seed, batch_size
        self.slice = range(rank * batch_size // world, (rank + 1) * batch_size // world)
        self._permutation = functools.lru_cache(maxsize=2)(self._permute)

    def _permute(self, epoch: int) -> np.ndarray:
        return numpy_generator(self.seed, "epoch", epoch).permutation(len(self.source))

    def batch(self, step: int) -> tuple[Batch, list[Key]]:
        """This rank's slice of a step, and the key of each sample's random numbers."""
        keys: list[Key] = [(self.seed, "step", step, i) for i in self.slice]
        samples = []
        for i, key in zip(self.slice, keys, strict=True):
            epoch, position = divmod(step * self.batch_size + i, len(self.source))
            samples.append(self.source.read(int(self._permutation(epoch)[position]), (*key, "augment")))
        return collate(samples), keys

    def batches(self, start: int, stop: int) -> Iterator[tuple[Batch, list[Key]]]:
        """The steps from `start` to `stop`; each is read while the one before it is used."""
        with ThreadPoolExecutor(1) as reader:
            ahead = reader.submit(self.batch, start) if start < stop else None
            for step in range(start, stop):
                assert ahead is not None
                current = ahead.result()
                ahead = reader.submit(self.batch, step + 1) if step + 1 < stop else None
                yield current


def fixed_batches(
    source: Source, *, seed: int, samples: int, batch_size: int, rank: int = 0, world: int = 1
) -> Iterator[tuple[Batch, list[Key]]]:
    """A fixed validation set with fixed noise: windows evenly spaced over the source, one rank's share."""
    samples = min(samples, len(source))
    chosen = np.linspace(0, len(source) - 1, samples).astype(int)[rank::world]
    for offset in range(0, len(chosen), batch_size):
        indices = [int(index) for index in chosen[offset : offset + batch_size]]
        keys: list[Key] = [(seed, "valid", index) for index in indices]
        yield collate([source.read(i, (*key, "augment")) for i, key in zip(indices, keys, strict=True)]), keys


def collate(samples: list[tuple[Tensor, Tensor]]) -> Batch:
    """Stack windows into a batch."""
    states, parameters = zip(*samples, strict=True)
    return Batch(states=torch.stack(states), parameters=torch.stack(parameters))
