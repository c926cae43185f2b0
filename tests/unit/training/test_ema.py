import copy
import math

import pytest
import torch
from safetensors.torch import load_file
from sources import Single
from torch import nn

from lola.core.errors import DataError
from lola.core.seeding import SampleGenerator, seed_process
from lola.storage.stages import EMA_WEIGHTS
from lola.training.checkpoint import load_weights
from lola.training.config import OptimizerConfig, TrainingConfig
from lola.training.ema import EMA
from lola.training.loop import Objective, train, validate
from lola.training.stream import ValidationSet

CONFIG = TrainingConfig(
    steps=12, batch_size=4, optimizer=OptimizerConfig(learning_rate=1e-2), report_every=4, ema=0.5
)


class Noise(Single):
    """Windows of noise that the key decides."""

    def __len__(self):
        return 9

    def read(self, index, key):
        return SampleGenerator([(index,)]).normal(1, 2, 4)[0], torch.zeros(1)


class Regression(nn.Module):
    """Predicts the second state from the first; keeps a copy of its weights before every training step."""

    def __init__(self, broken_at=0):
        super().__init__()
        self.network = nn.Linear(4, 4)
        self.register_buffer("calls", torch.zeros(()))
        self.broken_at, self.seen = broken_at, []

    def loss(self, batch, generator):
        first, second = batch.states[:, 0].unbind(1)
        loss = (self.network(first) - second).square().mean()
        if self.training:
            self.calls += 1
            self.seen.append(copy.deepcopy(self.network.state_dict()))
            loss = loss * (math.nan if self.calls == self.broken_at else 1.0)
        return loss, {}


def run(folder, config=CONFIG, resume=None, **options):
    seed_process(0, "weights")
    model, reports = Regression(**options), {}

    def report(step, metrics, save):
        reports[step] = metrics
        (folder / str(step)).mkdir(parents=True)
        save(folder / str(step))

    train(model, config, Noise(), Noise(), report=report, resume=resume)
    return model, reports


def test_the_decay_warms_up_and_the_start_is_forgotten():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = EMA(model, 0.999)
    nn.init.ones_(model.weight)
    for t in range(30):
        average.update(model, t)
        share = math.factorial(9) * math.factorial(t + 1) / math.factorial(t + 10)
        assert 1 - average.model.weight.item() == pytest.approx(share, rel=1e-4, abs=1e-7)


def test_in_the_long_run_the_decay_is_the_configured_one():
    model = nn.Linear(1, 1, bias=False)
    average = EMA(model, 0.9)
    nn.init.ones_(model.weight)
    before = 1 - average.model.weight.item()
    average.update(model, 1000)
    assert 1 - average.model.weight.item() == pytest.approx(0.9 * before, rel=1e-5)


def test_the_average_is_that_of_the_weights_after_each_applied_step(tmp_path):
    model, reports = run(tmp_path, broken_at=5)
    assert reports[12]["train/skipped"] == 1
    # Weights are seen before each step: those after step t are seen at t + 1
    history = [*model.seen[1:], model.network.state_dict()]
    mean = {name: value.double() for name, value in model.seen[0].items()}
    applied = 0
    for step, weights in enumerate(history):
        if step == 4:  # the fifth step was not finite
            continue
        decay = min(0.5, (1 + applied) / (10 + applied))
        mean = {name: decay * mean[name] + (1 - decay) * weights[name] for name in mean}
        applied += 1
    found = load_file(tmp_path / "12" / EMA_WEIGHTS)
    for name, value in mean.items():
        torch.testing.assert_close(found[f"network.{name}"].double(), value, rtol=1e-5, atol=1e-6)
    assert found["calls"] == model.calls


def test_a_resumed_run_has_the_same_average(tmp_path):
    run(tmp_path / "whole")
    _, reports = run(tmp_path / "rest", resume=tmp_path / "whole" / "8")
    assert list(reports) == [12]
    expected, found = (load_file(tmp_path / name / "12" / EMA_WEIGHTS) for name in ("whole", "rest"))
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_it_is_validated_in_addition_to_the_weights(tmp_path):
    model, reports = run(tmp_path)
    load_weights(tmp_path / "12" / EMA_WEIGHTS, model)
    loss = validate(Objective(model), ValidationSet(Noise(), CONFIG), CONFIG, torch.device("cpu"))
    assert reports[12]["valid/loss_ema"] == pytest.approx(loss, rel=1e-6)
    assert reports[12]["valid/loss_ema"] != reports[12]["valid/loss"]


def test_it_does_not_change_training(tmp_path):
    plain, without = run(tmp_path / "plain", CONFIG.replace(ema=0.0))
    averaged, _ = run(tmp_path / "averaged")
    assert torch.equal(plain.network.weight, averaged.network.weight)
    assert "valid/loss_ema" not in without[12]
    assert not (tmp_path / "plain" / "12" / EMA_WEIGHTS).exists()
    with pytest.raises(DataError, match="model_ema"):
        run(tmp_path / "rest", resume=tmp_path / "plain" / "8")
