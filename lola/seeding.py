"""Randomness as a pure function of integers and names.

Every random number of the platform is drawn from a stream named by a key, such as
`(seed, "train", step, i)` for the i-th sample of a global training step, or
`(seed, trajectory, member, window)` for a member of an ensemble. A key never contains a worker,
a rank or an order of arrival, so that results do not depend on how the work was spread.
"""

import hashlib
import random
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

Key = tuple[int | str, ...]


def derive(*key: int | str) -> int:
    """Hash a key to a seed, uniform over the integers in [0, 2^63)."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8], "big") >> 1


def numpy_generator(*key: int | str) -> np.random.Generator:
    """A NumPy generator that is a pure function of the key."""
    return np.random.Generator(np.random.PCG64(derive(*key)))


def seed_process(*key: int | str) -> None:
    """Seed the global streams of Python, NumPy and torch: dropout and optimisers draw from these."""
    seed = derive(*key)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


class SampleGenerator:
    """One random stream per sample of a batch.

    Arguments:
        keys: One key per sample; the i-th row of everything drawn depends on the i-th key alone.
        device: Where the numbers are drawn. Streams differ between kinds of devices.
    """

    def __init__(self, keys: Sequence[Key], device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.generators = [torch.Generator(self.device).manual_seed(derive(*key)) for key in keys]

    def __len__(self) -> int:
        return len(self.generators)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers, float32, with shape `(B, *shape)`."""
        return self._draw(torch.randn, shape)

    def uniform(self, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1), float32, with shape `(B, *shape)`."""
        return self._draw(torch.rand, shape)

    def poisson(self, rate: float, *shape: int) -> Tensor:
        """Poisson counts, int64, with shape `(B, *shape)`."""
        rates = torch.full(shape, rate, device=self.device)
        return torch.stack([torch.poisson(rates, generator=g) for g in self.generators]).long()

    def _draw(self, sampler, shape: tuple[int, ...]) -> Tensor:
        return torch.stack([sampler(shape, generator=g, device=self.device) for g in self.generators])
