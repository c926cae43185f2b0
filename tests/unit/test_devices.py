"""Training and rollouts on a GPU, as far as this can be seen without one.

`pretended.PretendedGPU` tells what it cannot see. Where it takes a GPU's way, results are compared with the
CPU's, which take another: memory formats, kinds of attention, sorting, unrolled samplers.
"""

import copy
import dataclasses
import functools

import numpy as np
import pytest
import torch
from pretended import MixedDevices, PretendedGPU, is_on_gpu
from sources import Single

from lola.core.seeding import SampleGenerator, seed_process
from lola.emulation import emulator as emulator_module
from lola.emulation.emulator import Emulator
from lola.emulation.guidance_config import GuidanceConfig
from lola.emulation.inference_config import InferenceConfig
from lola.emulation.observation_config import ObservationConfig
from lola.emulation.sampling_config import METHODS, SamplerConfig
from lola.models.autoencoder_config import AutoencoderConfig
from lola.models.crps_ensemble_config import CRPSEnsembleConfig
from lola.models.diffusion_config import DiffusionConfig
from lola.models.neural_solver_config import NeuralSolverConfig
from lola.models.schedule_config import TimePriorConfig
from lola.models.shortcut_config import ShortcutConfig
from lola.models.transformer_autoencoder_config import TransformerAutoencoderConfig
from lola.models.transformer_config import TransformerConfig
from lola.models.unet_config import UNetConfig
from lola.training.config import OptimizerConfig, TrainingConfig
from lola.training.loop import train

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
    "CRPS ensemble": (CRPSEnsembleConfig(network=TRANSFORMER), 2),
    "CRPS ensemble by a U-Net": (CRPSEnsembleConfig(network=UNET, members=2), 2),
    "few-step diffusion": (ShortcutConfig(network=TRANSFORMER, consistency=0.5), 2),
    "CRPS ensemble on rollouts": (
        CRPSEnsembleConfig(network=TRANSFORMER, members=2, rollout_windows=2, energy=0.5),
        2,
    ),
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
        window = (WINDOW - 1) // config.rollout_windows + 1
        return config.build(channels=2, parameters=3, spatial=spatial, window=window)
    return config.build(channels=2, spatial=spatial)


def training(**changes):
    settings = {"steps": 2, "batch_size": 5, "valid_samples": 3, "report_every": 2, "ema": 0.9}
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
    for step, values in expected.items():
        for name, value in values.items():
            if not any(word in name for word in ("second", "wait", "memory")):
                assert found[step][name] == pytest.approx(value, rel=tolerance), (step, name)


@pytest.mark.parametrize("name", MODELS)
def test_training_on_a_gpu_follows_the_cpu(name):
    expected, _ = run(name, training(), "cpu")
    with PretendedGPU():
        found, model = run(name, training(), "cuda")
        assert all(is_on_gpu(weight) for weight in model.state_dict().values())
    assert_alike(found, expected)


@pytest.mark.parametrize("changes", [{"accumulate": 2}, {"recompute": True}, {"ema": 0.0}])
def test_other_ways_to_train_follow_the_cpu(changes):
    expected, _ = run("diffusion", training(**changes), "cpu")
    with PretendedGPU():
        found, _ = run("diffusion", training(**changes), "cuda")
    assert_alike(found, expected)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("optimizer", ["adamw", "adam", "soap", "psgd", "muon"])
def test_checkpoints_go_from_a_gpu_to_the_cpu_and_back(tmp_path, optimizer):
    optimizer_config = OptimizerConfig(name=optimizer, learning_rate=1e-2)
    config = training(steps=4, optimizer=optimizer_config)
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


@pytest.mark.parametrize(
    "name",
    ["autoencoder", "variational autoencoder", *EMULATORS[:3], "neural solver", "few-step diffusion"],
)
def test_the_host_waits_for_the_gpu_at_most_once_a_step(name):
    """Only for whether the gradient is finite; reports, which also wait, are left out."""
    waits = []
    for steps in (1, 3):
        config = training(steps=steps, report_every=steps, accumulate=2)
        with PretendedGPU() as gpu:
            run(name, config, "cuda")
            waits.append(list(gpu.waits))
    assert len(waits[1]) - len(waits[0]) <= 2, "\n".join(waits[1])


def moved(emulator, device):
    """A copy of an emulator on a device."""
    model, codec = (
        copy.deepcopy(each).to(device)
        for each in (emulator.model, emulator.autoencoder or torch.nn.Identity())
    )
    return dataclasses.replace(emulator, model=model, autoencoder=codec if emulator.autoencoder else None)


def roll_out(emulator, device, observations=None, states=WINDOW + 1):
    """Windows of two rows: two, unless fewer states are asked for."""
    spatial = emulator.model.spatial
    generator = torch.Generator().manual_seed(1)
    context = torch.randn(2, 2, 1, *[4] * spatial, generator=generator).to(device)
    parameters = torch.randn(2, 3, generator=generator).to(device)
    windows = moved(emulator, device).rollout(
        context, parameters, states, [(0,), (1,)], observations=observations
    )
    states = torch.cat(list(windows), dim=2)
    assert is_on_gpu(states) == (device == "cuda")
    return states.cpu()


def emulator(name, **options):
    model = build(name)
    model.spatial = MODELS[name][1]
    return Emulator(model=model, **options)


@pytest.mark.parametrize("name", EMULATORS)
def test_rollouts_on_a_gpu_are_those_of_the_cpu(name):
    drawn = emulator(name, sampler=SamplerConfig(steps=4))
    expected = roll_out(drawn, "cpu")
    with PretendedGPU():
        found = roll_out(drawn, "cuda")
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["diffusion", "neural solver", "CRPS ensemble", "few-step diffusion"])
def test_the_host_does_not_wait_for_the_gpu_in_later_windows(name):
    drawn = emulator(name, sampler=SamplerConfig(steps=4))
    context, parameters = torch.randn(2, 2, 1, 4, 4), torch.randn(2, 3)
    waits = []
    with PretendedGPU() as gpu:
        there = moved(drawn, "cuda")
        windows = there.rollout(context.to("cuda"), parameters.to("cuda"), 4 * (WINDOW - 1), [(0,), (1,)])
        for _ in windows:
            waits.append(list(gpu.waits))
            gpu.waits.clear()
    assert len(waits) == 4
    assert not any(waits[1:]), waits[1:]


@pytest.mark.parametrize("method", METHODS)
def test_every_sampler_draws_on_a_gpu_what_it_draws_on_the_cpu(method):
    """Deterministic samplers are unrolled in rollouts, so here windows are drawn by samplers themselves."""
    model = build("diffusion")
    known, parameters = torch.randn(2, 2, WINDOW, 4, 4), torch.randn(2, 3)
    mask = (torch.arange(WINDOW) == 0).reshape(1, 1, -1, 1, 1)
    sampler = SamplerConfig(name=method, steps=4, spacing="log_snr")

    def draw(device):
        inputs = (each.to(device) for each in (known, mask, parameters))
        generator = SampleGenerator([(0,), (1,)], device)
        with torch.no_grad():
            build = functools.partial(sampler.build, generator=generator)
            return copy.deepcopy(model).to(device).predict(*inputs, generator, build).cpu()

    expected = draw("cpu")
    with PretendedGPU():
        found = draw("cuda")
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


GUIDED = [
    *(("mmps", operator, "pixel") for operator in ("subsample", "block_mean", "mask")),
    *((method, "sensors", "pixel") for method in ("mmps", "pgdm", "jfps", "dps")),
    *((method, "sensors", "latent") for method in ("mmps", "pgdm", "dps")),
]


@pytest.mark.parametrize(("method", "operator", "space"), GUIDED)
def test_guided_rollouts_on_a_gpu_are_those_of_the_cpu(method, operator, space):
    """Observations are made of files, on the CPU."""
    sampler = SamplerConfig(name="ddpm" if method == "dps" else "adams_bashforth", steps=2)
    codec = build("autoencoder") if space == "latent" else None
    drawn = emulator("diffusion", sampler=sampler, guidance=GuidanceConfig(name=method), autoencoder=codec)
    size = 8 if space == "latent" else 4
    truth = torch.randn(2, WINDOW - 1, size, size, generator=torch.Generator().manual_seed(2))
    observed = ObservationConfig(operator=operator, factor=4, count=5, noise=0.5)
    observations = observed.observe(truth, ["a", "b"], "trajectory")
    expected = roll_out(drawn, "cpu", observations, WINDOW - 1)
    with PretendedGPU():
        found = roll_out(drawn, "cuda", observations, WINDOW - 1)
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2)


class Graph:
    """A compiled function that returns the same memory every time, as CUDA graphs do."""

    graphs = True

    def __init__(self, function):
        self.function, self.memory = function, None

    def __call__(self, x):
        y = self.function(x)
        self.memory = y.clone() if self.memory is None else self.memory.copy_(y)
        return self.memory


def test_graphs_do_not_overwrite_what_was_encoded_or_decoded(monkeypatch):
    asked = []
    monkeypatch.setattr(
        emulator_module, "compiled", lambda function, graphs=False: asked.append(graphs) or Graph(function)
    )
    how = InferenceConfig(compile=True, graphs=True)
    drawn = emulator("diffusion", autoencoder=build("autoencoder"), inference=how)
    x = torch.randn(2, 2, 4, 8, 8)
    z = drawn.encode(x)
    expected = [z, drawn.decode(z)]
    assert not asked  # compiled on GPUs alone
    with PretendedGPU():
        there = moved(drawn, "cuda")
        found = [there.encode(x.to("cuda"), chunk=2).cpu(), there.decode(z.to("cuda"), chunk=2).cpu()]
    assert asked == [True, True]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_random_numbers_are_those_of_the_cpu():
    keys = [(0, i) for i in range(5)]
    with PretendedGPU() as gpu:
        there = SampleGenerator(keys, "cuda")
        found = [there.poisson(1.0, 3), there.uniform(2), there.normal(7, 3)]
        assert all(is_on_gpu(each) for each in found)
        assert not gpu.waits
        found = [each.cpu() for each in found]
    here = SampleGenerator(keys)
    for ours, theirs in zip(found, [here.poisson(1.0, 3), here.uniform(2), here.normal(7, 3)], strict=True):
        assert torch.equal(ours, theirs)


def test_mixed_devices_are_seen():
    with PretendedGPU():
        x = torch.ones(3, device="cuda")
        for mix in (
            lambda: x + torch.ones(3),
            lambda: torch.stack([x[0], torch.tensor(1.0)]),
            lambda: torch.cat([x, torch.ones(1)]),
            lambda: torch.where(x > 0, x, torch.zeros(3)),
        ):
            with pytest.raises(MixedDevices):
                mix()
        assert is_on_gpu(x * torch.tensor(2.0))
        with pytest.raises(TypeError, match="numpy"):
            np.asarray(x)
