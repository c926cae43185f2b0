import dataclasses
import hashlib
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lola.core.errors import ConfigError
from lola.data.window_numbering import WindowNumbering
from lola.training.order import OrderConfig, SampleOrder


@dataclasses.dataclass
class Windows:
    """Seven trajectories, with windows of 5 states at stride 4; the windows of each."""

    starts: tuple[int, ...] = (34,) * 7
    span: int = 17
    state_bytes: int = 10
    whole_trajectories: bool = False

    @property
    def numbering(self):
        return WindowNumbering(np.array(self.starts) + self.span - 1, self.span)

    def __len__(self):
        return sum(self.starts)


def order(windows=None, batch_size=6, seed=0, block=8, blocks=5):
    windows = windows or Windows()
    longest = max(windows.starts) if windows.whole_trajectories else block
    memory = 2 * blocks * (longest + windows.span - 1) * windows.state_bytes / 1e9
    return SampleOrder(windows, OrderConfig(block=block, memory=memory), seed, batch_size)


def walk(order, samples):
    groups = [order.at(0)]
    while groups[-1].stop < samples:
        groups.append(order.group(*groups[-1].next))
    return groups


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("starts", [(34,) * 7, (34, 3, 0, 17, 1, 34, 50)])
@pytest.mark.parametrize("blocks", [1, 5, 100])
def test_every_window_of_an_epoch_is_seen_once(blocks, starts, whole):
    windows = Windows(starts, whole_trajectories=whole)
    groups = walk(order(windows, blocks=blocks), 3 * len(windows))
    stream = np.concatenate([group.windows for group in groups])
    epochs = stream.reshape(3, len(windows))
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(len(windows)))
    assert (epochs[0] != epochs[1]).mean() > 0.9
    assert (epochs[1] != epochs[2]).mean() > 0.9


def test_groups_follow_one_another_and_are_found_from_any_sample():
    every = order()
    groups = walk(every, 600)
    assert len(groups) > 10
    for group, following in itertools.pairwise(groups):
        assert group.stop == following.first
    for n in (0, 1, 237, 238, 239, 500):
        group = order().at(n)
        (same,) = (each for each in groups if each.first <= n < each.stop)
        assert group.first == same.first
        np.testing.assert_array_equal(group.windows, same.windows)


def test_a_group_keeps_within_its_memory():
    windows = Windows()
    for group in walk(order(windows, blocks=5), 600):
        trajectory, start = windows.numbering.locate(np.unique(group.windows))
        needed = {(t, j + k) for t, j in zip(trajectory, start, strict=True) for k in range(windows.span)}
        assert len(needed) <= 5 * (8 + windows.span - 1)


def test_blocks_are_runs_of_windows():
    group = order(blocks=5).at(0)
    runs = np.split(np.sort(group.windows), np.flatnonzero(np.diff(np.sort(group.windows)) > 1) + 1)
    assert len(runs) <= 5
    assert all(len(run) >= 6 for run in runs)


@pytest.mark.parametrize("lanes", [1, 2, 3])
def test_workers_share_out_the_blocks(lanes):
    """However a step is sliced, slices need disjoint blocks of the group, but for those at their borders."""
    windows, batch_size, world = Windows((34,) * 40), 6, 6 // lanes
    first = order(windows, batch_size, blocks=24).at(0)
    slot = np.arange(len(first.windows)) % batch_size
    blocks = [set(first.windows[slot // lanes == rank] // 7) for rank in range(world)]
    assert sum(len(each) for each in blocks) <= len(set(first.windows // 7)) + 24 // 2 + world


@pytest.mark.parametrize(("batch_size", "world"), [(6, 1), (6, 2), (6, 5), (64, 3), (300, 7)])
@pytest.mark.parametrize(
    "windows",
    [
        Windows(),
        Windows((9,) * 7, span=5),
        Windows((2,) * 7, span=30),
        Windows((34, 3, 0, 17, 1, 34, 5)),
    ],
)
def test_no_worker_needs_more_memory_than_computed(windows, batch_size, world):
    every = order(windows, batch_size, block=4, blocks=6)
    for group in walk(every, 3 * len(windows)):
        slot = (group.first + np.arange(len(group.windows))) % batch_size
        for rank in range(world):
            lanes = range(rank * batch_size // world, (rank + 1) * batch_size // world)
            mine = group.windows[(slot >= lanes.start) & (slot < lanes.stop)]
            trajectory, start = windows.numbering.locate(mine)
            states = {(t, j + k) for t, j in zip(trajectory, start, strict=True) for k in range(windows.span)}
            assert len(states) <= every.states(len(lanes)) <= 6 * (4 + windows.span - 1)


def test_the_order_of_trajectories_of_one_length_never_changes():
    """Of finished trainings, and of those that go on: recorded before lengths could differ."""
    digest = hashlib.sha256()
    for whole in (False, True):
        every = order(Windows((34,) * 7, whole_trajectories=whole), seed=3)
        for group in walk(every, 600):
            digest.update(group.windows.astype("<i8").tobytes())
    assert digest.hexdigest()[:16] == "56e4c9ca36e2f6ba"


def test_blocks_do_not_cross_trajectories_of_different_lengths():
    windows = Windows((3, 17, 0, 34))
    every = order(windows, block=8, blocks=100)
    assert every.sizes.tolist() == [3, 5, 6, 6, 6, 7, 7, 7, 7]
    assert every.firsts.tolist() == [0, 3, 8, 14, 20, 26, 33, 40, 47]
    whole = order(Windows((3, 17, 0, 34), whole_trajectories=True), blocks=100)
    assert whole.sizes.tolist() == [3, 17, 34]
    assert windows.numbering.short == 1


def test_a_batch_is_spread_over_the_group():
    windows = Windows((34,) * 40)
    group = order(windows, 24, blocks=24).at(0)
    batch = group.windows[:24]
    assert len(set((batch // 7).tolist())) > 18
    assert len(set((batch // 34).tolist())) > 10


def test_the_seed_decides():
    assert not np.array_equal(order(seed=0).at(0).windows, order(seed=1).at(0).windows)


def test_too_little_memory_is_refused():
    with pytest.raises(ConfigError, match=r"two blocks of 23 states; give at least 4\.6e-07"):
        SampleOrder(Windows(), OrderConfig(block=8, memory=4e-7), 0, 6)
    SampleOrder(Windows(), OrderConfig(block=8, memory=4.6e-7), 0, 6)
    with pytest.raises(ConfigError, match=r"give at least 2\.8e-06"):  # 2714 bytes, rounded up
        SampleOrder(Windows(state_bytes=59), OrderConfig(block=8, memory=4e-7), 0, 6)


@settings(max_examples=30, deadline=None)
@given(
    windows=st.builds(
        Windows,
        st.lists(st.integers(0, 12), min_size=1, max_size=6).filter(any),
        st.integers(1, 6),
        whole_trajectories=st.booleans(),
    ),
    block=st.integers(1, 8),
    blocks=st.integers(1, 6),
    batch_size=st.integers(1, 8),
    seed=st.integers(0, 2**31),
    data=st.data(),
)
def test_any_order_sees_every_window_once_an_epoch_and_is_a_function_of_the_sample(
    windows, block, blocks, batch_size, seed, data
):
    arguments = {"batch_size": batch_size, "seed": seed, "block": block, "blocks": blocks}
    groups = walk(order(windows, **arguments), 2 * len(windows))
    stream = np.concatenate([group.windows for group in groups])
    for epoch in stream[: 2 * len(windows)].reshape(2, -1):
        np.testing.assert_array_equal(np.sort(epoch), np.arange(len(windows)))
    sample = data.draw(st.integers(0, 2 * len(windows) - 1))
    group = order(windows, **arguments).at(sample)  # from nothing but the seed and the sample
    assert group.first <= sample < group.stop
    np.testing.assert_array_equal(group.windows, stream[group.first : group.stop])
