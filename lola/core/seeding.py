r"""Randomness as a pure function of integers and names.

Every random number of the platform is drawn from a stream named by a key, such as
`(seed, "train", step, i)` for the i-th sample of a global training step, or
`(seed, trajectory, member, window)` for a member of an ensemble. A key never contains a worker,
a rank or an order of arrival, so that results do not depend on how the work was spread.

The streams of a batch are drawn together, in a few operations on tensors. With `s` the hash of a sample's
key, its n-th word, n = 1, 2, ..., is that of SplitMix64 (Steele, Lea and Flood, 2014; here with one increment
for all streams), in integers modulo 2^64:

    x = s + n g,  x <- (x ^ (x >> 30)) a,  x <- (x ^ (x >> 27)) b,  x <- x ^ (x >> 31)

a function of the key and the number alone, and the same on every device. Streams are parts of one sequence of
2^64 words: two of N streams of L words overlap with a probability of about N^2 L / 2^64. The upper 24 bits of
a word make a uniform number; both its halves, as uniform numbers u in (0, 1] and v, make two normal numbers
(Box and Muller), whose last digits depend on the device's logarithm and cosine:

    sqrt(-2 log u) cos(2 pi v),  sqrt(-2 log u) sin(2 pi v)
"""

import functools
import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lola.core.keys import Key, derive

INCREMENT = 0x9E3779B97F4A7C15
MIXING = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1))
HALF = 2**32
MAX_RATE = 100.0


def seed_process(*key: int | str) -> None:
    """Seed the global streams of Python, NumPy and torch: dropout and optimisers draw from these."""
    seed = derive(*key)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


class SampleGenerator:
    """One random stream per sample of a batch.

    Arguments:
        keys: One key per sample; the i-th row of everything drawn depends on the i-th key alone, and on what
            was drawn before.
        device: Where the numbers are wanted.
    """

    def __init__(self, keys: Sequence[Key], device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.seeds = np.array([derive(*key) for key in keys], dtype=np.int64)
        self.drawn = 0

    def __len__(self) -> int:
        return len(self.seeds)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers, float32, with shape `(B, *shape)`, drawn on the device."""
        size = math.prod(shape)
        words: Tensor = self._words(self._seeds, (size + 1) // 2)
        radius = (words >> 32).bitwise_and_(HALF - 1).float().add_(0.5).div_(HALF).log_().mul_(-2).sqrt_()
        angle = words.bitwise_and_(HALF - 1).float().mul_(2 * math.pi / HALF)
        numbers = torch.cat((radius * angle.cos(), radius * angle.sin()), dim=1)
        return numbers[:, :size].reshape(len(self), *shape)

    def uniform(self, *shape: int, quantile: Callable[[np.ndarray], np.ndarray] | None = None) -> Tensor:
        """Uniform numbers in [0, 1), float32, with shape `(B, *shape)`: few, drawn on the host.

        A quantile function, if given, maps them in double precision.
        """
        numbers = self._uniform(shape)
        numbers = numbers if quantile is None else quantile(numbers)
        return on_device(torch.from_numpy(numbers.astype(np.float32)), self.device)

    def poisson(self, rate: float, *shape: int) -> Tensor:
        """Poisson counts of a rate up to 100, int64, with shape `(B, *shape)`: few, drawn on the host."""
        counts = np.searchsorted(_cumulative(rate), self._uniform(shape), side="right")
        return on_device(torch.from_numpy(counts), self.device)

    def rows(self, probability: float) -> Tensor:
        """Rows that are chosen, each with a probability: their numbers, int64 with shape `(n)`.

        They are drawn on the host, which knows n without waiting for the device.
        """
        chosen = np.flatnonzero(self._uniform(()) < probability)
        return on_device(torch.from_numpy(chosen), self.device)

    @functools.cached_property
    def _seeds(self) -> Tensor:
        return on_device(torch.from_numpy(self.seeds), self.device)

    def _uniform(self, shape: tuple[int, ...]) -> np.ndarray:
        """Uniform numbers in [0, 1), float64 with 24 bits, on the host."""
        words: np.ndarray = self._words(self.seeds, math.prod(shape))
        return (((words >> 40) & (2**24 - 1)) / 2**24).reshape(len(self), *shape)

    def _words(self, seeds: Any, count: int) -> Any:
        """The next words of every stream, int64 of 64 random bits, with shape `(B, count)`."""
        words = splitmix64(seeds, self.drawn + 1, count)
        self.drawn += count
        return words


def splitmix64(seeds: Any, first: int, count: int) -> Any:
    """Words of the streams of some seeds.

    Arguments:
        seeds: The seeds, int64 with shape `(B,)`: a tensor, or an array, which takes less time for few words.
        first: The number of the first word, 1 or more.
        count: How many.

    Returns:
        Words, int64 with the bits of the unsigned word, of the kind of the seeds, with shape `(B, count)`.
    """
    words: Any
    if isinstance(seeds, Tensor):
        words = torch.arange(first, first + count, device=seeds.device)
    else:
        words = np.arange(first, first + count)
    words = seeds[:, None] + words * _signed(INCREMENT)
    for shift, factor in MIXING:
        words ^= (words >> shift) & (2 ** (64 - shift) - 1)  # shifts of signed numbers repeat the sign
        if factor != 1:
            words *= _signed(factor)
    return words


def on_device(x: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on a device; the host does not wait for a GPU to take it."""
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x.to(device)


@functools.cache
def _cumulative(rate: float) -> np.ndarray:
    """The probabilities of at most 0, 1, ... counts, float64, up to where they are 1."""
    if not 0 <= rate <= MAX_RATE:
        raise ValueError(f"rates of counts must be from 0 to {MAX_RATE:g}, not {rate}")
    count, term, total = 0, math.exp(-rate), 0.0
    sums = []
    while total + term > total:
        total += term
        sums.append(total)
        count += 1
        term *= rate / count
    return np.array(sums)


def _signed(word: int) -> int:
    """The signed integer of the same 64 bits."""
    return word - 2**64 if word >= 2**63 else word
