"""Training sources for tests that only say what one window is."""

import numpy as np

from lola.training.stream import collate


class Single:
    """Windows that subclasses define by `__len__` and `read`; a state in memory is a window's number."""

    starts, span, state_bytes, whole_trajectories = 1, 1, 8, False

    def describe(self, index):
        return f"window {index}"

    def allocate(self, states):
        return np.empty(states, dtype=np.int64)

    def load(self, buffer, at, trajectory, start, stop):
        buffer[at] = trajectory

    def batch(self, buffer, at, windows, keys):
        np.testing.assert_array_equal(buffer[at], windows)
        return collate([self.read(int(index), key) for index, key in zip(buffer[at], keys, strict=True)])
