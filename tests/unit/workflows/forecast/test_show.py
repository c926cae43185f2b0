"""What `--plan` shows of models and stages, and options of the commands that train them."""

import functools
import types

import pytest
import train_autoencoder
import train_emulator

from lola.core import waiting
from lola.core.cli import parse
from lola.data.description import EULER, RAYLEIGH_BENARD
from lola.models.crps_ensemble_config import CRPSEnsembleConfig
from lola.training.cost import estimate_cost
from lola.training.hardware import Hardware
from lola.workflows import presets
from lola.workflows.arms import plan_emulators
from lola.workflows.base_plan import open_plan
from lola.workflows.dataset_info import DatasetInfo
from lola.workflows.forecast import estimates
from lola.workflows.forecast.cluster import ClusterConfig
from lola.workflows.forecast.show import show_plan, show_sweep
from lola.workflows.model_shape import ModelShape
from lola.workflows.plan import SweepPlan
from lola.workflows.studies.optimizer_plan import OptimizerPlan


def command(module, *arguments):
    sweeps = {name: module.configure(preset) for name, preset in presets.SWEEPS.items()}
    return parse(list(arguments), module.__name__, "", sweeps, "mini", {"system": "euler"})


def test_samples_are_those_of_the_data():
    paper, data = presets.paper("rayleigh_benard"), DatasetInfo.of_publication(RAYLEIGH_BENARD)
    codec = paper.autoencoder.replace(latent_channels=16)
    states = ModelShape.of_autoencoder(codec, data)
    assert states.states == (4, 1, 512, 128)
    assert states.sample_bytes == 4 * 4 * 512 * 128
    latents = ModelShape.of_emulator(paper.diffusion, data, 5, codec, paper.cache)
    assert latents.states == (16, 5, 16, 4)
    assert latents.sample_bytes == 4 * 16 * 5 * 16 * 4
    half = ModelShape.of_emulator(paper.diffusion, data, 5, codec, paper.cache.replace(dtype="float16"))
    assert half.sample_bytes == latents.sample_bytes / 2
    assert ModelShape.of_emulator(paper.pixel, data, 5).states == (4, 5, 512, 128)


def test_published_hours_are_between_estimates_in_half_and_full_precision():
    """Two days on 8 GPUs for an autoencoder of Euler, five for its emulators."""
    paper, data = presets.paper("euler"), DatasetInfo.of_publication(EULER)
    codec = paper.autoencoder.replace(latent_channels=64)
    for shape, training, days in (
        (ModelShape.of_autoencoder(codec, data), paper.autoencoder_training, 2),
        (ModelShape.of_emulator(paper.diffusion, data, 5, codec), paper.emulator_training, 5),
    ):
        hours = []
        for precision in ("bfloat16", "float32"):
            counts = shape.counts(precision)
            cost = estimate_cost(
                counts, training.replace(precision=precision), shape.sample_bytes, Hardware()
            )
            hours.append(cost.gpu_hours)
        assert hours[0] < days * 24 * 8 < hours[1]


@pytest.fixture
def smoke(tmp_path, monkeypatch):
    """The smoke sweep without data, on a processor whose speed is not measured."""
    speed = lambda cores: Hardware(float32=5e10 * cores, bfloat16=5e10 * cores)  # noqa: E731
    monkeypatch.setattr(estimates, "processor", speed)
    return presets.smoke().replace(storage=str(tmp_path))


def autoencoders(plan):
    return [plan.autoencoder(16)]


def test_one_model_is_shown_with_all_that_it_consists_of(smoke, tmp_path, capsys):
    training = smoke.autoencoder_training.replace(accumulate=2, recompute=True, ema=0.99)
    show_sweep(smoke.replace(autoencoder_training=training), autoencoders)
    text = capsys.readouterr().out
    for part in (
        "autoencoder-f8c16",
        "yes, with 2 micro-batches and recomputed blocks",
        "Data: not simulated yet.",
        "Sample: 5 x 1 x 32 x 32 (channels, states, grid)",
        "Batch: 4, 4 on 1 worker, 2 of them at once.",
        "average 0.0",
        "psgd",
        "activations",
        "40% of peak performance",
    ):
        assert part in text
    assert "latents-f8c16" not in text
    assert "the report" not in text
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_does_not_fit_is_named_with_what_would_help(smoke, capsys):
    training = smoke.autoencoder_training.replace(batch_size=2**16)
    cluster = ClusterConfig(gpus=1, kind="a100-40gb", storage=1000)
    wide = smoke.replace(autoencoder=smoke.autoencoder.replace(channels=(512, 512)))
    show_sweep(wide.replace(autoencoder_training=training), autoencoders)
    text = " ".join(capsys.readouterr().out.split())
    assert "no: a smaller --batch-size" in text
    assert "Too large for the memory of this machine: autoencoder-f8c16;" in text
    training = training.replace(gpus=1)
    show_sweep(wide.replace(autoencoder_training=training, cluster=cluster), autoencoders)
    text = " ".join(capsys.readouterr().out.split())
    assert "no: " in text
    assert "micro-batches" in text
    assert "Too large for the memory of a GPU (a100-40gb): autoencoder-f8c16; see the column `fits`." in text


def test_a_study_is_planned_for_too(smoke, capsys):
    study = presets.study_smoke()
    show_plan(study.replace(storage=smoke.storage, seeds=(0,)), OptimizerPlan)
    text = capsys.readouterr().out
    for arm in study.arms:
        assert f"study-{arm.name}" in text


def finish(stage, **counts):
    stage.folder.mkdir(parents=True)
    (stage.folder / "result").write_bytes(bytes(500_000))
    stage.commit(**counts)


def test_a_finished_plan_says_so_and_what_it_took(smoke, tmp_path, well, capsys):
    network = smoke.pixel.network.replace(patch_size=4)
    config = smoke.replace(well=str(well), pixel=smoke.pixel.replace(network=network))
    plan = SweepPlan(config, tmp_path, well)
    first, *others = {step.stage.fingerprint: step.stage for step in plan.steps}.values()
    finish(first, seconds_per_state=0.5)
    show_sweep(config)
    text = capsys.readouterr().out
    assert f"1 of {1 + len(others)} stages are finished and cost nothing." in text
    assert "CPU hours" in text
    for stage in others:
        finish(stage, seconds=90.0, seconds_per_state=0.5)
    show_sweep(config.replace(cluster=ClusterConfig(storage=1e-6)))
    text = capsys.readouterr().out
    count, known = 1 + len(others), len(others)
    assert f"All {count} stages are finished: nothing is left to run. A run writes the report" in text
    assert f"They took {waiting.format_duration(90 * known)}, one after another ({known} have" in text
    assert f"They hold {count * 5e-4:.3g} GB of results." in text
    assert text.count("1 min 30 s") == known
    assert "hours" not in text
    show_sweep(config, autoencoders)
    text = capsys.readouterr().out
    assert "The stage is finished: nothing is left to run.\nIt holds 0.0005 GB of results." in text


def test_it_says_how_far_it_is(smoke, tmp_path, monkeypatch):
    clock, logged = iter(range(0, 100, 8)), []
    reminder = functools.partial(waiting.progress_reminder, clock=lambda: next(clock))
    monkeypatch.setattr(estimates, "progress_reminder", reminder)
    plan = open_plan(SweepPlan, smoke.replace(pixel=None), tmp_path, tmp_path / "nothing")
    estimates.forecast(plan.towards(plan.cache(16)), smoke.cluster, 2, logged.append)
    assert logged == ["estimated 2 of 2 stages"]


def chosen(config):
    plan = types.SimpleNamespace(emulators=plan_emulators(config))
    return [(one.model, one.latent_channels) for one in config.chosen(plan)]


def test_options_reach_the_sweep():
    config = command(
        train_autoencoder, "paper", "--system", "rayleigh_benard", "--latent-channels", "64", "16"
    )
    sweep = config.full_sweep()
    assert sweep.system == "rayleigh_benard"
    assert sweep.latent_channels == (64, 16)
    assert sweep.autoencoder_training.batch_size == 64
    assert sweep.replace(latent_channels=(64, 16, 4)).to_json() == presets.paper("rayleigh_benard").to_json()
    config = command(train_autoencoder, "smoke", "--autoencoder-training.steps", "7", "--plan")
    assert config.full_sweep().autoencoder_training.steps == 7
    assert config.plan
    unet = command(train_emulator, "--diffusion.network.type", "UNetConfig")
    assert type(unet.diffusion.network).__name__ == "UNetConfig"
    config = command(train_emulator, "paper", "--system=euler", "--latent-channels", "4")
    assert {**config.to_json(), **presets.paper().to_json()}.keys() - presets.paper().to_json().keys() == {
        "model",
        "space",
    }
    assert chosen(config) == [(presets.paper().diffusion, 4)]
    config = command(train_emulator, "paper", "--space", "pixel", "--model", "neural-solver")
    assert chosen(config) == [(presets.paper().pixel, None)]
    options = "--model neural-solver --seeds 2 3 --seeds-at 16"
    config = command(train_emulator, "paper", *options.split())
    assert chosen(config) == [(presets.paper().neural_solver, n) for n in (64, 16, 4, 16)]
    config = command(train_emulator, "--model", "crps-ensemble", "--crps-ensemble.members", "3")
    assert config.crps_ensemble.members == 3
    config = command(train_emulator, "--pixel.type", "crps-ensemble")
    assert config.pixel == CRPSEnsembleConfig()


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (
            train_emulator,
            ["--system", "turbulence_gravity_cooling", "--space", "pixel"],
            "use --space latent",
        ),
        (train_emulator, ["--space", "pixel"], "--space pixel needs --model neural-solver"),
        (train_emulator, ["--model", "unet"], "--model"),
        (train_emulator, ["--crps_ensemble.members=3"], "--crps-ensemble.members has no effect: --emulators"),
        (train_emulator, ["--system", "weather"], "--system weather is no dataset"),
        (train_autoencoder, ["--system", "weather"], "--system weather is no dataset"),
        (train_autoencoder, ["--model", "diffusion"], "--model"),
        (train_autoencoder, ["--sweep.diffusion.network.type", "UNetConfig"], "unknown option --sweep"),
        (train_autoencoder, ["--solver-steps", "3"], "--solver-steps"),
        (train_autoencoder, ["--latent-channels", "0"], "--latent-channels must be in [1, 65536], not 0"),
    ],
)
def test_what_is_impossible_is_refused_in_one_line(module, options, message, capsys):
    with pytest.raises(SystemExit) as end:
        command(module, "paper", *options)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line
