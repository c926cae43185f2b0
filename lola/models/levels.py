"""Options of the levels of convolutional networks, and their checks."""

from typing import Annotated, get_args

from lola.core.config import Listed, NonNegativeInt, Size, Within, require
from lola.nn.norms import Norm, group_count

Heads = Annotated[tuple[tuple[NonNegativeInt, Size], ...], Listed(empty=True)]
Blocks = Annotated[int, Within("[0, 1024]")]


def check_levels(channels: tuple[int, ...], blocks: tuple[int, ...], heads: Heads, norm: Norm) -> None:
    """Raise `ConfigError` unless levels fit together.

    Arguments:
        channels, blocks: Channels and residual blocks of each level.
        heads: Pairs (level, heads) of the levels with attention.
        norm: The normalisation within blocks.
    """
    require(
        len(channels) == len(blocks),
        f"--channels has {len(channels)} levels and --blocks {len(blocks)}; give both the same number",
    )
    require(norm in get_args(Norm), f"no normalisation is called {norm!r}")
    for n in channels:
        require(
            norm != "group" or n % group_count(n) == 0,
            f"--channels {n} do not split into {group_count(n)} groups; "
            f"choose a multiple of {group_count(n)}",
        )
    levels = [level for level, _ in heads]
    require(len(set(levels)) == len(levels), f"--attention-heads contains duplicate levels: {levels}")
    for level, number in heads:
        require(level < len(channels), f"--attention-heads names level {level}, which does not exist")
        require(
            channels[level] % number == 0,
            f"{channels[level]} --channels of level {level} do not split into {number} --attention-heads",
        )


def heads_per_level(heads: Heads, levels: int) -> tuple[int, ...]:
    """Attention heads of every level; 0 is no attention."""
    return tuple(dict(heads).get(level, 0) for level in range(levels))
