"""What options change, in miniature and without a cluster: trainings, evaluations, caches, ensembles."""

import dataclasses
import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sources import Single
from stages import finish_autoencoder, finish_diffusion

from lola.data.description import EULER
from lola.data.well.datasets import Datasets
from lola.data.well.splits import open_split
from lola.distributed.jobs.encode import encode
from lola.emulation.cache_config import CacheConfig
from lola.emulation.emulator import Emulator
from lola.emulation.ensembles import write_ensemble
from lola.emulation.film import check_film, write_film
from lola.evaluation.scores.rows import Subject
from lola.evaluation.trajectory import choose_parts, evaluate_trajectory
from lola.simulate.simulation import simulate_trajectory, simulation_jobs
from lola.storage.stages import Stage
from lola.training.loop import train
from lola.workflows import presets
from lola.workflows.forecast.forecast import Forecast

GRID, STATES, PARAMETERS = 16, 5, 5
SUBJECT = Subject(system="euler", dataset="d", fingerprint="f", model="m", space="latent", compression=20.0)


class Noise(Single):
    """Windows of noise that are a function of their number."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def __len__(self) -> int:
        return 12

    def read(self, index, key):
        generator = torch.Generator().manual_seed(index)
        return torch.randn(self.shape, generator=generator), torch.zeros(PARAMETERS)


def train_briefly(config: Any, path: str) -> None:
    """Take two steps of the training that an option of a sweep belongs to."""
    part = path.split(".")[0]
    kind = "autoencoder" if part.startswith("autoencoder") else "pixel" if part.startswith("pixel") else part
    if kind in ("emulator_training", "sampler"):
        kind = "neural_solver"
    training = {"autoencoder": config.autoencoder_training, "pixel": config.pixel_training}.get(
        kind, config.emulator_training
    )
    spatial, channels = 2, 16
    if kind == "autoencoder":
        model = config.autoencoder.replace(latent_channels=channels).build(5, spatial)
        shape = (5, 1, GRID, GRID)
    else:
        side = GRID if kind == "pixel" else 4
        channels = 5 if kind == "pixel" else channels
        model = getattr(config, kind).build(channels, PARAMETERS, spatial, config.window)
        shape = (channels, config.window, side, side)
    training = training.replace(steps=2)
    if not path.endswith(".report_every"):
        training = training.replace(report_every=1)
    reports: list[dict[str, float]] = []
    source = Noise(shape)
    train(model, training, source, source, report=lambda step, metrics, save: reports.append(metrics))
    assert reports
    assert reports[-1]["train/skipped"] == 0
    for metrics in reports:
        assert all(math.isfinite(value) for value in metrics.values()), metrics


def evaluate_briefly(config: Any, well: Path) -> None:
    """Score one trajectory with the models of a sweep, untrained."""
    split = open_split(well, EULER, "test")
    evaluation = config.guided_evaluation() if hasattr(config, "guided_evaluation") else config.evaluation
    torch.manual_seed(0)
    channels = max(getattr(config, "latent_channels", (16,)))
    sweep = config if hasattr(config, "autoencoder") else presets.smoke()
    autoencoder = sweep.autoencoder.replace(latent_channels=channels).build(5, 2).eval()
    model = sweep.diffusion.build(channels, split.parameter_count, 2, STATES)
    evaluation = evaluation.replace(sampler=evaluation.sampler.replace(steps=2 * evaluation.sampler.cost))
    emulator = Emulator(
        model=model, autoencoder=autoencoder, sampler=evaluation.sampler, inference=evaluation.inference
    )
    chosen = choose_parts(split, evaluation).trajectories
    subject = Subject(
        system="euler", dataset="d", fingerprint="f", model="m", space="latent", compression=20.0
    )
    scores = evaluate_trajectory(
        evaluation,
        subject,
        split,
        chosen[0],
        evaluation.starts[0],
        autoencoder=autoencoder,
        emulator=emulator,
    )
    assert scores.metrics.num_rows > 0
    assert np.isfinite(scores.example).all()


def encode_briefly(config: CacheConfig, root: Path, well: Path) -> None:
    """Make a latent cache."""
    codec = finish_autoencoder(root, well)
    inputs = {"autoencoder": codec.fingerprint}
    stage = Stage(root=root, kind="latents", system="euler", what="latents", config=config, inputs=inputs)
    encode(stage, codec.folder, Datasets(well), config)
    assert stage.finished


def emulate_briefly(config: Any, root: Path, well: Path, folder: Path, films: bool) -> None:
    """Write an ensemble, and its films if asked to."""
    emulator = finish_diffusion(root, well)
    (initial,) = (well / "euler_multi_quadrants_openBC" / "data" / "test").glob("*.hdf5")
    settings = config.replace(
        emulator=emulator.name,
        initial=str(initial),
        storage=str(root),
        members=min(config.members, 2),
        sampler=config.sampler.replace(steps=2),
        states=config.states or 2,
    )
    check = functools.partial(check_film, config.film)
    path = write_ensemble(settings, folder / "ensemble.hdf5", check=check)
    if films:
        assert all(film.exists() for film in write_film(path, config.film, initial))


def simulate_briefly(config: Any) -> None:
    """Simulate a trajectory where its solver is installed, and draw its initial state everywhere."""
    first = simulation_jobs(config)
    for job in first[:1]:
        state = config.draw(job.case, np.random.default_rng(0))
        assert np.isfinite(state).all()
        if config.system == "euler":
            small = config.replace(resolution=min(config.resolution, 16), outputs=min(config.outputs, 2))
            small = small.replace(end=min(small.end, 0.02))
            with small.solver(job.case) as solve:
                fields, _ = simulate_trajectory(job, small, 0, solve)
            assert all(np.isfinite(values).all() for values in fields.values())


def price_briefly(cluster: Any) -> None:
    """What no work at all costs on a cluster."""
    whole = Forecast(stages=(), capacity=cluster.capacity(2), cluster=cluster)
    assert math.isfinite(whole.cost)
    assert dataclasses.is_dataclass(whole)
