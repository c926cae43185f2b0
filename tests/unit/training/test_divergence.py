import math

import pytest
import torch
import torch.multiprocessing
from safetensors.torch import save_file
from sources import Single
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lola.core.errors import DataError, DivergedError
from lola.core.seeding import seed_process
from lola.training.checkpoint import Position, load_weights, save_checkpoint, save_weights
from lola.training.config import OptimizerConfig, TrainingConfig
from lola.training.divergence import MAX_SKIPPED_IN_A_ROW
from lola.training.loop import train


class Windows(Single):
    """Windows of small numbers, one of which holds something else."""

    def __init__(self, count=40, bad=None, value=math.nan):
        self.count, self.bad, self.value = count, bad, value

    def __len__(self):
        return self.count

    def read(self, index, key):
        states = torch.linspace(-1, 1, 8) * (1 + index / self.count)
        return (torch.full((8,), self.value) if index == self.bad else states).view(1, 2, 4), torch.zeros(1)


class Regression(nn.Module):
    """Predicts the second state from the first."""

    def __init__(self):
        super().__init__()
        self.network = nn.Linear(4, 4)

    def loss(self, batch, generator):
        first, second = batch.states[:, 0].unbind(1)
        return (self.network(first) - second).square().mean(), {}


def run(training, validation=None, log=None, reports=None, rate=1e-3, **changes):
    optimizer = OptimizerConfig(learning_rate=rate)
    settings = {"steps": 40, "batch_size": 4, "report_every": 10, "valid_samples": 8} | changes
    seed_process(0, "weights")
    model = Regression()

    def report(step, metrics, save):
        if reports is not None:
            reports[step] = metrics

    lines = [] if log is None else log
    config = TrainingConfig(optimizer=optimizer, **settings)
    position = train(model, config, training, validation or Windows(), report=report, log=lines.append)
    return position, model


@pytest.mark.parametrize(
    ("value", "fault"),
    [(math.nan, "an input is not finite"), (1e30, "its loss is inf, its largest input is 1e")],
)
def test_a_sample_that_is_not_finite_is_skipped_named_and_counted(value, fault):
    """Once in each epoch of ten steps, which is a share that training goes on with."""
    log, reports = [], {}
    position, model = run(Windows(bad=17, value=value), log=log, reports=reports)
    assert position == Position(step=40, skipped=4)
    assert len(log) == 3  # the first few alone are traced
    assert all(f"window 17 ({fault}" in line and "--exclude" in line for line in log)
    assert reports[40]["train/skipped"] == 4
    for metrics in reports.values():
        assert all(map(math.isfinite, metrics.values()))
    assert all(weight.isfinite().all() for weight in model.parameters())


def test_tracing_a_step_changes_no_other(monkeypatch):
    _, traced = run(Windows(bad=17))
    monkeypatch.setattr("lola.training.divergence.MAX_TRACED_STEPS", 0)
    _, plain = run(Windows(bad=17))
    for a, b in zip(traced.parameters(), plain.parameters(), strict=True):
        assert torch.equal(a, b)


def test_too_many_skipped_steps_end_training():
    log = []
    with pytest.raises(DivergedError) as error:
        run(Windows(count=8, bad=3, value=1e30), steps=100, log=log)
    assert f"training diverged: {MAX_SKIPPED_IN_A_ROW} of 2" in str(
        error.value
    )  # of 19 or 20: once in two steps
    assert "window 3 (its loss is inf" in str(error.value)
    assert "\n" not in str(error.value)
    assert len(log) == 4


def test_a_few_skipped_steps_are_too_many_of_a_short_training():
    with pytest.raises(DivergedError, match=r"2 of 4 steps were skipped.*window 3"):
        run(Windows(count=8, bad=3), steps=4)


def test_a_learning_rate_that_is_too_high_is_reported_without_blaming_a_sample():
    reports = {}
    with pytest.raises(DivergedError) as error:
        run(Windows(), rate=1e30, steps=100, report_every=100, reports=reports)
    assert f"{MAX_SKIPPED_IN_A_ROW} of {MAX_SKIPPED_IN_A_ROW + 1} steps were skipped" in str(error.value)
    assert "none of its 4 samples is finite when computed alone: the model has diverged" in str(error.value)
    assert "lower its learning rate (1e+30) or its largest gradient (1)" in str(error.value)
    assert not reports


@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_a_validation_loss_that_is_not_finite_ends_training(ema):
    reports = {}
    with pytest.raises(
        DivergedError, match=r"valid/loss is nan after 10 steps: window 19 \(an input"
    ) as error:
        run(Windows(), Windows(bad=19), reports=reports, valid_samples=3, ema=ema)
    assert "more of" not in str(error.value)
    assert not reports  # nothing is saved that Ray Train would score by it


def test_all_steps_between_two_reports_may_be_skipped():
    """Then there is no mean of the loss, and a rate of steps all the same."""
    reports = {}
    position, _ = run(Windows(bad=17), report_every=1, reports=reports)
    without = [metrics for metrics in reports.values() if "train/loss" not in metrics]
    assert len(without) == position.skipped == 4
    assert all(metrics["train/seconds_per_step"] > 0 for metrics in without)


def test_weights_that_are_not_finite_are_not_written(tmp_path):
    model = Regression()
    nn.init.constant_(model.network.bias, math.inf)
    with pytest.raises(DivergedError, match=r"network\.bias holds values that are not finite"):
        save_weights(tmp_path / "model.safetensors", model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    with pytest.raises(DivergedError, match=r"network\.bias"):
        save_checkpoint(tmp_path, model, optimizer, Position())
    assert not list(tmp_path.iterdir())


def test_weights_that_are_not_finite_are_not_loaded(tmp_path):
    model = Regression()
    state = {name: tensor.double() for name, tensor in model.state_dict().items()}
    state["network.weight"][1, 2] = 1e39  # finite as stored
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match=r"network\.weight holds .*beyond torch.float32"):
        load_weights(tmp_path / "model.safetensors", model)


def work(rank, folder):
    """Train as one of two ranks, of which one alone meets the sample at fault."""
    torch.set_num_threads(1)
    store = torch.distributed.FileStore(f"{folder}/store", 2)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    seed_process(0, "weights")
    config = TrainingConfig(steps=2, batch_size=4, report_every=2)
    log = []
    try:
        train(
            Regression(),
            config,
            Windows(count=8, bad=3),
            Windows(),
            report=lambda *each: None,
            log=log.append,
            wrap=DistributedDataParallel,
            rank=rank,
            world=2,
        )
    except DivergedError as error:
        (folder / f"{rank}").write_text("\n".join([str(error), *log]))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_all_ranks_name_the_sample_of_one(tmp_path):
    torch.multiprocessing.spawn(work, (tmp_path,), nprocs=2)
    first, second = ((tmp_path / name).read_text() for name in "01")
    assert first == second
    assert "1 of 2 steps were skipped" in first
    assert "window 3 (an input is not finite)" in first
