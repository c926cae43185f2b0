r"""The numbers of windows of trajectories of any lengths.

A trajectory of $L$ states has $S = \max(0, L - w + 1)$ windows that span $w$ states, one for each start. They
are numbered trajectory by trajectory: starts vary fastest.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Numbers = TypeVar("Numbers", int, np.ndarray)


class WindowNumbering:
    """How the windows of a data set are numbered.

    Arguments:
        lengths: The number of states `L` of each trajectory.
        span: States from a window's first to its last, `w`.

    Attributes:
        starts: The number of windows `S` of each trajectory, with shape `(T,)`.
        offsets: The number of each trajectory's first window, and of all windows, with shape `(T + 1,)`.
    """

    def __init__(self, lengths: Sequence[int] | np.ndarray, span: int) -> None:
        self.span = span
        self.starts = np.maximum(0, np.asarray(lengths, dtype=np.int64) - span + 1)
        self.offsets = np.concatenate([[0], np.cumsum(self.starts)])

    def __len__(self) -> int:
        """The number of windows."""
        return int(self.offsets[-1])

    @property
    def short(self) -> int:
        """How many trajectories are shorter than a window."""
        return int((self.starts == 0).sum())

    def locate(self, windows: Numbers) -> tuple[Numbers, Numbers]:
        """The trajectory and the first state of windows by their numbers, one or many.

        Raises:
            IndexError: There is no such window.
        """
        numbers = np.asarray(windows)
        if numbers.size and (numbers.min() < 0 or numbers.max() >= len(self)):
            raise IndexError(f"windows {numbers.min()} to {numbers.max()} of {len(self)}")
        trajectory = np.searchsorted(self.offsets, numbers, side="right") - 1
        start = numbers - self.offsets[trajectory]
        return (trajectory, start) if isinstance(windows, np.ndarray) else (int(trajectory), int(start))
