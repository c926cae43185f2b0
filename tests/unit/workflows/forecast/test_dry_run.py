import dataclasses
import functools

import pytest
import train_autoencoder
import train_emulator

from lola.core import waiting
from lola.core.cli import parse
from lola.data.systems import SYSTEMS
from lola.training.cost import Hardware
from lola.workflows import presets
from lola.workflows.forecast import training_costs as dry_run
from lola.workflows.forecast.training_costs import autoencoder_job, emulator_job, pixel_refusal, show


def command(module, *arguments):
    sweeps = {name: module.of(preset) for name, preset in presets.SWEEPS.items()}
    return parse(list(arguments), module.__name__, "", sweeps, "mini", ("system",))


def test_samples_are_those_of_the_data():
    paper = presets.paper("rayleigh_benard")
    states = autoencoder_job(paper, 64)
    assert states.states == (4, 1, 512, 128)
    assert states.sample_bytes == 4 * 4 * 512 * 128
    latents = emulator_job(paper, paper.diffusion, 16)
    assert latents.states == (16, 5, 16, 4)
    assert latents.sample_bytes == 4 * 16 * 5 * 16 * 4
    half = paper.replace(cache=paper.cache.replace(dtype="float16"))
    assert emulator_job(half, paper.diffusion, 16).sample_bytes == latents.sample_bytes / 2
    fields = emulator_job(paper, paper.pixel, None)
    assert fields.states == (4, 5, 512, 128)


def test_published_hours_are_between_estimates_in_half_and_full_precision():
    """Two days on 8 GPUs for an autoencoder of Euler, five for its emulators."""
    paper, hardware = presets.paper("euler"), Hardware()
    for job, days in ((autoencoder_job(paper, 64), 2), (emulator_job(paper, paper.diffusion, 64), 5)):
        full = dataclasses.replace(job, training=job.training.replace(precision="float32"))
        hours = [each.estimate(hardware).gpu_hours for each in (job, full)]
        assert hours[0] < days * 24 * 8 < hours[1]


def test_what_is_printed_is_complete(capsys):
    smoke = presets.smoke()
    show([autoencoder_job(smoke, 16)], Hardware(utilisation=0.3))
    text = capsys.readouterr().out
    for word in (
        "euler",
        "autoencoder f8c16",
        "psgd",
        "activations",
        "GPU hours",
        "30% of it",
        "Not counted",
    ):
        assert word in text


def test_it_says_how_far_it_is(monkeypatch):
    clock, said = iter(range(0, 100, 6)), []
    reminder = functools.partial(waiting.progress_reminder, clock=lambda: next(clock))
    monkeypatch.setattr(dry_run, "progress_reminder", reminder)
    smoke = presets.smoke()
    monkeypatch.setattr(dry_run.Job, "estimate", lambda *_: None)
    dry_run.estimate_all([autoencoder_job(smoke, 16)] * 5, Hardware(), said.append)
    assert said == ["counted 3 of 5 models, about 16 s left", "counted 5 of 5 models"]


def test_what_a_batch_fits_with_is_printed(capsys):
    smoke = presets.smoke()
    training = smoke.autoencoder_training.replace(accumulate=2, recompute=True, ema=0.99)
    show([autoencoder_job(smoke.replace(autoencoder_training=training), 16)], Hardware())
    text = capsys.readouterr().out
    assert "fits with 2 micro-batches" in text
    assert "recomputed" in text
    assert "batch: 4, 4 on each of 1 GPUs, 2 of them at once" in text
    assert "average 0.0" in text


def test_options_reach_the_sweep():
    config = command(
        train_autoencoder, "paper", "--system", "rayleigh_benard", "--latent-channels", "64", "16"
    )
    sweep = config.whole()
    assert sweep.system == "rayleigh_benard"
    assert sweep.latent_channels == (64, 16)
    assert sweep.autoencoder_training.batch_size == 64
    assert sweep.replace(latent_channels=(64, 16, 4)).what() == presets.paper("rayleigh_benard").what()
    config = command(train_autoencoder, "smoke", "--autoencoder-training.steps", "7", "--dry-run")
    assert config.whole().autoencoder_training.steps == 7
    assert config.dry_run
    unet = command(train_emulator, "--diffusion.network.type", "UNetConfig")
    assert type(unet.diffusion.network).__name__ == "UNetConfig"
    assert emulator_job(unet, unet.diffusion, 8).estimate(Hardware()).parameters > 0
    config = command(train_emulator, "paper", "--system=euler", "--latent-channels", "4")
    assert {**config.what(), **presets.paper().what()}.keys() - presets.paper().what().keys() == {
        "model",
        "space",
    }
    assert config.chosen() == [(presets.paper().diffusion, 4)]
    config = command(train_emulator, "paper", "--space", "pixel", "--model", "neural-solver")
    assert config.chosen() == [(presets.paper().pixel, None)]


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (train_emulator, ["--system", "turbulence_gravity_cooling", "--space", "pixel"], "20480 tokens"),
        (train_emulator, ["--space", "pixel"], "--model neural-solver alone"),
        (train_emulator, ["--model", "unet"], "--model"),
        (train_emulator, ["--system", "weather"], "no system is called 'weather'"),
        (train_autoencoder, ["--system", "weather"], "no system is called 'weather'"),
        (train_autoencoder, ["--model", "diffusion"], "--model"),
        (train_autoencoder, ["--sweep.diffusion.network.type", "UNetConfig"], "chooses nothing"),
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


def test_the_refusal_names_the_widest_patch():
    text = str(pixel_refusal(presets.paper("turbulence_gravity_cooling")))
    channels = len(SYSTEMS["turbulence_gravity_cooling"].channels)
    assert "patches 4 cells wide" in text
    assert channels * 4**3 <= 2048 < channels * 8**3
    assert str(5 * 16**3) in text
