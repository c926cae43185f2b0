"""Whether the windows that a model is trained on fit the memory that their order is given."""

import dataclasses
import functools
import math
from collections.abc import Sequence

from lola.core.config import prefix_options, require
from lola.data.window_numbering import WindowNumbering
from lola.training.config import TrainingConfig
from lola.training.order import GIGABYTE, SampleOrder
from lola.workflows.dataset_info import DatasetInfo


@dataclasses.dataclass
class Windows:
    """How windows of states lie, as far as their order goes (see `lola.training.order.WindowLayout`).

    Arguments:
        lengths: States of each trajectory, variants included.
        span: States from a window's first to its last.
        state_bytes: Bytes of a state in memory.
        whole_trajectories: Whether a trajectory can only be read as a whole.
    """

    lengths: Sequence[int]
    span: int
    state_bytes: int
    whole_trajectories: bool

    @functools.cached_property
    def numbering(self) -> WindowNumbering:
        """The numbers of the windows."""
        return WindowNumbering(self.lengths, self.span)

    def __len__(self) -> int:
        return len(self.numbering)


def fit_training(training: TrainingConfig, windows: Windows, states: int) -> None:
    """Whether the order of samples, and a batch of windows of `states` states, fit in memory."""
    with prefix_options("order."):
        SampleOrder(windows, training.order, training.seed, training.batch_size)
    batch = training.batch_size * states * windows.state_bytes / GIGABYTE
    require(
        batch <= training.order.memory,
        f"a --batch-size of {training.batch_size} takes {batch:.3g} GB of states; --order.memory "
        f"allows {training.order.memory:g}",
    )


def latent_windows(
    data: DatasetInfo, cells: Sequence[int], channels: int, item: int, span: int, variants: int
) -> Windows:
    """The windows of latent states that an emulator is trained on, `item` being a number's bytes."""
    lengths = [each for each in data.lengths_of("train") for _ in range(variants)]
    return Windows(lengths, span, item * channels * math.prod(cells), True)


def field_windows(data: DatasetInfo, span: int) -> Windows:
    return Windows(data.lengths_of("train"), span, data.state_bytes, False)
