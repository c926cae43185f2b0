r"""The order of training samples: a permutation of every epoch's windows that is read in long runs.

A source holds trajectories, each of its own number $S$ of windows, one for each start; a window spans $w$
states. The starts of a trajectory fall into $K = \lceil S / T \rceil$ time blocks of at most $T$ starts:
block $k$ holds the starts from $\lfloor k S / K \rfloor$ to $\lfloor (k + 1) S / K \rfloor - 1$. The
$T + w - 1$ states from a block's first start on contain all of its windows, also those that reach into the
next block. Every window belongs to one block.

Epoch $e$ puts all blocks in an order drawn from (seed, e), and cuts this order into groups of at most $G$
consecutive blocks. With two groups in memory, the one in use and the next, the states in memory are bounded,
over all workers together and whatever the size of the dataset, by

    $2 G (T + w - 1)$ times the bytes of a state  $\le$  `memory`,   which gives $G$.

Sample $i$ of step $s$, with batch size $B$, is number $n = s B + i$ of an endless stream, and with $N$
windows belongs to epoch $\lfloor n / N \rfloor$; the groups of an epoch follow each other. Of a group's
numbers $n$, those with equal $i = n \bmod B$ form lane $i$. Lanes take the windows of the group's blocks in
their order: lane 0 the first $c_0$, lane 1 the next $c_1$, where $c_i$ is the number of its samples; each
lane is then shuffled. So

- every window of an epoch is seen exactly once;
- a window is a function of (seed, s, i), and the position to resume from is the step alone;
- a batch takes one window from each of $B$ places that are spread over all blocks of the group;
- a worker, which takes a run of lanes (a slice of every step), needs a run of the group's blocks: workers
  hold disjoint parts of each group but for the $w - 1$ states that both sides of a divided block need.
"""

import dataclasses
import functools
from typing import Annotated, Protocol

import numpy as np

from lola.core.config import Config, Count, Within, require
from lola.core.keys import numpy_generator
from lola.data.window_numbering import WindowNumbering

GIGABYTE = 1e9


@dataclasses.dataclass(frozen=True, kw_only=True)
class OrderConfig(Config):
    """What determines the order of samples, in addition to the seed.

    Arguments:
        block: Windows whose states are read in one piece, `T`; sources that are read trajectory by
            trajectory have blocks of whole trajectories.
        memory: Gigabytes of states in memory, over all workers. Within half of it, samples are shuffled
            window by window, beyond it block by block: more shuffles better.
    """

    block: Count = 16
    memory: Annotated[float, Within("(0, 1e9]")] = 4.0


class WindowLayout(Protocol):
    """How a source's windows lie.

    Arguments:
        numbering: The numbers of the windows.
        state_bytes: Bytes of a state in memory.
        whole_trajectories: Whether a trajectory can only be read as a whole.
    """

    whole_trajectories: bool

    @property
    def numbering(self) -> WindowNumbering: ...

    @property
    def state_bytes(self) -> int: ...

    def __len__(self) -> int:
        """The number `N` of windows."""


@dataclasses.dataclass(frozen=True)
class SampleGroup:
    """Consecutive samples of the stream, whose windows share a few blocks."""

    first: int  # the number `n` of the first sample
    windows: np.ndarray  # the window of each sample
    next: tuple[int, int]  # epoch and number of the group that follows

    @property
    def stop(self) -> int:
        """The number after the last sample."""
        return self.first + len(self.windows)


class SampleOrder:
    """The window of every sample of the endless stream, `batch_size` (`B`) of which make a step.

    Raises:
        ConfigError: The memory does not hold two blocks.
    """

    def __init__(self, geometry: WindowLayout, config: OrderConfig, seed: int, batch_size: int) -> None:
        self.seed, self.batch_size, self.windows = seed, batch_size, len(geometry)
        self.span = geometry.numbering.span
        self.firsts, self.sizes = _blocks(
            geometry.numbering, None if geometry.whole_trajectories else config.block
        )
        self.blocks = len(self.sizes)
        longest = int(self.sizes.max()) + self.span - 1
        block_bytes = longest * geometry.state_bytes
        blocks_in_group = round(config.memory * GIGABYTE) // (2 * block_bytes)
        digit = 10 ** max(0, len(str(2 * block_bytes)) - 2)  # the second one, rounded up
        least = -(-2 * block_bytes // digit) * digit / GIGABYTE
        require(
            blocks_in_group > 0,
            f"a --memory of {config.memory:g} GB does not hold two blocks of {longest} states; "
            f"give at least {least:g} or a smaller --block",
        )
        self.groups = -(-self.blocks // blocks_in_group)
        self._epoch = functools.lru_cache(maxsize=2)(self._draw)

    def _draw(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The order of an epoch's blocks, and where among its windows the groups begin and end."""
        blocks = numpy_generator(self.seed, "epoch", epoch).permutation(self.blocks)
        ends = np.concatenate([[0], np.cumsum(self.sizes[blocks])])
        return blocks, ends[np.arange(self.groups + 1) * self.blocks // self.groups]

    def states(self, lanes: int) -> int:
        """The most states that a number of consecutive lanes needs of any group."""
        blocks = -(-self.blocks // self.groups)
        windows = blocks * int(self.sizes.max())
        share = windows * lanes // self.batch_size + lanes
        cut = share // int(self.sizes.min()) + 2  # blocks, of which the first and the last are incomplete
        return min(windows + blocks * (self.span - 1), share + cut * (self.span - 1))

    def at(self, n: int) -> SampleGroup:
        """The group that holds a sample."""
        epoch, position = divmod(n, self.windows)
        _, edges = self._epoch(epoch)
        return self.group(epoch, int(np.searchsorted(edges, position, side="right")) - 1)

    def group(self, epoch: int, number: int) -> SampleGroup:
        """A group by its number in an epoch."""
        blocks, edges = self._epoch(epoch)
        blocks = blocks[number * self.blocks // self.groups : (number + 1) * self.blocks // self.groups]
        sizes = self.sizes[blocks]
        # The windows of all blocks, one after another: each block's first, and how far a window is into it
        firsts = np.repeat(self.firsts[blocks], sizes)
        into = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        first = epoch * self.windows + int(edges[number])
        lanes = (first + np.arange(len(firsts))) % self.batch_size
        by_lane = np.argsort(lanes, kind="stable")
        keys = numpy_generator(self.seed, "group", epoch, number).random(len(firsts))
        windows = np.empty(len(firsts), dtype=np.int64)
        windows[by_lane] = (firsts + into)[np.lexsort((keys, lanes[by_lane]))]
        following = (epoch, number + 1) if number + 1 < self.groups else (epoch + 1, 0)
        return SampleGroup(first, windows, following)


def _blocks(numbering: WindowNumbering, block: int | None) -> tuple[np.ndarray, np.ndarray]:
    """The number of the first window of every time block, and its number of windows.

    Arguments:
        numbering: The numbers of the windows.
        block: The most windows of a block; None for blocks of whole trajectories.
    """
    starts = numbering.starts
    counts = np.minimum(starts, 1) if block is None else -(-starts // block)
    trajectory = np.repeat(np.arange(len(starts)), counts)
    number = np.arange(len(trajectory)) - np.repeat(np.cumsum(counts) - counts, counts)
    first, stop = (k * starts[trajectory] // counts[trajectory] for k in (number, number + 1))
    return numbering.offsets[trajectory] + first, stop - first
