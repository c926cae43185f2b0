r"""Windows of The Well's trajectories, augmented and standardised, for training.

A window of length $W$ and stride $s$ that starts at state $t$ holds the states
$t, t + s, \dots, t + (W - 1) s$, so that a trajectory of $L$ states has $L - (W - 1) s$ windows, or none.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lola.core.errors import DataError
from lola.core.keys import Key, numpy_generator
from lola.data.domain import inside
from lola.data.state import Batch
from lola.data.strides import Strides
from lola.data.systems import Symmetries
from lola.data.transforms import Standardisation
from lola.data.well.splits import WellSplit, state_bytes
from lola.data.window_numbering import WindowNumbering


class WellWindows:
    """All windows of `length` states, `stride` simulation steps apart, augmented by symmetries if given.

    Each sample draws its own stride of `choices`, if there are any.

    Raises:
        DataError: All trajectories are shorter than one window.
    """

    def __init__(
        self,
        split: WellSplit,
        standardise: Standardisation,
        length: int,
        stride: int = 1,
        symmetries: Symmetries | None = None,
        choices: tuple[int, ...] = (),
    ) -> None:
        self.split, self.standardise, self.symmetries = split, standardise, symmetries
        self.length, self.strides = length, Strides(stride, choices)
        self.span = self.strides.span(length)
        self.whole_trajectories = False
        self.numbering = WindowNumbering(split.lengths, self.span)
        if not len(self.numbering):
            apart = self.strides.largest
            raise DataError(
                f"{split.system.name} trajectories of at most {split.steps} states have no window of "
                f"{length} states {apart} steps apart; choose a shorter window or a smaller stride"
            )

    def __len__(self) -> int:
        return len(self.numbering)

    def read(self, index: int, key: Key) -> tuple[Tensor, ...]:
        """A window's standardised states `(C, L, *grid)` and its simulation's parameters `(P,)`.

        Where the system has a mask, which cells `(1, 1, *grid)` are inside of the domain follows.

        Arguments:
            index: The number of the window: starts vary fastest, then trajectories.
            key: The key of the stream that the augmentation is drawn from.

        Raises:
            DataError: The file cannot be read, or holds values that no physical field has.
        """
        i, start = self.numbering.locate(index)
        (first,), (stride,) = self.strides.draw(self.length, [key])
        stop = start + first + (self.length - 1) * stride + 1
        states, parameters = self._augment(i, self.split.read(i, start + first, stop, stride), key)
        valid = inside(states, self.split.system)
        labelled = self.strides.label(parameters[None], np.array([stride]))[0]
        return self._standardise(states, [i]), labelled, *(() if valid is None else (valid,))

    def describe(self, index: int) -> str:
        """Trajectory, file and states of a window, for people."""
        i, start = self.numbering.locate(index)
        source = self.split.trajectories[i]
        return f"{source.id} ({source.file}), states {start} to {start + self.span - 1}"

    @property
    def state_bytes(self) -> int:
        return state_bytes(self.split)

    def allocate(self, states: int) -> np.ndarray:
        """A buffer for a number of states: float32, with shape `(C, states, *grid)`."""
        return np.empty((len(self.split.system.channels), states, *self.split.grid), dtype=np.float32)

    def load(self, buffer: np.ndarray, at: int, trajectory: int, start: int, stop: int) -> None:
        """Read the states from `start` to `stop` of a trajectory into a buffer, from place `at` on.

        Raises:
            DataError: The file cannot be read, or holds values that are not finite.
        """
        self.split.read_into(buffer[:, at : at + stop - start], trajectory, start, stop)

    def batch(self, buffer: np.ndarray, at: np.ndarray, windows: np.ndarray, keys: list[Key]) -> Batch:
        """Windows, augmented and standardised, whose first states are at some places of a buffer.

        Raises:
            DataError: They hold values that no physical field has.
        """
        shape = (len(windows), len(self.split.system.channels), self.length, *self.split.grid)
        states = torch.from_numpy(np.empty(shape, dtype=np.float32))
        source, parameters = torch.from_numpy(buffer), []
        trajectories = self.numbering.locate(windows)[0].tolist()
        first, strides = self.strides.draw(self.length, keys)
        places = zip((at + first).tolist(), strides.tolist(), strict=True)
        for row, ((place, stride), i, key) in enumerate(zip(places, trajectories, keys, strict=True)):
            window = source[:, place : place + (self.length - 1) * stride + 1 : stride]
            states[row], augmented = self._augment(i, window, key)
            parameters.append(augmented)
        valid = inside(states, self.split.system)
        states = self._standardise(states, trajectories)
        labelled = self.strides.label(torch.stack(parameters), strides)
        return Batch(states=states, parameters=labelled, valid=valid)

    def _augment(self, i: int, states: Tensor, key: Key) -> tuple[Tensor, Tensor]:
        """A symmetry of states and parameters of trajectory `i`, if there are any."""
        parameters = self.split.parameters(i)
        if self.symmetries is None:
            return states, parameters
        symmetry = self.split.symmetry(i, self.symmetries, numpy_generator(*key))
        return symmetry.apply(states), symmetry.parameters(parameters)

    def _standardise(self, states: Tensor, trajectories: Sequence[int]) -> Tensor:
        """Standardise windows of some trajectories; an error names the first that is at fault."""
        try:
            return self.standardise.forward(states)
        except DataError as error:
            if len(trajectories) > 1:
                for each, i in zip(states, trajectories, strict=True):
                    self._standardise(each, [i])
            source = self.split.trajectories[trajectories[0]]
            remedy = f"{source.remedy}, or choose another transform"
            raise DataError(f"{source.id} ({source.file}): {error}; {remedy}") from error
