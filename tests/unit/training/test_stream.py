import itertools
import threading
import time

import numpy as np
import pytest
import torch

from lola.core.errors import DataError
from lola.data.state import Batch
from lola.data.window_numbering import WindowNumbering
from lola.training.order import OrderConfig
from lola.training.stream import BatchStream, fixed_batches


class Numbers:
    """Trajectories whose states are their own numbers, `1000 trajectory + time`; windows of 3 at stride 2."""

    state_bytes, whole_trajectories = 8, False

    def __init__(self, trajectories=9):
        self.numbering = WindowNumbering([15] * trajectories, 5)
        self.loads, self.buffers = [], []

    def __len__(self):
        return len(self.numbering)

    def allocate(self, states):
        self.buffers.append(states)
        return np.full(states, np.nan)

    def load(self, buffer, at, trajectory, start, stop):
        self.loads.append((trajectory, start, stop))
        buffer[at : at + stop - start] = 1000 * trajectory + np.arange(start, stop)

    def batch(self, buffer, at, windows, keys):
        states = torch.from_numpy(np.stack([buffer[place : place + 5 : 2] for place in at]))
        return Batch(states=states[:, None, :, None], parameters=torch.from_numpy(windows)[:, None])

    def read(self, index, key):
        states = torch.arange(3.0)[None, :, None] * 2 + 1000 * (index // 11) + index % 11
        return states, torch.tensor([index])


def memory(blocks, block=4):
    return OrderConfig(block=block, memory=2 * blocks * (block + 4) * 8 / 1e9)


def stream(source=None, **options):
    settings = {"seed": 1, "batch_size": 7, "order": memory(5)} | options
    return BatchStream(source or Numbers(), **settings)


def windows(batches):
    return torch.cat([batch.parameters[:, 0] for batch, _ in batches])


@pytest.mark.parametrize(("blocks", "batch_size"), [(5, 7), (100, 7), (1, 7), (1, 40), (5, 250)])
@pytest.mark.parametrize("threads", [1, 3])
def test_windows_are_complete_and_seen_once_per_epoch(blocks, batch_size, threads):
    steps = -(-2 * 99 // batch_size)
    found = list(stream(batch_size=batch_size, order=memory(blocks), threads=threads).batches(0, steps))
    seen = windows(found)
    assert sorted(seen[:99].tolist()) == sorted(seen[99:198].tolist()) == list(range(99))
    for batch, keys in found:
        expected = torch.stack([Numbers().read(int(index), ())[0] for index in batch.parameters[:, 0]])
        assert torch.equal(batch.states, expected.to(batch.states.dtype))
        assert len(keys) == len(batch) == batch_size
    assert found[3][1][2] == (1, "step", 3, 2) if batch_size > 2 and steps > 3 else True


@pytest.mark.parametrize("world", [2, 3, 7])
def test_any_number_of_workers_reads_one_stream(world):
    whole = list(stream().batches(0, 40))
    ranks = [list(stream(rank=rank, world=world).batches(0, 40)) for rank in range(world)]
    for step in range(40):
        parts = [rank[step] for rank in ranks]
        assert torch.equal(whole[step][0].states, torch.cat([batch.states for batch, _ in parts]))
        assert whole[step][1] == [key for _, keys in parts for key in keys]


@pytest.mark.parametrize("start", [1, 6, 14, 15, 33])
def test_a_stream_resumes_from_any_step(start):
    expected = windows(itertools.islice(stream().batches(0, 40), start, None))
    assert torch.equal(windows(stream().batches(start, 40)), expected)


def test_resuming_reads_only_the_rest_of_the_group():
    whole, rest = Numbers(), Numbers()
    list(stream(whole).batches(0, 14))
    list(stream(rest).batches(12, 14))
    read = [sum(stop - start for _, start, stop in source.loads) for source in (whole, rest)]
    assert read[1] <= 2 * 5 * 8
    assert read[1] < read[0] / 2


def test_at_most_two_buffers_are_in_memory():
    source = Numbers(trajectories=200)
    list(stream(source).batches(0, 300))
    assert source.buffers == [40, 40]
    total = sum(stop - start for _, start, stop in source.loads)
    assert total > 20 * max(source.buffers)


def test_a_dataset_that_fits_is_read_once():
    source = Numbers()
    list(stream(source, order=memory(100)).batches(0, 100))
    assert sorted(source.loads) == [(i, 0, 15) for i in range(9)]


def test_workers_read_their_share():
    sources = [Numbers(trajectories=60) for _ in range(4)]
    for rank, source in enumerate(sources):
        list(stream(source, batch_size=8, order=memory(40), rank=rank, world=4).batches(0, 82))
    alone = Numbers(trajectories=60)
    list(stream(alone, batch_size=8, order=memory(40)).batches(0, 82))
    shares = [sum(stop - start for _, start, stop in source.loads) for source in sources]
    assert max(shares) < 0.4 * sum(stop - start for _, start, stop in alone.loads)


@pytest.mark.parametrize("method", ["load", "batch"])
def test_an_error_of_the_source_reaches_the_loop(method):
    class Corrupt(Numbers):
        pass

    def fail(*arguments):
        raise DataError("corrupt.hdf5 is corrupt")

    setattr(Corrupt, method, fail)
    before = threading.active_count()
    with pytest.raises(DataError, match="corrupt"):
        list(stream(Corrupt()).batches(0, 3))
    assert threading.active_count() == before


def test_the_wait_for_a_batch_is_measured():
    class Slow(Numbers):
        def load(self, *arguments):
            if not self.loads:
                time.sleep(0.4)
            super().load(*arguments)

    slow = stream(Slow())
    batches = slow.batches(0, 3)
    next(batches)
    assert slow.waited > 0.1
    batches.close()


def test_leaving_early_ends_the_threads():
    before = threading.active_count()
    batches = stream(Numbers(trajectories=200)).batches(0, 1000)
    next(batches)
    batches.close()
    assert threading.active_count() == before


def test_the_validation_set_is_fixed_and_shared():
    whole = windows(fixed_batches(Numbers(), seed=0, samples=10, batch_size=10))
    ranks = [
        windows(fixed_batches(Numbers(), seed=0, samples=10, batch_size=3, rank=rank, world=2))
        for rank in range(2)
    ]
    assert sorted(torch.cat(ranks).tolist()) == sorted(whole.tolist())
    assert len(whole) == 10
