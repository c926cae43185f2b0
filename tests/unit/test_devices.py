"""Training, rollouts, encoding and scoring on a GPU, as far as this can be seen without one.

`pretended.PretendedGPU` tells what it cannot see. Where it takes a GPU's way, results are compared with the
CPU's, which take another: memory formats, kinds of attention, sorting, unrolled samplers.
"""

import itertools

import heavyball
import pytest
import torch
from pretended import GPU, HOST, MixedDevices, OnGPU, PretendedGPU, held
from sources import Single

from lola.autoencoder import AutoencoderConfig
from lola.data.systems import EULER
from lola.diffusion import DiffusionConfig
from lola.emulation import Emulator, InferenceConfig
from lola.guidance import GuidanceConfig, GuidanceName
from lola.neural_solver import NeuralSolverConfig
from lola.observation import ObservationConfig
from lola.sampling import METHODS, SamplerConfig
from lola.schedule import TimePriorConfig
from lola.seeding import SampleGenerator, seed_process
from lola.training.loop import TrainingConfig, train
from lola.training.optim import OptimizerConfig
from lola.transformer import TransformerConfig
from lola.transformer_autoencoder import TransformerAutoencoderConfig
from lola.unet import UNetConfig

WINDOW = 3
CONV = AutoencoderConfig(latent_channels=2, channels=(4, 8), blocks=(1, 1), dropout=0.0)
TRANSFORMER = TransformerConfig(features=16, blocks=2, heads=2, modulation=8, dropout=0.0)
UNET = UNetConfig(channels=(4, 8), blocks=(1, 1), modulation=8, dropout=0.0, attention_heads=((1, 2),))
BETA = TimePriorConfig(name="beta", a=2.0, b=2.0)
MODELS = {
    "autoencoder": (CONV, 2),
    "autoencoder, 3d, in groups": (CONV.replace(norm="group", attention_heads=((1, 2),)), 3),
    "variational autoencoder": (CONV.replace(kl_weight=1e-3, latent_noise=0.1), 2),
    "transformer autoencoder": (
        TransformerAutoencoderConfig(
            features=16, blocks=1, heads=2, patch_size=4, latent_channels=2, dropout=0.0
        ),
        2,
    ),
    "diffusion": (DiffusionConfig(network=TRANSFORMER), 2),
    "diffusion, 3d, beta": (
        DiffusionConfig(network=TRANSFORMER.replace(patch_size=(1, 2, 2, 2)), times=BETA),
        3,
    ),
    "diffusion by a U-Net": (DiffusionConfig(network=UNET), 2),
    "neural solver": (NeuralSolverConfig(network=TRANSFORMER), 2),
    "neural solver, 3d": (NeuralSolverConfig(network=TRANSFORMER.replace(patch_size=(1, 2, 2, 2))), 3),
    "neural solver by a U-Net": (NeuralSolverConfig(network=UNET), 2),
}
EMULATORS = [name for name in MODELS if "autoencoder" not in name]


class Random(Single):
    """Windows of random numbers."""

    def __init__(self, spatial):
        self.shape = (2, WINDOW, *(8,) * spatial)

    def __len__(self):
        return 23

    def read(self, index, key):
        generator = SampleGenerator([("window", index)])
        return generator.normal(*self.shape)[0], generator.normal(3)[0]


def build(name):
    config, spatial = MODELS[name]
    seed_process(0, "weights")
    if name in EMULATORS:
        return config.build(channels=2, parameters=3, spatial=spatial, window=WINDOW)
    return config.build(channels=2, spatial=spatial)


def training(**changes):
    settings = {"steps": 4, "batch_size": 5, "valid_samples": 4, "report_every": 2, "warmup": 1, "ema": 0.9}
    return TrainingConfig(**settings | {"optimizer": OptimizerConfig(learning_rate=1e-2)} | changes)


def run(name, config, device, resume=None, folder=None):
    """The reports of a training run, and the model; checkpoints go into a folder."""
    reports = {}

    def report(step, metrics, save):
        reports[step] = metrics
        if folder is not None:
            (folder / str(step)).mkdir()
            save(folder / str(step))

    source = Random(MODELS[name][1])
    model = build(name).to(device)
    train(model, config, source, source, report=report, resume=resume, device=device)
    return reports, model


def assert_alike(found, expected, tolerance=1e-3):
    """Metrics of both, but for times and memory."""
    for step, metrics in expected.items():
        for name, value in metrics.items():
            if not any(word in name for word in ("second", "wait", "memory")):
                assert found[step][name] == pytest.approx(value, rel=tolerance), (step, name)


@pytest.mark.parametrize("name", MODELS)
def test_training_on_a_gpu_follows_the_cpu(name):
    expected, _ = run(name, training(), "cpu")
    with PretendedGPU():
        found, model = run(name, training(), "cuda")
        assert all(held(weight) for weight in model.state_dict().values())
    assert_alike(found, expected)


@pytest.mark.parametrize("changes", [{"accumulate": 2}, {"recompute": True}, {"ema": 0.0}])
def test_other_ways_to_train_follow_the_cpu(changes):
    expected, _ = run("diffusion", training(**changes), "cpu")
    with PretendedGPU():
        found, _ = run("diffusion", training(**changes), "cuda")
    assert_alike(found, expected)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("optimizer", ["adamw", "adam", "soap", "psgd"])
def test_checkpoints_go_from_a_gpu_to_the_cpu_and_back(tmp_path, optimizer, monkeypatch):
    monkeypatch.setattr(heavyball.utils, "compile_mode", None)
    config = training(optimizer=OptimizerConfig(name=optimizer, learning_rate=1e-2))
    name = "neural solver"
    (tmp_path / "cpu").mkdir()
    (tmp_path / "gpu").mkdir()
    expected, _ = run(name, config, "cpu", folder=tmp_path / "cpu")
    with PretendedGPU():
        run(name, config, "cuda", folder=tmp_path / "gpu")
        found, _ = run(name, config, "cuda", resume=tmp_path / "cpu" / "2")
    assert_alike(found, {4: expected[4]})
    found, _ = run(name, config, "cpu", resume=tmp_path / "gpu" / "2")
    assert_alike(found, {4: expected[4]})


@pytest.mark.parametrize("name", ["autoencoder", "variational autoencoder", *EMULATORS[:3], "neural solver"])
def test_the_host_waits_for_the_gpu_at_most_once_a_step(name):
    """Whether the gradient is finite; beside reports, which are left out, there is nothing else to know."""
    waits = []
    for steps in (2, 6):
        config = training(steps=steps, report_every=steps, accumulate=2)
        with PretendedGPU() as gpu:
            run(name, config, "cuda")
            waits.append(list(gpu.waits))
    assert len(waits[1]) - len(waits[0]) <= 4, "\n".join(waits[1])
