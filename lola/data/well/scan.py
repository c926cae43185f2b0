r"""One pass over a trajectory: the moments of its channels, and what is at fault with its values.

Of each state and channel the count, mean, sum of squared deviations and extremes are taken before and after
the channel's transform, in pieces of `PIECE` values in double precision, and joined over states at the end:
results do not depend on how many states are read at once. Memory is that of these states, and little more.
Cells outside of the domain of a mask do not count.

Faults are values that are missing (not finite, fill values, cells never written), outside the domain of their
transform or outside the system's `bounds`, states that equal the one before, and times that are not
finite, do not increase or are not evenly spaced.
"""

import dataclasses
import hashlib
import itertools
import json
import math
import os
from collections.abc import Iterator, Sequence

import h5py
import numpy as np
import pyarrow as pa
import torch

from lola.data.casting import LARGEST
from lola.data.domain import inside
from lola.data.hdf5 import open_cached
from lola.data.statistics import PARTS
from lola.data.transforms import BOUND, TRANSFORMS
from lola.data.well.fields import location, varies
from lola.data.well.simulation_files import SimulationFile
from lola.data.well.splits import WellSplit, state_bytes

PIECE = 2**18  # values in double precision at once
BLOCK_BYTES = 2**26  # states that are read at once by default, unless one is larger
SHARE_OF_MEMORY = 1 / 16  # of a core's, since four files are read on each
UNEVEN = 0.01  # of the usual difference between times
LARGE_FILL = 1e15
FILL_ATTRIBUTES = ("_FillValue", "missing_value")


@dataclasses.dataclass
class Fault:
    """What is wrong with values of a trajectory.

    Arguments:
        kind: `missing`, `domain`, `bounds`, `repeated`, `times`, `far` or `constant`.
        trajectory: The trajectory's id.
        field: The channel, field or axis; empty for all.
        states: The first few numbers of the states, perhaps none.
        count: How many states are affected.
        text: What is wrong, after the field's name.
        spoils: Whether training would be spoilt.
    """

    kind: str
    trajectory: str
    field: str
    states: list[int]
    count: int
    text: str
    spoils: bool

    def __str__(self) -> str:
        subject = f"{self.trajectory}: {self.field}".rstrip()
        listed = ", ".join(map(str, self.states))
        more = f" and {self.count - len(self.states)} more" if self.count > len(self.states) else ""
        where = f" in state{'s' if self.count > 1 else ''} {listed}{more}" if self.states else ""
        return f"{subject} {self.text}{where}"


@dataclasses.dataclass(frozen=True)
class ScannedFile(SimulationFile):
    """A file whose blocks are not its states but what a pass over each trajectory finds: a row for each."""

    @property
    def size(self) -> int:
        """Bytes of all rows, roughly."""
        return len(self.members) * 2**12

    def rows(self, states: int) -> int:
        """A row for each trajectory."""
        return len(self.members)

    def blocks(self, number: int, states: int) -> Iterator[pa.Table]:
        """Rows of `trajectory`, `states`, moments `(2 C,)` of physical and transformed values, and faults.

        Arguments:
            number: The number of the shard.
            states: States that are read at once; 0 is as many as memory allows.
        """
        for index in self.members:
            yield pa.Table.from_pylist([Scan(self.split, index, states or default_block(self.split)).row()])


def default_block(split: WellSplit) -> int:
    """States that are read at once: at least one, and no more than this machine's memory allows."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (os.cpu_count() or 1)
    return max(1, int(min(BLOCK_BYTES, SHARE_OF_MEMORY * memory)) // state_bytes(split))


class Scan:
    """A pass over one trajectory.

    Arguments:
        split: Its split.
        index: Its number in the split.
        block: States that are read at once.
    """

    def __init__(self, split: WellSplit, index: int, block: int) -> None:
        self.split, self.system, self.source = split, split.system, split.trajectories[index]
        self.steps, self.faults = self.source.steps, list[Fault]()
        channels = len(self.system.channels)
        shape = (2, channels, self.steps)
        self.count, self.mean, self.squares = (np.zeros(shape) for _ in range(3))
        self.low, self.high = np.full(shape, np.inf), np.full(shape, -np.inf)
        self.missing = np.zeros((channels, self.steps), dtype=np.int64)
        self.outside = np.zeros((channels, self.steps), dtype=np.int64)  # of the transform's domain
        self.fills = fill_values(split, index)
        block = min(block, self.steps)
        buffer = np.empty((channels, block, *split.grid), dtype=np.float32)
        digests = []
        valid: np.ndarray | None = None  # cells inside of the domain
        for start in range(0, self.steps, block):
            x = buffer[:, : min(block, self.steps - start)]
            split.read_into(x, index, start, start + x.shape[1], checked=False)
            if valid is None and (cells := inside(torch.from_numpy(x), self.system)) is not None:
                valid = cells[0, 0].numpy()
            digests += [_digest(x[:, t], self.system.evolving) for t in range(x.shape[1])]
            for channel in range(channels):
                values = x[channel] if valid is None else x[channel][:, valid]
                self._channel(channel, values.reshape(x.shape[1], -1), start)
        self.digests = digests
        self._collect_faults(index)

    def _channel(self, channel: int, x: np.ndarray, start: int) -> None:
        """Take the moments of states `(T, cells)` of a channel; the first has the number `start`."""
        cells = x.shape[1]
        together = max(1, PIECE // cells)
        for t in range(0, len(x), together):
            for begin in range(0, cells, PIECE):
                piece = x[t : t + together, begin : begin + PIECE].astype(np.float64)
                states = slice(start + t, start + t + len(piece))
                self._piece(channel, states, piece)

    def _piece(self, channel: int, states: slice, physical: np.ndarray) -> None:
        """Add the moments of values `(T, n)` to those of states, without those that cannot count."""
        kind, fills = self.system.transforms[channel], self.fills[channel]
        bound = BOUND.get(kind, -np.inf)
        sound = physical.min() > -LARGEST and physical.max() < LARGEST and physical.min() > bound
        weights = None
        if not sound or any((physical == fill).any() for fill in fills):
            missing = ~(np.abs(physical) < LARGEST) | np.isin(physical, fills)
            with np.errstate(invalid="ignore"):
                outside = ~missing & ~(physical > bound)
            self.missing[channel, states] += missing.sum(1)
            self.outside[channel, states] += outside.sum(1)
            weights = ~(missing | outside)
            physical = np.where(weights, physical, np.nan)
        self._add(0, channel, states, physical, weights)
        if kind == "identity":
            for part in (self.count, self.mean, self.squares, self.low, self.high):
                part[1, channel, states] = part[0, channel, states]
        else:
            self._add(1, channel, states, TRANSFORMS[kind][0](torch.from_numpy(physical)).numpy(), weights)

    def _add(
        self, half: int, channel: int, states: slice, values: np.ndarray, weights: np.ndarray | None
    ) -> None:
        """Merge the moments of values `(T, n)`, nan where weights are false, with those of their states."""
        if weights is None:
            count = np.full(len(values), float(values.shape[1]))
            low, high, mean = values.min(1), values.max(1), values.mean(1)
            squares = np.square(values - mean[:, None]).sum(1)
        else:
            count = weights.sum(1).astype(float)
            low, high = np.nanmin(values, 1, initial=np.inf), np.nanmax(values, 1, initial=-np.inf)
            mean = np.nansum(values, 1) / np.maximum(count, 1)
            squares = np.nansum(np.square(values - mean[:, None]), 1)
        place = half, channel, states
        total = np.maximum(self.count[place] + count, 1)
        delta = mean - self.mean[place]
        self.squares[place] += squares + delta**2 * self.count[place] * count / total
        self.mean[place] += delta * count / total
        self.low[place], self.high[place] = (
            np.minimum(self.low[place], low),
            np.maximum(self.high[place], high),
        )
        self.count[place] += count

    def row(self) -> dict[str, object]:
        """What `ScannedFile.blocks` gives of this trajectory: moments over all states, and by state."""
        count = self.count.sum(-1)
        mean = (self.count * self.mean).sum(-1) / np.maximum(count, 1)
        squares = (self.squares + self.count * np.square(self.mean - mean[..., None])).sum(-1)
        moments = mean, squares, self.low.min(-1), self.high.max(-1)
        variance = self.squares[1] / np.maximum(self.count[1], 1)
        return {
            "trajectory": self.source.id,
            "states": self.steps,
            "values": int(count.max(initial=0)),
            **{name: values.ravel().tolist() for name, values in zip(PARTS, moments, strict=True)},
            "typical_mean": np.median(self.mean[1], -1).tolist(),
            "typical_variance": np.median(variance, -1).tolist(),
            "lowest_state": self.low[0].argmin(-1).tolist(),
            "highest_state": self.high[0].argmax(-1).tolist(),
            "digest": hashlib.blake2b(b"".join(self.digests), digest_size=8).hexdigest(),
            "faults": json.dumps([dataclasses.asdict(fault) for fault in self.faults]),
        }

    def _collect_faults(self, index: int) -> None:
        channels = self.system.channels
        for channel, name in enumerate(channels):
            self._add_fault("missing", name, self.missing[channel] > 0, self._describe_missing(channel), True)
            text = f"has values where its transform {self.system.transforms[channel]} is undefined"
            self._add_fault("domain", name, self.outside[channel] > 0, text, True)
        for field, states in unwritten_states(self.split, index):
            self._add_fault(
                "missing", field, states, "was never written, and HDF5 gives its fill value", True
            )
        for bounds in self.system.bounds:
            channel = channels.index(bounds.channel)
            low, high = self.low[0, channel], self.high[0, channel]
            outside = ~bounds.contain(low, high) & (self.count[0, channel] > 0)
            if outside.any():
                lowest, highest = low[outside].min(), high[outside].max()
                text = f"is from {lowest:g} to {highest:g}, outside its bounds {bounds.limits},"
                self._add_fault("bounds", bounds.channel, outside, text, False)
        same = [False, *(a == b for a, b in itertools.pairwise(self.digests))]
        self._add_fault("repeated", "", np.array(same), "repeats the state before", False)
        times = np.atleast_1d(self.split.axis(index, "time"))
        if text := describe_times(times):
            self.faults.append(Fault("times", self.source.id, "time", [], 0, text, False))

    def _describe_missing(self, channel: int) -> str:
        cells = int(self.missing[channel].max(initial=0))
        fills = "".join(f", {fill:g}" for fill in self.fills[channel])
        return (
            f"is missing (nan, infinite, a fill value such as 9.97e+36{fills}) in {cells} cells of a state,"
        )

    def _add_fault(self, kind: str, field: str, where: np.ndarray, text: str, spoils: bool) -> None:
        """Note a fault of some states, if there are any."""
        found = np.flatnonzero(where)
        if len(found):
            states = [int(state) for state in found[:3]]
            self.faults.append(Fault(kind, self.source.id, field, states, len(found), text, spoils))


def _digest(state: np.ndarray, channels: Sequence[int]) -> bytes:
    """A hash of some channels of a state `(C, *grid)`."""
    digest = hashlib.blake2b(digest_size=8)
    for channel in channels:
        digest.update(state[channel].data)
    return digest.digest()


def fill_values(split: WellSplit, index: int) -> list[list[float]]:
    """For each channel, the values that its file declares to be none."""
    file, found = open_cached(split.trajectories[index].file), list[list[float]]()
    for field, size in zip(split.system.fields, split.system.sizes, strict=True):
        array = file[location(field)]
        declared = [array.attrs[name] for name in FILL_ATTRIBUTES if name in array.attrs]
        if np.abs(array.fillvalue) > LARGE_FILL:  # others are values like any; what was not written is found
            declared.append(array.fillvalue)
        values = np.ravel(np.array(declared, dtype=np.float64)).astype(np.float32)
        found += [[float(value) for value in np.unique(values[np.isfinite(values)])]] * size
    return found


def unwritten_states(split: WellSplit, index: int) -> Iterator[tuple[str, np.ndarray]]:
    """Fields that have cells in a trajectory that were never written, and in which states, `(L,)`."""
    source = split.trajectories[index]
    for field in split.system.fields:
        array = open_cached(source.file)[location(field)]
        states = _unwritten(array, source.index, source.steps)
        if states.any():
            yield field.name, states


def _unwritten(array: h5py.Dataset, index: int, steps: int) -> np.ndarray:
    layout = array.id.get_create_plist().get_layout()
    if array.size == 0 or layout not in (h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED) or array.external:
        return np.zeros(steps, dtype=bool)
    if array.chunks is None:
        return np.full(steps, array.id.get_storage_size() == 0)
    shape = [-(-size // chunk) for size, chunk in zip(array.shape, array.chunks, strict=True)]
    if array.id.get_num_chunks() >= math.prod(shape):
        return np.zeros(steps, dtype=bool)
    absent = np.ones(shape, dtype=bool)
    array.id.chunk_iter(
        lambda chunk: absent.__setitem__(
            tuple(offset // size for offset, size in zip(chunk.chunk_offset, array.chunks, strict=True)),
            False,
        )
    )
    sample, time = varies(array)
    own = absent[index // array.chunks[0]] if sample else absent
    if not time:
        return np.full(steps, own.any())
    by_chunk = own.reshape(len(own), -1).any(1)
    return np.repeat(by_chunk, array.chunks[int(sample)])[:steps]


def describe_times(times: np.ndarray) -> str:
    """What is wrong with the times of a trajectory, `(L,)`; empty if nothing is."""
    if not np.isfinite(times).all():
        return f"is not finite at state {int(np.argmin(np.isfinite(times)))}"
    steps = np.diff(times)
    if (steps <= 0).any():
        state = int(np.argmax(steps <= 0))
        return f"does not increase from state {state} to {state + 1} ({times[state]:g}, {times[state + 1]:g})"
    usual = np.median(steps) if len(steps) else 0.0
    rounding = 4 * np.finfo(np.float32).eps * np.abs(times).max(initial=0)
    uneven = np.abs(steps - usual) > UNEVEN * usual + rounding
    if not uneven.any():
        return ""
    state = int(np.argmax(uneven))
    return (
        f"is not evenly spaced: {steps[state]:g} from state {state} to {state + 1}, {usual:g} elsewhere; "
        "models take states to be evenly spaced"
    )
