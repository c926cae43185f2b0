"""How many steps fit into given minutes, and how steps are timed: by a clock that the test moves."""

import sys

import pytest
import torch
from torch import nn

from lola.core.errors import LolaError
from lola.training import throughput
from lola.training.config import OptimizerConfig, TrainingConfig
from lola.training.optim import build_optimizer, preconditioner_updates
from lola.training.throughput import Throughput, measure
from lola.training.timing_process import Request, measure_throughput


def training(**changes):
    return TrainingConfig(**{"steps": 1, "batch_size": 4, "report_every": 10, "valid_samples": 8, **changes})


@pytest.mark.parametrize(
    "config",
    [
        OptimizerConfig(name="psgd"),
        OptimizerConfig(name="psgd", preconditioner_probability=0.5),
        OptimizerConfig(name="psgd", preconditioner_probability=0.0),
        OptimizerConfig(name="soap", precondition_frequency=7),
        OptimizerConfig(name="soap", precondition_frequency=1),
        OptimizerConfig(name="adam"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_updates_of_preconditioners_are_those_that_heavyball_makes(config):
    from heavyball.utils import psgd_should_update

    optimizer = build_optimizer(config, [nn.Parameter(torch.zeros(2, 2))])
    schedule, group, made = getattr(optimizer, "precond_schedule", None), {}, 0
    for step in range(1, 6001):
        made += schedule is not None and psgd_should_update(group, schedule)
        if step in (1, 5, 700, 6000):
            assert preconditioner_updates(config, step) == pytest.approx(made, abs=1)


def test_steps_fill_the_seconds_and_do_not_exceed_them():
    plain = Throughput(step=0.5)
    assert plain.steps_within(training(), 60) == 120
    assert plain.steps_within(training(), 0.49) == 0
    both = Throughput(step=0.5, report=1.0)  # 10 steps and a report take 6 s
    assert both.steps_within(training(), 60) == 100
    assert both.steps_within(training(), 62) == 102
    soap = training(optimizer=OptimizerConfig(name="soap", precondition_frequency=5))
    assert Throughput(step=0.5, update=2.5).steps_within(soap, 60) == 60
    psgd = training(optimizer=OptimizerConfig(name="psgd"))
    found = Throughput(step=0.1, update=0.2, report=0.3)
    for seconds in (1.0, 100.0, 3600.0):
        steps = found.steps_within(psgd, seconds)
        assert found.seconds(psgd, steps) <= seconds < found.seconds(psgd, steps + 1)
    # Early steps all update, late ones hardly do:
    assert found.steps_within(psgd, 3600) > 4 * found.steps_within(psgd, 600)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now

    def __deepcopy__(self, memo):  # of the average's model
        return self


class Model(nn.Module):
    """A training pass takes 2 seconds, one without gradients 0.5."""

    def __init__(self, clock):
        super().__init__()
        self.weight, self.clock, self.passes = nn.Parameter(torch.ones(3)), clock, 0

    def loss(self, batch, generator):
        assert batch.states.shape[1:] == (3, 2, 4)
        assert batch.parameters.shape[1:] == (5,)
        self.passes += 1
        self.clock.now += 2.0 if torch.is_grad_enabled() else 0.5
        return (self.weight.sum() * batch.states.mean()).square(), {}


class Preconditioned(torch.optim.SGD):
    """An update of the preconditioner takes 3 seconds."""

    precond_schedule: object = 0.1
    clock: Clock

    def step(self):
        assert isinstance(self.precond_schedule, float)
        self.clock.now += 3.0 * self.precond_schedule
        super().step()


def test_steps_updates_and_reports_are_timed_apart(monkeypatch):
    clock, started = Clock(), []
    model = Model(clock)

    def build(config, parameters):
        optimizer = Preconditioned(parameters, lr=config.learning_rate)
        optimizer.clock = clock
        return optimizer

    monkeypatch.setattr(throughput, "build_optimizer", build)
    found = measure(
        model,
        training(optimizer=OptimizerConfig(learning_rate=10.0), warmup=1),
        (3, 2, 4),
        5,
        device=torch.device("cpu"),
        start=lambda: started.append(model.passes),
        clock=clock,
    )
    assert found == Throughput(step=2.0, update=3.0, report=1.0)
    assert started == [3 * throughput.WARM_UP + 2]  # with a validation of 8 samples in batches of 4
    torch.testing.assert_close(model.weight, torch.ones(3), atol=1e-3, rtol=0)
    monkeypatch.undo()
    averaged = measure(
        model, training(ema=0.9, accumulate=2), (3, 2, 4), 5, device=torch.device("cpu"), clock=clock
    )
    assert averaged == Throughput(step=4.0, report=2.0)


def test_slow_steps_are_timed_fewer_times(monkeypatch):
    clock = Clock()
    model = Model(clock)
    monkeypatch.setattr(throughput, "LONGEST_S", 1.0)
    measure(model, training(), (3, 2, 4), 5, device=torch.device("cpu"), clock=clock)
    assert model.passes == 2 * throughput.WARM_UP + 1 + throughput.FEWEST + 2 * 2


@pytest.mark.slow
def test_processes_time_two_workers():
    from lola.models.autoencoder_config import AutoencoderConfig

    model = AutoencoderConfig(channels=(4, 8), blocks=(1, 1), patch_size=2, latent_channels=4)
    request = Request(model, {"channels": 3, "spatial": 2}, training(workers=2), (3, 1, 16, 16), 2)
    found = measure_throughput(request, threads=1)
    assert found.step > 0
    assert found.report > 0


def test_a_process_that_ends_early_is_an_error_with_its_last_line(tmp_path, monkeypatch):
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho some >&2; echo out of memory >&2; exit 3\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    with pytest.raises(LolaError, match="timing its steps ended with code 3: out of memory"):
        measure_throughput(Request(None, {}, training(), (4, 1, 16, 16), 2), threads=1)
