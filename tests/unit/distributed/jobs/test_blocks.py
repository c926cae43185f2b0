"""How many states are encoded at once."""

import pytest

from lola.distributed.jobs.blocks import BLOCK_BYTES, states_at_once
from lola.emulation.cache_config import CacheConfig


@pytest.mark.parametrize(
    ("steps", "size", "expected"),
    [
        (100, 5 * 4 * 512**2, 25),  # euler: states divided evenly, as ever
        (101, 5 * 4 * 512**2, 21),
        (50, 6 * 4 * 64**3, 25),  # turbulence_gravity_cooling
        (100, 7 * 4 * 256**3, 1),  # MHD_256: a state takes 0.47 GB
        (100, BLOCK_BYTES // 3, 3),
        (100, 2 * BLOCK_BYTES, 1),
    ],
)
def test_large_states_are_encoded_few_at_once(steps, size, expected):
    assert states_at_once(steps, CacheConfig(), size) == expected
