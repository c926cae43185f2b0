"""Keys of random streams, and the seeds and NumPy generators that they name (see `lola.core.seeding`)."""

import hashlib

import numpy as np

Key = tuple[int | str, ...]


def derive(*key: int | str) -> int:
    """Hash a key to a seed, uniform over the integers in [0, 2^63)."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8], "big") >> 1


def numpy_generator(*key: int | str) -> np.random.Generator:
    """A NumPy generator that is a pure function of the key."""
    return np.random.Generator(np.random.PCG64(derive(*key)))
