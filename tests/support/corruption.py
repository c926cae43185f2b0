"""Damaged copies of a file: bytes changed, blocks of zeros, and cuts, as disks and power cuts leave them."""

import random
from collections.abc import Collection, Iterator

BLOCKS = (512, 4096)  # bytes that disks and filesystems lose at once


def damaged_copies(
    content: bytes, count: int, seed: int = 0, places: Collection[int] = (), kinds: str = "flip zero cut"
) -> Iterator[tuple[str, bytes]]:
    """What was done, and the damaged content.

    Arguments:
        content: The whole file.
        count: The number of copies.
        seed: Of the draws.
        places: The bytes that are changed; all, if there are none.
        kinds: The kinds of damage to draw from.
    """
    draws, changeable = random.Random(seed), sorted(places) or range(len(content))
    for _ in range(count):
        kind, place = draws.choice(kinds.split()), draws.choice(changeable)
        copy = bytearray(content)
        if kind == "cut":
            copy = copy[:place]
        elif kind == "zero":
            size = draws.choice(BLOCKS)
            start = place // size * size
            copy[start : start + size] = bytes(len(copy[start : start + size]))
        else:
            copy[place] = draws.choice(
                (0, 255, copy[place] ^ (1 << draws.randrange(8)), draws.randrange(256))
            )
        yield f"{kind} at {place}", bytes(copy)
