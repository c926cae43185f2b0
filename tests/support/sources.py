"""Training sources for tests that only say what one window is."""

import numpy as np

from lola.data.window_numbering import WindowNumbering
from lola.training.stream import collate


class Single:
    """Windows that subclasses define by `__len__` and `read`; a state in memory is a window's number."""

    state_bytes, whole_trajectories = 8, False

    @property
    def numbering(self):
        return WindowNumbering([1] * len(self), 1)

    def describe(self, index):
        return f"window {index}"

    def allocate(self, states):
        return np.empty(states, dtype=np.int64)

    def load(self, buffer, at, trajectory, start, stop):
        buffer[at] = trajectory

    def batch(self, buffer, at, windows, keys):
        np.testing.assert_array_equal(buffer[at], windows)
        return collate([self.read(int(index), key) for index, key in zip(buffer[at], keys, strict=True)])
