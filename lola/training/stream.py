r"""One worker's share of the endless stream of batches, read ahead of the training that uses it.

Rank `r` of `R` takes the slice `[r B / R, (r + 1) B / R)` of every step; `lola.training.order` says which
windows these are. Two kinds of threads work in parallel to the training loop:

    loader       fills the buffer of group g + 1 while the batches of group g are made
    assemblers   make batches ahead: cut windows out of buffers, augment and standardise them, pin them

The buffer of group g + 1 reuses the memory of group g - 1 once the last batch of that is made, so that a
worker holds two buffers and `threads` + 2 batches. A buffer that already holds all windows of the next group,
as for a dataset that fits into one group, is reused unchanged.

Threads read, and not Ray Data, which encodes caches. On two cores its blocks arrive at 0.3 GB/s (a process
that reads, the object store, a copy), where the loader alone reads 3.4 GB/s, and the whole stream gives
0.9 GB/s of standardised states (`experiments/benchmark.py data`). h5py, pyarrow, NumPy and torch release the
GIL while they work, so that threads do not delay training. Nor does a split of Ray Data follow
an order that is a function of the step: it gives blocks to whichever worker is free, and redistributes them
when workers join or leave.
"""

import contextlib
import dataclasses
import functools
import itertools
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lola.core.keys import Key
from lola.data.state import Batch
from lola.training.buffers import StateBuffer, WindowSource
from lola.training.order import OrderConfig, SampleGroup, SampleOrder

if TYPE_CHECKING:
    from lola.training.config import TrainingConfig

MAX_KEPT_BYTES = 2**28  # of a validation set
PARTS = tuple(field.name for field in dataclasses.fields(Batch))


class BatchStream:
    """One rank's share of the endless stream of batches.

    Arguments:
        seed: That of the order and of every random number of the samples.
        batch_size: The global batch size `B`.
        rank, world: This worker's rank and the number `R` of workers.
        threads: Assemblers.
        pin: Whether batches are put into page-locked memory, for asynchronous copies to a GPU.

    `waited` is how many seconds the last batch was waited for.

    Raises:
        ConfigError: The memory does not hold two blocks of the source.
    """

    def __init__(
        self,
        source: WindowSource,
        *,
        seed: int,
        batch_size: int,
        order: OrderConfig | None = None,
        rank: int = 0,
        world: int = 1,
        threads: int = 1,
        pin: bool = False,
    ) -> None:
        self.source, self.seed, self.batch_size = source, seed, batch_size
        self.slice = range(rank * batch_size // world, (rank + 1) * batch_size // world)
        self.order = SampleOrder(source, order or OrderConfig(), seed, batch_size)
        self.threads, self.pin, self.waited = threads, pin, 0.0

    def batch(self, step: int) -> tuple[Batch, list[Key]]:
        """This rank's slice of a step, and the key of each sample's random numbers."""
        return next(self.batches(step, step + 1))

    def windows(self, step: int) -> list[int]:
        """The windows of this rank's slice of a step."""
        numbers = [step * self.batch_size + i for i in self.slice]
        groups = [self.order.at(n) for n in numbers]
        return [int(group.windows[n - group.first]) for n, group in zip(numbers, groups, strict=True)]

    def batches(self, start: int, stop: int) -> Iterator[tuple[Batch, list[Key]]]:
        """The steps from `start` to `stop`, in order.

        Raises:
            DataError: A file cannot be read.
        """
        waiting: deque[tuple[list[Key], list[Future[Batch]]]] = deque()
        with _StateBuffers(self, start, stop) as buffers, ThreadPoolExecutor(self.threads) as assemblers:
            try:
                for step in itertools.chain(range(start, stop), itertools.repeat(None, self.threads + 1)):
                    if step is not None:
                        keys: list[Key] = [(self.seed, "step", step, i) for i in self.slice]
                        waiting.append((keys, self._submit(step, keys, buffers, assemblers)))
                    if waiting and (step is None or len(waiting) > self.threads + 1):
                        keys, parts = waiting.popleft()
                        yield self._take(parts), keys
            finally:
                buffers.stop.set()
                assemblers.shutdown(wait=True, cancel_futures=True)

    def _submit(
        self, step: int, keys: list[Key], buffers: "_StateBuffers", assemblers: ThreadPoolExecutor
    ) -> list[Future[Batch]]:
        """Submit one slice of a step, in as many parts as there are groups that it lies in."""
        first, last = (step * self.batch_size + i for i in (self.slice.start, self.slice.stop))
        parts = []
        n = first
        while n < last:
            group, buffer = buffers.enter(n)
            end = min(last, group.stop)
            windows = group.windows[n - group.first : end - group.first]
            part = assemblers.submit(self._assemble, buffer, windows, keys[n - first : end - first])
            buffers.used_by(part)
            parts.append(part)
            n = end
        return parts

    def _assemble(self, buffer: Future[StateBuffer], windows: np.ndarray, keys: list[Key]) -> Batch:
        batch = buffer.result().batch(windows, [(*key, "augment") for key in keys])
        return batch.pin() if self.pin else batch

    def _take(self, parts: list[Future[Batch]]) -> Batch:
        """Wait for a step, and join its parts."""
        started = time.perf_counter()
        batches = [part.result() for part in parts]
        if len(batches) > 1:
            batch = Batch.join(batches)
            batches = [batch.pin() if self.pin else batch]  # joining leaves page-locked memory
        self.waited = time.perf_counter() - started
        return batches[0]


class _StateBuffers:
    """The state buffers of one rank's groups, used in order, each filled while the one before is in use."""

    def __init__(self, stream: BatchStream, start: int, stop: int) -> None:
        self.stream, self.range = stream, range(start * stream.batch_size, stop * stream.batch_size)
        self.stop = threading.Event()
        self._users: list[Future[Batch]] = []
        self._loader = ThreadPoolExecutor(1)
        self._filled: deque[StateBuffer] = deque(maxlen=2)
        self._current: tuple[SampleGroup, Future[StateBuffer]] | None = None
        self._next: tuple[SampleGroup, Future[StateBuffer]] | None = None

    def __enter__(self) -> "_StateBuffers":
        return self

    def __exit__(self, *error: object) -> None:
        self._loader.shutdown(wait=True, cancel_futures=True)

    def enter(self, n: int) -> tuple[SampleGroup, Future[StateBuffer]]:
        """The group of a sample and its buffer; `n` never decreases."""
        if self._current is None:
            self._current = self._prefetch(self.stream.order.at(n), [])
            self._next = self._prefetch(self.stream.order.group(*self._current[0].next), [])
        while n >= self._current[0].stop:
            assert self._next is not None
            users, self._users = self._users, []
            self._current = self._next
            self._next = self._prefetch(self.stream.order.group(*self._current[0].next), users)
        return self._current

    def used_by(self, batch: Future[Batch]) -> None:
        """Register a batch that reads from the current buffer; finished batches are dropped."""
        self._users = [*(user for user in self._users if not user.done()), batch]

    def _prefetch(
        self, group: SampleGroup, users: list[Future[Batch]]
    ) -> tuple[SampleGroup, Future[StateBuffer]]:
        """Submit the filling of a group's buffer; it waits for `users`, which read the memory it reuses."""
        n = np.arange(group.first, group.stop)
        slot = n % self.stream.batch_size
        mine = (slot >= self.stream.slice.start) & (slot < self.stream.slice.stop)
        mine &= (n >= self.range.start) & (n < self.range.stop)
        return group, self._loader.submit(self._fill, group.windows[mine], users)

    def _fill(self, windows: np.ndarray, users: list[Future[Batch]]) -> StateBuffer:
        for user in users:
            with contextlib.suppress(CancelledError):  # which `concurrent.futures.wait` would not notice
                user.exception()
        if self._filled and self._filled[-1].covers(windows):
            return self._filled[-1]
        buffer = StateBuffer(self.stream.source, windows)
        if len(self._filled) == 2:
            states = self._filled.popleft().states
        else:  # as much as any group needs; what is not used takes no memory
            lanes = len(self.stream.slice)
            states = self.stream.source.allocate(self.stream.order.states(lanes))
        buffer.fill(states, self.stop)
        self._filled.append(buffer)
        return buffer


def fixed_batches(
    source: WindowSource, *, seed: int, samples: int, batch_size: int, rank: int = 0, world: int = 1
) -> Iterator[tuple[Batch, list[Key]]]:
    """A fixed validation set with fixed noise: windows evenly spaced over the source, one rank's share."""
    samples = min(samples, len(source))
    chosen = np.linspace(0, len(source) - 1, samples).astype(int)[rank::world]
    for offset in range(0, len(chosen), batch_size):
        indices = [int(index) for index in chosen[offset : offset + batch_size]]
        keys: list[Key] = [(seed, "valid", index) for index in indices]
        yield collate([source.read(i, (*key, "augment")) for i, key in zip(indices, keys, strict=True)]), keys


class ValidationSet:
    """One rank's `fixed_batches` of a validation, which is repeated: they are kept unless they are large."""

    def __init__(self, source: WindowSource, config: "TrainingConfig", rank: int = 0, world: int = 1) -> None:
        self._read = functools.partial(
            fixed_batches,
            source,
            seed=config.seed,
            samples=config.valid_samples,
            batch_size=config.batch_size,
            rank=rank,
            world=world,
        )
        self._kept: list[tuple[Batch, list[Key]]] | None = None

    def __iter__(self) -> Iterator[tuple[Batch, list[Key]]]:
        if self._kept is not None:
            yield from self._kept
            return
        kept, size = [], 0
        for batch, keys in self._read():
            size += batch.nbytes
            if size <= MAX_KEPT_BYTES:
                kept.append((batch, keys))
            else:
                kept.clear()
            yield batch, keys
        if size <= MAX_KEPT_BYTES:
            self._kept = kept


def collate(samples: list[tuple[Tensor, ...]]) -> Batch:
    """Stack windows into a batch: states, parameters and, if there is a mask, valid cells."""
    parts = zip(*samples, strict=True)
    return Batch(**{name: torch.stack(part) for name, part in zip(PARTS, parts, strict=False)})
