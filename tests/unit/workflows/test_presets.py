"""The presets at the paper's scale: sizes are the paper's, and every model can be built."""

import math
from typing import NamedTuple

import pytest
import torch

from lola.core.config import ConfigError
from lola.data.description import SYSTEMS
from lola.training.config import TrainingConfig
from lola.training.cost import estimate_cost
from lola.training.hardware import Hardware
from lola.workflows import presets
from lola.workflows.arms import find_candidates
from lola.workflows.dataset_info import DatasetInfo
from lola.workflows.model_shape import ModelShape


class Trained(NamedTuple):
    """A model of the preset."""

    kind: str
    shape: ModelShape
    training: TrainingConfig


def paper_models():
    """Every model of the preset, by system and name such as `euler diffusion f32c64`."""
    for system, physics in SYSTEMS.items():
        config, data = presets.paper(system), DatasetInfo.of_publication(physics)
        for n in config.latent_channels:
            codec = config.autoencoder.replace(latent_channels=n)
            rate = f"{codec.rate(physics.dimensions)}c{n}"
            shape = ModelShape.of_autoencoder(codec, data)
            yield f"{system} autoencoder {rate}", Trained("autoencoder", shape, config.autoencoder_training)
            for name in ("diffusion", "neural_solver"):
                shape = ModelShape.of_emulator(
                    getattr(config, name), data, config.window, codec, config.cache
                )
                yield f"{system} {name} {rate}", Trained("latent", shape, config.emulator_training)
        if config.pixel is not None:
            shape = ModelShape.of_emulator(config.pixel, data, config.window)
            yield f"{system} neural_solver pixel", Trained("pixel", shape, config.pixel_training)


PAPER = dict(paper_models())


def test_numbers_are_those_of_the_paper():
    assert len(PAPER) == 3 * 3 * 3 + 2
    assert sum(job.kind == "pixel" for job in PAPER.values()) == 2


def millions(name):
    shape = PAPER[name].shape
    with torch.device("meta"):
        model = shape.model.build(**shape.sizes)
    return sum(p.numel() for p in model.parameters()) / 1e6


@pytest.mark.parametrize("name", PAPER)
def test_every_model_can_be_built_and_has_the_published_size(name):
    job = PAPER[name]
    if job.kind == "pixel":  # Section 3.4: roughly twice an autoencoder and a latent emulator together
        latent = name.replace("pixel", "f32c64")
        both = millions(latent) + millions(latent.replace("neural_solver", "autoencoder"))
        assert millions(name) / both == pytest.approx(2, abs=0.5)
        return
    size = 223 if job.kind == "latent" else {2: 313, 3: 741}[job.shape.sizes["spatial"]]
    assert millions(name) == pytest.approx(size, rel=0.015)


@pytest.mark.parametrize("name", [name for name in PAPER if name.endswith(("c64", "pixel"))])
def test_every_model_fits_the_gpus(name):
    """Those with fewer latent channels are smaller."""
    _, shape, training = PAPER[name]
    cost = estimate_cost(shape.counts(training.precision), training, shape.sample_bytes, Hardware())
    assert cost.remedy == ""
    assert cost.memory.total < cost.usable


@pytest.mark.parametrize("name", SYSTEMS)
def test_published_ensembles_have_the_printed_bytes(name):
    system = SYSTEMS[name]
    ensemble = system.published
    numbers = ensemble.trajectories * ensemble.steps * len(system.channels) * math.prod(ensemble.grid)
    printed = {"euler": 5243, "rayleigh_benard": 367, "turbulence_gravity_cooling": 849}[name]
    assert round(4 * numbers / 1e9) == printed
    assert len(ensemble.grid) == system.dimensions


@pytest.mark.parametrize(
    ("system", "rates"),
    [
        ("euler", (80, 320, 1280)),
        ("rayleigh_benard", (64, 256, 1024)),
        ("turbulence_gravity_cooling", (48, 192, 768)),
    ],
)
def test_compression_rates_are_the_paper_s(system, rates):
    config = presets.paper(system)
    physics = SYSTEMS[system]
    found = tuple(
        config.autoencoder.replace(latent_channels=n).compression(len(physics.channels), physics.dimensions)
        for n in config.latent_channels
    )
    assert found == rates


def test_training_is_the_paper_s():
    for name, job in PAPER.items():
        training, optimizer = job.training, job.training.optimizer
        assert training.clip == 1
        assert (training.steps, training.gpus) == (2**18, 1)
        assert training.workers == (16 if job.kind == "pixel" else 8)
        assert (training.batch_size, optimizer.name, optimizer.learning_rate) == (
            (64, "psgd", 1e-5) if job.kind == "autoencoder" else (256, "adamw", 1e-4)
        ), name
        assert optimizer.weight_decay == 0
    strides = {name: presets.paper(name).evaluation.stride for name in SYSTEMS}
    assert strides == {"euler": 4, "rayleigh_benard": 4, "turbulence_gravity_cooling": 1}
    variants = {name: presets.paper(name).cache.variants for name in SYSTEMS}
    assert variants == {"euler": 1, "rayleigh_benard": 4, "turbulence_gravity_cooling": 1}


def test_small_presets_follow_the_system():
    for preset in (presets.mini, presets.smoke, presets.paper):
        for name in SYSTEMS:
            config = preset(name)
            assert config.system == name
            assert type(config).from_json(config.to_json()).to_json() == config.to_json()
    assert presets.mini().simulation.grid == (32, 32)
    assert presets.mini("rayleigh_benard").simulation.grid == (64, 32)
    assert presets.paper("rayleigh_benard").simulation is None


def test_presets_with_a_simulation_simulate_what_is_missing():
    every = [make() for make in (*presets.SWEEPS.values(), *presets.STUDIES.values())]
    assert all(config.simulates for config in every if config.simulation is not None)
    assert any(config.simulation is not None for config in every[len(presets.SWEEPS) :])


@pytest.mark.parametrize("preset", ["study", "ablations"])
def test_emulators_of_the_study_have_equal_minutes(preset):
    config = presets.SWEEPS[preset]()
    minutes = {(one.name, one.pixel): one.training.minutes for one in find_candidates(config)}
    given = dict(minutes)
    for one in find_candidates(config):
        if one.source is not None:
            given[one.name, one.pixel] += minutes[one.source.name, one.pixel]
    starts = {key for key in given if key[0].endswith("_start")}
    assert {("solver_start", False), ("diffusion_start", False)} <= starts
    whole = config.autoencoder_training.minutes + config.emulator_training.minutes
    assert all(given[key] == (whole if key[1] else 4.0) for key in given.keys() - starts)
    with pytest.raises(ConfigError, match=f"the preset {preset} is of --system euler.*, not shear_flow"):
        presets.SWEEPS[preset]("shear_flow")


def test_the_study_of_convection_has_two_rates_and_seeds_at_one():
    config = presets.study("rayleigh_benard")
    data = DatasetInfo.of_simulation(config.simulation, (), ())
    config.fit(data)
    rates = [config.autoencoder.replace(latent_channels=n).compression(4, 2) for n in config.latent_channels]
    assert (rates, config.seeds_at) == ([8, 64], config.latent_channels[:1])
    assert (config.evaluation.starts, data.trajectories["test"]) == ((16,), config.evaluation.trajectories)
    with pytest.raises(ConfigError, match="ablations is of --system euler, not rayleigh_benard"):
        presets.ablations("rayleigh_benard")


def test_the_study_and_its_ablations_share_stages():
    """Those at the middle rate of what is in both; else they would be trained twice."""
    study, ablations = presets.study(), presets.ablations()
    assert set(ablations.latent_channels) < set(study.latent_channels)
    shared = (
        "simulation",
        "autoencoder",
        "cache",
        "neural_solver",
        "diffusion",
        "emulator_training",
        "evaluation",
    )
    assert all(getattr(study, name) == getattr(ablations, name) for name in shared)
    arms = [{arm.name: arm for arm in config.arms} for config in (study, ablations)]
    common = arms[0].keys() & arms[1].keys()
    assert common == {"solver_start", "crps_rollout", "diffusion_start", "shortcut_warm"}
    assert all(arms[0][name] == arms[1][name] for name in common)


def test_simulations_are_of_their_system():
    with pytest.raises(ConfigError, match="of rayleigh_benard cannot come from a simulation of euler"):
        presets.mini("rayleigh_benard").replace(simulation=presets.mini().simulation)
    with pytest.raises(ConfigError, match="--system weather is no dataset"):
        presets.paper("weather")
