"""Training on the GPU against the CPU: the curves of the loss, and checkpoints that go both ways.

Dropout is left out: its masks are drawn by the device. Everything else is a function of the step's keys.
"""

import functools

import pytest
import torch
from cases import CASES, CONFIG, OTHERS, PLAIN, Case, Waves
from lane import CPU

from lola.core.seeding import SampleGenerator
from lola.models.autoencoder_config import AutoencoderConfig
from lola.training.config import OptimizerConfig
from lola.training.loop import train

TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2}
CURVES = ("train/loss", "train/gradient_norm", "valid/loss", "valid/loss_ema")
SPARING = {"accumulate": 2, "recompute": True}
ways = pytest.mark.parametrize("how", [{}, SPARING], ids=["", "accumulated-recomputed"])
precisions = pytest.mark.parametrize("precision", ["float32", "bfloat16"])


@functools.cache
def expected(name):
    """The curves on the CPU, in float32."""
    return (CASES | OTHERS)[name].train(CPU, CONFIG)[0]


def check(record, what, name, found, precision, first=0):
    for curve in CURVES:
        norm = curve == "train/gradient_norm"
        label, tolerance = (f"{what}: gradient", 4) if norm else (f"{what}: losses", 1)
        record.near(label, found[curve], expected(name)[curve][first:], tolerance * TOLERANCE[precision])


@pytest.mark.parametrize("name", CASES)
@precisions
@ways
def test_eager_training_follows_the_cpu(device, record, name, precision, how):
    found, position = CASES[name].train(device, CONFIG.replace(precision=precision, **how))
    assert position.skipped == 0
    ways = " ".join(how)
    check(record, f"training {name} {precision} eager {ways}".rstrip(), name, found, precision)


@pytest.mark.parametrize("name", OTHERS)
def test_other_networks_follow_the_cpu(device, record, name):
    found, _ = OTHERS[name].train(device, CONFIG)
    check(record, f"training {name} float32 eager", name, found, "float32")


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    ("precision", "how"), [("float32", {}), ("bfloat16", SPARING)], ids=["float32", "bfloat16-sparing"]
)
def test_compiled_training_follows_the_cpu(device, record, name, precision, how):
    found, _ = CASES[name].train(device, CONFIG.replace(precision=precision, compile=True, **how))
    ways = " ".join(how)
    check(record, f"training {name} {precision} compiled {ways}".rstrip(), name, found, precision)


@pytest.mark.parametrize("name", ["autoencoder-2d", "diffusion"])
@pytest.mark.parametrize("back", [False, True], ids=["on-the-cpu", "on-the-gpu"])
def test_checkpoints_resume_elsewhere(tmp_path, device, record, name, back):
    """What is written on one device after half of the steps goes on on the other."""
    first, second = (CPU, device) if back else (device, CPU)
    case = CASES[name]
    case.train(first, CONFIG, folder=tmp_path)
    found, position = case.train(second, CONFIG, resume=tmp_path / "4")
    assert position.step == CONFIG.steps
    where = "CPU to GPU" if back else "GPU to CPU"
    check(record, f"resuming {name} {where}", name, found, "float32", first=2)


def test_dropout_drops_on_the_device_and_is_a_function_of_the_step(device):
    config = AutoencoderConfig(latent_channels=4, patch_size=2, **{**PLAIN, "dropout": 0.5})
    case = Case(config, {"channels": 5, "spatial": 2}, (5, 1, 16, 16))
    losses, again, plain = (
        torch.tensor(each.train(device, CONFIG)[0]["train/loss"])
        for each in (case, case, Case(config.replace(dropout=0.0), case.sizes, case.shape))
    )
    difference = (losses - plain).abs().max()
    assert difference > 1e-5
    assert (losses - again).abs().max() < 0.1 * difference


def test_steps_that_are_not_finite_are_skipped_and_traced_on_the_device(device):
    class Broken(Waves):
        def batch(self, buffer, at, windows, keys):
            batch = super().batch(buffer, at, windows, keys)
            for i, key in enumerate(keys):
                if key[2:4] == (2, 1):
                    batch.states[i] = torch.nan
            return batch

    case, reports, lines = CASES["neural_solver"], {}, []
    model = case.build(device)
    train(
        model,
        CONFIG.replace(steps=12, report_every=12),
        Broken(case.shape, case.sizes["parameters"]),
        case.source,
        report=lambda step, metrics, save: reports.update(metrics),
        log=lines.append,
        device=device,
    )
    assert reports["train/skipped"] == 1
    assert len(lines) == 1
    assert "an input is not finite" in lines[0]
    assert all(bool(weight.isfinite().all()) for weight in model.parameters())


@pytest.mark.parametrize("name", ["psgd", "soap", "muon"])
@pytest.mark.filterwarnings("ignore")
def test_heavyball_optimisers_learn_and_resume_elsewhere(tmp_path, device, record, name):
    """PSGD draws from the device's random stream, so that only its losses are near those of the CPU."""
    shape = {"channels": (8, 8), "blocks": (1, 1), "dropout": 0.0}
    case = Case(AutoencoderConfig(latent_channels=2, **shape), {"channels": 2, "spatial": 2}, (2, 1, 16, 16))
    config = CONFIG.replace(optimizer=OptimizerConfig(name=name, learning_rate=1e-3, max_dimension=64))
    on_cpu, _ = case.train(CPU, config, folder=tmp_path / "cpu")
    on_gpu, position = case.train(device, config, folder=tmp_path / "gpu")
    assert position.skipped == 0
    record.near(f"training {name}: valid/loss", on_gpu["valid/loss"], on_cpu["valid/loss"], 5e-2)
    forth, _ = case.train(CPU, config, resume=tmp_path / "gpu" / "4")
    back, _ = case.train(device, config, resume=tmp_path / "cpu" / "4")
    for where, found in (("GPU to CPU", forth), ("CPU to GPU", back)):
        record.near(
            f"resuming {name} {where}: valid/loss", found["valid/loss"], on_cpu["valid/loss"][2:], 5e-2
        )
    assert on_gpu["valid/loss"][-1] < on_gpu["valid/loss"][0]


def test_random_numbers_are_the_same_on_every_device(device, record):
    keys = [(0, "step", 3, i) for i in range(4)]
    draws = {
        "normal": lambda generator: generator.normal(3, 5, 7),
        "uniform": lambda generator: generator.uniform(2),
        "poisson": lambda generator: generator.poisson(1.0, 1),
    }
    there, here = SampleGenerator(keys, device), SampleGenerator(keys, CPU)
    for name, draw in draws.items():
        found = draw(there)
        assert found.device == device or found.device.type == device.type
        record.near(f"random numbers: {name}", found, draw(here), 1e-5)
    assert torch.unique(there.uniform(8)).numel() == 32
