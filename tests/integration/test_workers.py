"""Any number of workers computes what one computes, also when it changes: the same gradients and weights."""

import contextlib
import tempfile
from pathlib import Path

import pytest
import torch
import torch.multiprocessing
from sources import Single
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from lola.core.seeding import SampleGenerator, seed_process
from lola.training.config import OptimizerConfig, TrainingConfig
from lola.training.loop import train

pytestmark = pytest.mark.slow


class Ramps(Single):
    """Windows of straight lines."""

    def __len__(self):
        return 31

    def read(self, index, key):
        slope = SampleGenerator([key]).uniform(1)[0, 0] + index / 31
        return (slope * torch.arange(8.0)).view(1, 2, 4), torch.tensor([float(index)])


class Regression(nn.Module):
    """Predicts the second state from the first, under noise."""

    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(nn.Linear(4, 8), nn.SiLU(), nn.Linear(8, 4))

    def loss(self, batch, generator):
        first, second = batch.states[:, 0].unbind(1)
        return (self.network(first + 0.1 * generator.normal(4)) - second).square().mean(), {}


def work(rank, worlds, optimizer, accumulate, folder):
    """Train in stretches of 5 steps, each by as many workers as it says, from the last one's checkpoint."""
    torch.set_num_threads(1)
    for number, world in enumerate(worlds):
        if rank < world:
            train_stretch(rank, world, number, len(worlds), optimizer, accumulate, Path(folder))


def train_stretch(rank, world, number, stretches, optimizer, accumulate, folder):
    store = torch.distributed.FileStore(f"{folder}/store-{number}", world)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=world)
    seed_process(0, "weights")
    model = Regression()
    # 7 samples are 3 and 4 for two ranks, 2, 2 and 3 for three: the mean over ranks must weigh them.
    config = TrainingConfig(
        steps=5 * stretches,
        batch_size=7,
        optimizer=OptimizerConfig(name=optimizer, learning_rate=1e-2),
        report_every=5,
        ema=0.5,
        accumulate=accumulate,
    )
    losses, exchanges = [], []

    class Left(Exception):
        """The stretch is over."""

    def wrap(module):
        def exchange(state, bucket):
            exchanges.append(bucket.index())
            return allreduce_hook(state, bucket)

        wrapped = DistributedDataParallel(module)
        wrapped.register_comm_hook(None, exchange)
        return wrapped

    def report(step, metrics, save):
        losses.extend([metrics["train/loss"], metrics["valid/loss"], metrics["valid/loss_ema"]])
        if rank == 0:
            (folder / f"{number}").mkdir()
            save(folder / f"{number}")
        if step == 5 * (number + 1):
            raise Left

    with contextlib.suppress(Left):
        train(
            model,
            config,
            Ramps(),
            Ramps(),
            report=report,
            wrap=wrap if world > 1 else None,
            resume=folder / f"{number - 1}" if number else None,
            rank=rank,
            world=world,
        )
    # All gradients fit one bucket, which is exchanged once per step however many micro-batches there are.
    assert len(exchanges) == (5 if world > 1 else 0)
    torch.save({"weights": model.state_dict(), "losses": losses}, f"{folder}/{number}-{rank}.pt")
    torch.distributed.barrier()  # the next stretch begins with this one's checkpoint
    torch.distributed.destroy_process_group()


def train_by(worlds, optimizer="adamw", accumulate=1):
    """The results of all stretches and ranks, by `(stretch, rank)`."""
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(work, (worlds, optimizer, accumulate, folder), nprocs=max(worlds))
        return {
            tuple(map(int, path.stem.split("-"))): torch.load(path, weights_only=True)
            for path in Path(folder).glob("*.pt")
        }


@pytest.mark.parametrize(
    ("worlds", "optimizer", "accumulate"),
    [
        pytest.param((2, 2), "psgd", 1, marks=pytest.mark.long),
        pytest.param((2, 2), "adamw", 3, marks=pytest.mark.long),
        ((2, 3, 1, 3), "adamw", 1),
    ],
)
def test_any_number_of_workers_trains_as_one(worlds, optimizer, accumulate):
    expected, found = train_by((1,) * len(worlds), optimizer), train_by(worlds, optimizer, accumulate)
    for number, world in enumerate(worlds):
        one = expected[number, 0]
        for rank in range(world):
            result = found[number, rank]
            assert result["losses"] == pytest.approx(one["losses"], rel=1e-4)
            assert result["losses"] == found[number, 0]["losses"]
            for name, weight in one["weights"].items():
                torch.testing.assert_close(result["weights"][name], weight, rtol=1e-4, atol=1e-6)
                assert torch.equal(result["weights"][name], found[number, 0]["weights"][name])
