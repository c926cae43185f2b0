"""Several workers compute what one computes: the same gradients, and so the same weights."""

import tempfile
from pathlib import Path

import pytest
import torch
import torch.multiprocessing
from sources import Single
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from lola.seeding import SampleGenerator, seed_process
from lola.training.loop import TrainingConfig, train
from lola.training.optim import OptimizerConfig

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


def work(rank, world, optimizer, accumulate, folder):
    torch.set_num_threads(1)
    store = torch.distributed.FileStore(f"{folder}/store", world)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=world)
    seed_process(0, "weights")
    model = Regression()
    # 7 samples are 3 for one rank and 4 for the other: the mean over ranks must weigh them.
    config = TrainingConfig(
        steps=10,
        batch_size=7,
        optimizer=OptimizerConfig(name=optimizer, learning_rate=1e-2),
        report_every=5,
        ema=0.5,
        accumulate=accumulate,
    )
    losses, exchanges = [], []

    def wrap(module):
        def exchange(state, bucket):
            exchanges.append(bucket.index())
            return allreduce_hook(state, bucket)

        wrapped = DistributedDataParallel(module)
        wrapped.register_comm_hook(None, exchange)
        return wrapped

    train(
        model,
        config,
        Ramps(),
        Ramps(),
        report=lambda step, metrics, save: losses.extend([metrics["valid/loss"], metrics["valid/loss_ema"]]),
        wrap=wrap if world > 1 else None,
        rank=rank,
        world=world,
    )
    # All gradients fit one bucket, which is exchanged once per step however many micro-batches there are.
    assert len(exchanges) == (10 if world > 1 else 0)
    torch.save({"weights": model.state_dict(), "losses": losses}, f"{folder}/{world}-{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize(("optimizer", "accumulate"), [("adamw", 1), ("psgd", 1), ("adamw", 3)])
def test_two_workers_train_as_one(optimizer, accumulate):
    results = {}
    for world, micro in ((1, 1), (2, accumulate)):
        with tempfile.TemporaryDirectory() as folder:
            torch.multiprocessing.spawn(work, (world, optimizer, micro, folder), nprocs=world)
            for path in Path(folder).glob("*.pt"):
                results[path.stem] = torch.load(path, weights_only=True)
    for name, weight in results["1-0"]["weights"].items():
        torch.testing.assert_close(results["2-0"]["weights"][name], weight, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(
            results["2-1"]["weights"][name], results["2-0"]["weights"][name], rtol=0, atol=0
        )
    assert results["2-0"]["losses"] == pytest.approx(results["1-0"]["losses"], rel=1e-4)
    assert results["2-0"]["losses"] == results["2-1"]["losses"]
