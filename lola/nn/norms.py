"""What a normalisation may be, and the groups of a group normalisation."""

from typing import Literal

Norm = Literal["layer", "rms", "group"]
GROUPS = 16


def group_count(channels: int) -> int:
    """The groups of a group normalisation, which must divide the channels: 16, or one channel each."""
    return min(GROUPS, channels)
