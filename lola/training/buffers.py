r"""State buffers: the states that a group's windows need, in memory.

A buffer is filled with runs of consecutive states: the union of the spans `[j, j + w)` of the requested
windows, each state read once. Windows that start at most `w` states after one another share a run.
"""

import threading
from typing import Protocol

import numpy as np
from torch import Tensor

from lola.core.keys import Key
from lola.data.state import Batch
from lola.training.order import WindowLayout


class WindowSource(WindowLayout, Protocol):
    """Windows that are read run by run into buffers of the source's own layout."""

    def allocate(self, states: int) -> np.ndarray:
        """A buffer for a number of states."""

    def load(self, buffer: np.ndarray, at: int, trajectory: int, start: int, stop: int) -> None:
        """Read the states from `start` to `stop` of a trajectory into a buffer, from index `at` on."""

    def batch(self, buffer: np.ndarray, at: np.ndarray, windows: np.ndarray, keys: list[Key]) -> Batch:
        """The windows that begin at indices `at` of a buffer; the keys determine their augmentation."""

    def read(self, index: int, key: Key) -> tuple[Tensor, ...]:
        """One window: states `(C, L, *grid)`, parameters `(P,)` and, with a mask, cells `(1, 1, *grid)`."""

    def describe(self, index: int) -> str:
        """Where a window is from, for people: trajectory, file and states."""


class StateBuffer:
    """The states of some windows of a source; their positions in it are known before they are read."""

    def __init__(self, source: WindowSource, windows: np.ndarray) -> None:
        self.source = source
        self.windows = np.unique(windows)
        trajectory, start = source.numbering.locate(self.windows)
        opens = np.ones(len(start), dtype=bool)
        opens[1:] = (np.diff(trajectory) != 0) | (np.diff(start) > source.numbering.span)
        first, last = np.flatnonzero(opens), np.flatnonzero(np.roll(opens, -1))
        lengths = start[last] - start[first] + source.numbering.span
        offsets = np.cumsum(lengths) - lengths
        run = np.cumsum(opens) - 1
        self.places = offsets[run] + start - start[first][run]
        self.runs = np.stack([offsets, trajectory[first], start[first], start[first] + lengths], axis=1)
        self.states = np.empty(0)

    def fill(self, states: np.ndarray, stop: threading.Event) -> None:
        """Read the states.

        Arguments:
            states: Memory from `source.allocate` for all of them, or more.
            stop: Set when the buffer is no longer needed.
        """
        self.states = states
        for at, trajectory, start, end in self.runs.tolist():
            if stop.is_set():
                return
            self.source.load(states, at, trajectory, start, end)

    def covers(self, windows: np.ndarray) -> bool:
        """Whether the buffer holds all of these windows."""
        return bool(np.isin(windows, self.windows).all())

    def batch(self, windows: np.ndarray, keys: list[Key]) -> Batch:
        """Some of the windows, in the order given."""
        places = self.places[np.searchsorted(self.windows, windows)]
        return self.source.batch(self.states, places, windows, keys)
