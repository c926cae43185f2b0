"""What convolutional networks of several levels have in common: how levels are told and checked."""

from typing import get_args

from lola.config import require
from lola.nn.layers import Norm, groups

Heads = tuple[tuple[int, int], ...]


def check_levels(channels: tuple[int, ...], blocks: tuple[int, ...], heads: Heads, norm: Norm) -> None:
    """Raise `ConfigError` unless levels fit together.

    Arguments:
        channels, blocks: Channels and residual blocks of each level.
        heads: Pairs (level, heads) of the levels with attention.
        norm: The normalisation within blocks.
    """
    require(len(channels) > 0, "channels must name at least one level")
    require(
        len(channels) == len(blocks),
        f"channels has {len(channels)} levels and blocks {len(blocks)}; give both as many",
    )
    require(min(blocks) >= 0, "blocks must not be negative")
    require(min(channels) >= 2, "every level needs at least 2 channels to normalise over")
    require(norm in get_args(Norm), f"no normalisation is called {norm!r}")
    for n in channels:
        require(
            norm != "group" or n % groups(n) == 0,
            f"{n} channels do not split into {groups(n)} groups; choose a multiple of {groups(n)}",
        )
    for level, number in heads:
        require(0 <= level < len(channels), f"attention_heads names level {level}, which does not exist")
        require(
            number >= 1 and channels[level] % number == 0,
            f"{channels[level]} channels of level {level} do not split into {number} heads",
        )


def heads_of_levels(heads: Heads, levels: int) -> tuple[int, ...]:
    """Attention heads of every level; 0 is no attention."""
    return tuple(dict(heads).get(level, 0) for level in range(levels))
