import functools
import itertools
import math

import numpy as np
import pytest
import torch
from sources import Single
from torch import nn

from lola.core.errors import ConfigError, DataError
from lola.core.seeding import SampleGenerator, seed_process
from lola.data.state import Batch
from lola.nn.recompute import Block
from lola.training.checkpoint import Position, load_checkpoint, load_weights, save_checkpoint, save_weights
from lola.training.config import OptimizerConfig, TrainingConfig
from lola.training.loop import Meter, Objective, train, validate
from lola.training.optim import build_optimizer, learning_rate
from lola.training.stream import BatchStream, ValidationSet, fixed_batches


class Waves(Single):
    """Windows of sine waves, whose phase the key shifts a little."""

    def __len__(self):
        return 23

    def read(self, index, key):
        shift = SampleGenerator([key]).uniform(1)[0, 0]
        time = torch.arange(8.0) + 0.1 * shift
        return torch.sin(time * (1 + index / 10)).view(1, 2, 4), torch.tensor([float(index)])


class Regression(nn.Module):
    """Predicts the second state from the first, under noise."""

    def __init__(self, broken_at=None, dropout=0.1):
        super().__init__()
        self.network = nn.Sequential(nn.Linear(4, 8), nn.SiLU(), nn.Dropout(dropout), nn.Linear(8, 4))
        self.broken_at, self.calls = broken_at, 0

    def loss(self, batch, generator):
        first, second = batch.states[:, 0].unbind(1)
        noisy = first + 0.1 * generator.normal(4)
        loss = (self.network(noisy) - second).square().mean()
        self.calls += self.training
        if self.training and self.calls == self.broken_at:
            loss = loss * math.nan
        return loss, {"noise": (noisy - first).square().mean()}


def config(name="adamw", **changes):
    optimizer = OptimizerConfig(name=name, learning_rate=1e-2)
    return TrainingConfig(steps=12, batch_size=6, optimizer=optimizer, report_every=4, **changes)


def build(**options):
    seed_process(0, "weights")
    return Regression(**options)


def run(model, settings, folder=None, resume=None, reports=None):
    def report(step, metrics, save):
        if reports is not None:
            reports[step] = metrics
        if folder is not None:
            (folder / str(step)).mkdir()
            save(folder / str(step))

    position = train(model, settings, Waves(), Waves(), report=report, resume=resume)
    return position, [parameter.detach().clone() for parameter in model.parameters()]


@pytest.mark.parametrize("name", ["adamw", "adam", "soap", "psgd", "muon"])
@pytest.mark.filterwarnings("ignore")
def test_a_resumed_run_ends_with_the_same_weights(tmp_path, name):
    undisturbed: dict = {}
    _, expected = run(build(), config(name), tmp_path, reports=undisturbed)
    resumed: dict = {}
    _, found = run(build(), config(name), resume=tmp_path / "8", reports=resumed)
    assert list(resumed) == [12]
    tolerance = 1e-6 if name == "psgd" else 0.0
    for a, b in zip(expected, found, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
    assert resumed[12]["valid/loss"] == pytest.approx(undisturbed[12]["valid/loss"], rel=1e-6)


def test_training_lowers_the_validation_loss():
    reports: dict = {}
    run(build(), config().replace(steps=200, report_every=100), reports=reports)
    untrained = validate(Objective(build()), ValidationSet(Waves(), config()), config(), torch.device("cpu"))
    assert reports[200]["valid/loss"] < 0.7 * untrained


@pytest.mark.parametrize(("kept_bytes", "times"), [(2**28, 1), (500, 6)])
def test_a_small_validation_set_is_read_once_in_a_training(monkeypatch, kept_bytes, times):
    """Of three reports, each of the weights and of their average."""
    reads, reports, settings = [], {}, config(ema=0.9)

    class Counted(Waves):
        def read(self, index, key):
            reads.append(index)
            return super().read(index, key)

    def report(step, metrics, save):
        reports[step] = metrics

    monkeypatch.setattr("lola.training.stream.MAX_KEPT_BYTES", kept_bytes)
    model = build()
    train(model, settings, Waves(), Counted(), report=report)
    assert sorted(reads) == sorted([*range(23)] * times)
    again = fixed_batches(Waves(), seed=settings.seed, samples=23, batch_size=settings.batch_size)
    assert reports[12]["valid/loss"] == validate(Objective(model), again, settings, torch.device("cpu"))


def test_the_wait_for_data_is_a_share_of_the_time():
    meter = Meter(torch.device("cpu"))
    meter.since -= 100.0
    for waited in (10.0, 30.0):
        meter.add(6, {"loss": torch.tensor(1.0)}, torch.tensor(0.0), waited)
    assert meter.flush()["train/data_wait"] == pytest.approx(0.4, rel=0.2)
    reports: dict = {}
    run(build(), config(), reports=reports)
    assert 0 <= reports[12]["train/data_wait"] < 1


@pytest.mark.parametrize(("steps", "report_every", "points"), [(40, 20, 40), (85, 20, 43), (12, 4, 12)])
def test_the_curve_of_the_loss_has_forty_points_and_the_means_of_the_reports(steps, report_every, points):
    curves, reports, curve = [], {}, []

    def report(step, metrics, save):
        reports[step] = metrics["train/loss"]
        curves.append(list(curve))
        curve.clear()

    settings = config().replace(steps=steps, report_every=report_every)
    train(build(), settings, Waves(), Waves(), report=report, curve=curve.extend)
    found = [step for piece in curves for step, _ in piece]
    assert found == sorted(set(found))
    assert len(found) == points
    since = 0
    for (end, mean), piece in zip(reports.items(), curves, strict=True):
        assert piece[-1][0] == end
        lengths = [b - a for a, b in itertools.pairwise([since, *(step for step, _ in piece)])]
        total = sum(length * loss for length, (_, loss) in zip(lengths, piece, strict=True))
        assert total / (end - since) == pytest.approx(mean, rel=1e-9)
        since = end


def test_no_curve_adds_to_reports_that_are_often_enough():
    train(
        build(),
        config().replace(steps=12, report_every=1),
        Waves(),
        Waves(),
        report=lambda *_: None,
        curve=pytest.fail,
    )


def test_skipped_steps_have_no_point_in_the_curve():
    meter = Meter(torch.device("cpu"))
    meter.skip()
    meter.mark(1)
    meter.add(2, {"loss": torch.tensor(3.0)}, torch.tensor(0.0), 0.0)
    meter.mark(2)
    meter.skip()
    meter.mark(3)
    meter.add(6, {"loss": torch.tensor(5.0)}, torch.tensor(0.0), 0.0)
    meter.mark(4)
    assert meter.flush()["train/loss"] == 4.5
    assert meter.curve == [(2, 3.0), (4, 5.0)]
    meter.skip()
    meter.flush()
    assert meter.curve == []


def test_a_step_with_a_gradient_that_is_not_finite_is_skipped_and_counted(tmp_path):
    model = Regression(broken_at=5)
    reports: dict = {}
    position, weights = run(model, config(), reports=reports)
    assert position == Position(step=12, skipped=1)
    assert reports[12]["train/skipped"] == 1
    assert all(weight.isfinite().all() for weight in weights)


def test_bfloat16_keeps_weights_in_float32():
    _, weights = run(build(), config(precision="bfloat16"))
    _, exact = run(build(), config())
    assert all(weight.dtype == torch.float32 for weight in weights)
    assert not all(torch.equal(a, b) for a, b in zip(weights, exact, strict=True))


def test_slices_of_a_step_add_up_to_its_gradient():
    model = build().eval()

    def gradient(world, rank):
        model.zero_grad()
        batch, keys = BatchStream(Waves(), seed=0, batch_size=7, rank=rank, world=world).batch(3)
        loss, _ = model.loss(batch, SampleGenerator(keys))
        (loss * (world * len(keys) / 7)).backward()
        return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    for world in (2, 3, 7):
        mean = sum(gradient(world, rank) for rank in range(world)) / world
        torch.testing.assert_close(mean, gradient(1, 0), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("accumulate", [2, 4, 6])
def test_micro_batches_train_as_the_whole_batch(accumulate):
    whole: dict = {}
    parts: dict = {}
    _, expected = run(build(dropout=0.0), config(), reports=whole)
    _, found = run(build(dropout=0.0), config(accumulate=accumulate), reports=parts)
    for a, b in zip(expected, found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    for name in ("train/loss", "train/noise", "train/gradient_norm", "valid/loss"):
        assert parts[12][name] == pytest.approx(whole[12][name], rel=1e-5), name


class Stack(Regression):
    """The regression with blocks that can recompute; counts how often their forward pass runs."""

    class Layer(Block):
        runs = 0

        def __init__(self, layer):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            Stack.Layer.runs += 1
            return self.layer(x)

    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(Stack.Layer(self.network), nn.Dropout(0.1), nn.Linear(4, 4))


def test_recomputed_activations_change_nothing():
    results, runs = [], []
    for recompute in (False, True):
        seed_process(0, "weights")
        Stack.Layer.runs = 0
        results.append(run(Stack(), config(recompute=recompute))[1])
        runs.append(Stack.Layer.runs)
    assert runs[1] == runs[0] + 12
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


def test_recomputing_needs_blocks_that_can():
    with pytest.raises(ConfigError, match="recompute"):
        run(build(), config(recompute=True))


def test_the_learning_rate_warms_up_and_ends_at_zero():
    rate = functools.partial(learning_rate, OptimizerConfig(learning_rate=2.0), steps=100, warmup=10)
    assert rate(0) == pytest.approx(0.2)
    assert rate(50) == pytest.approx(1.0)
    assert rate(100) == pytest.approx(0.0)
    assert np.all(np.diff([rate(step) for step in range(12, 101)]) < 0)


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    model = build()
    save_weights(tmp_path / "model.safetensors", model)
    model.network[0] = nn.Linear(5, 8)
    with pytest.raises(DataError, match=r"shape \(8, 4\), not \(8, 5\).*channels"):
        load_weights(tmp_path / "model.safetensors", model)
    model.network[0] = nn.SiLU()
    with pytest.raises(DataError, match="surplus"):
        load_weights(tmp_path / "model.safetensors", model)
    model.further = nn.Linear(2, 2)
    with pytest.raises(DataError, match="lacks further"):
        load_weights(tmp_path / "model.safetensors", model)
    (tmp_path / "model.safetensors").write_bytes(b"corrupt")
    with pytest.raises(DataError, match="no readable weights"):
        load_weights(tmp_path / "model.safetensors", build())


def test_a_checkpoint_holds_the_position(tmp_path):
    model = build()
    optimizer = build_optimizer(OptimizerConfig(), model.parameters())
    save_checkpoint(tmp_path, model, optimizer, Position(step=7, skipped=2))
    assert load_checkpoint(tmp_path, model, optimizer) == Position(step=7, skipped=2)


def test_a_step_is_saved_when_a_checkpoint_is_requested(tmp_path):
    """Without metrics or validation; the run that goes on from there ends with the same weights."""
    answers = iter([False, True, *[False] * 9])
    saved: dict = {}

    def report(step, metrics, save):
        saved[step] = metrics
        (tmp_path / str(step)).mkdir()
        save(tmp_path / str(step))

    model = build()
    steps = []
    ask = {"checkpoint_requested": lambda: next(answers), "progress": steps.append}
    train(model, config(), Waves(), Waves(), report=report, **ask)
    assert list(saved) == [2, 4, 8, 12]
    assert steps == [*range(1, 13)]
    assert saved[2] == {}
    assert len(list(answers)) == 2  # it is asked after every step that is not saved anyway
    _, found = run(build(), config(), resume=tmp_path / "2")
    for a, b in zip(model.parameters(), found, strict=True):
        assert torch.equal(a, b)


def test_workers_are_a_number_or_a_range():
    fixed, elastic = config(workers=2), config(workers=(1, 3))
    assert (fixed.fewest_workers, fixed.most_workers) == (2, 2)
    assert (elastic.fewest_workers, elastic.most_workers) == (1, 3)
    assert fixed.to_json() == elastic.to_json() == config().to_json()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps"),
        ({"batch_size": 1, "workers": 2}, "workers"),
        ({"workers": (1, 7)}, "6 cannot be split over 7 --workers"),
        ({"workers": (0, 2)}, "--workers must be"),
        ({"workers": (3, 2)}, "3 exceeds 2"),
        ({"resize_every": 0}, "resize-every"),
        ({"keep": 0}, "keep"),
        ({"warmup": 99}, "--warmup must not exceed --steps 12, not 99"),
        ({"accumulate": 0}, "--accumulate"),
        ({"accumulate": 4, "workers": 2}, "6 over 2 workers cannot be split into 4 micro-batches"),
        ({"gpus": 0.5, "workers": 2}, "--gpus 0.5 is a share of one, which only a training of 1 worker can"),
        ({"gpus": 0.5, "workers": (1, 4)}, "which only a training of 1 worker can have, not 4"),
        ({"gpus": 1.5}, "--gpus above 1 must be whole, not 1.5"),
        ({"ema": 1.0}, r"--ema must be in \[0, 1\), not 1.0"),
        ({"ema": -0.1}, "--ema must be in"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        TrainingConfig(**{"steps": 12, "batch_size": 6, **changes})


def test_a_batch_refuses_shapes_that_do_not_belong_together():
    with pytest.raises(DataError, match="parameters"):
        Batch(states=torch.zeros(2, 1, 3, 4), parameters=torch.zeros(3, 1))
    with pytest.raises(DataError, match="states"):
        Batch(states=torch.zeros(2, 1, 3), parameters=torch.zeros(2, 1))
