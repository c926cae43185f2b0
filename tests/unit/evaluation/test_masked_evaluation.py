"""Evaluations, rollouts and pictures of a system with a mask."""

import h5py
import numpy as np
import pytest
import torch
from oceans import GRID, LAND, MEAN, STD, fields, system_of, write_ocean

from lola.data.transforms import Standardisation
from lola.data.well.splits import open_split
from lola.emulation.emulator import Emulator
from lola.emulation.film import EnsembleFrames
from lola.emulation.film_config import FilmConfig
from lola.emulation.guidance_config import GuidanceConfig
from lola.emulation.observation_config import ObservationConfig
from lola.emulation.sampling_config import SamplerConfig
from lola.evaluation.evaluation_config import EvaluationConfig
from lola.evaluation.page.film_player import Film, Row, pack
from lola.evaluation.page.frames import trajectory_frames
from lola.evaluation.scores.rows import Subject
from lola.evaluation.trajectory import evaluate_trajectory
from lola.models.diffusion_config import DiffusionConfig
from lola.models.neural_solver_config import NeuralSolverConfig
from lola.models.transformer_config import TransformerConfig

SUBJECT = Subject(system="ocean", dataset="d", fingerprint="f", model="m", space="pixel", compression=1.0)
NETWORK = TransformerConfig(features=16, blocks=1, heads=2, modulation=16, dropout=0.0, patch_size=1)


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    root = write_ocean(tmp_path_factory.mktemp("ocean"))
    return open_split(root, system_of(root, mean=MEAN, std=STD), "test")


def test_scores_leave_the_land_out(split):
    config = EvaluationConfig(subject="persistence", stride=1)
    scores = evaluate_trajectory(config, SUBJECT, split, 1, 0, autoencoder=None, emulator=None)
    height = fields(1)["height"].astype(float)[:, ~LAND]
    rows = scores.metrics.to_pylist()
    found = {
        row["lead_time"]: row["value"] for row in rows if (row["metric"], row["field"]) == ("vrmse", "height")
    }
    assert set(found) == {1, 2, 3, 4, 5}
    for lead, value in found.items():
        error = np.mean((height[0] - height[lead]) ** 2)
        assert value == pytest.approx(np.sqrt(error / (height[lead].var(ddof=1) + 1e-6)), rel=1e-4)
    assert {row["value"] for row in rows if row["metric"] == "stability"} == {1.0}
    assert all(np.isfinite(row["value"]) for row in rows)
    assert np.array_equal(np.isnan(scores.example), np.broadcast_to(LAND, scores.example.shape))


def test_rollouts_in_pixel_space_keep_the_land_filled(split):
    torch.manual_seed(0)
    model = NeuralSolverConfig(network=NETWORK).build(4, split.parameter_count, 2, 3)
    x = Standardisation(split.system).forward(split.read(0, 0, 1))[None]
    parameters = split.parameters(0)[None]
    rolled = {
        system: torch.cat(list(Emulator(model=model, system=system).rollout(x, parameters, 4, [(0,)])), 2)[0]
        for system in (split.system, None)
    }
    land = torch.from_numpy(LAND)
    assert torch.equal(rolled[split.system][:3, :, land], torch.zeros(3, 4, int(LAND.sum())))
    assert rolled[None][:3, :, land].abs().min() > 0
    sea = {system: values[:3][..., ~land] for system, values in rolled.items()}
    assert torch.equal(sea[split.system][:, :2], sea[None][:, :2])  # of the first window
    assert not torch.equal(sea[split.system][:, 2:], sea[None][:, 2:])


def test_pictures_leave_the_land_blank(split):
    figure = trajectory_frames(split)
    drawn = figure.axes[0].collections[0].get_array()
    assert np.array_equal(np.ma.getmaskarray(drawn).reshape(GRID[::-1]), LAND.T)
    truth = np.where(LAND, np.nan, split.read(0, 0, 2).numpy())
    film = Film("t", split.system.channels, [1, 2], [Row("Truth", None, truth)])
    packed = pack(film)
    assert "blank" in packed
    assert np.isfinite(packed["limits"]).all()
    assert "blank" not in pack(Film("t", ("a",), [1], [Row("Truth", None, np.ones((1, 1, 4, 5)))]))


def test_films_of_ensembles_leave_the_land_blank(split, tmp_path):
    with h5py.File(tmp_path / "ensemble.hdf5", "w") as file:
        file.attrs.update(lola_members=2, lola_steps=[0, 1], lola_trajectories=[0], lola_backward=False)
        file["dimensions/time"] = [0.0, 1.0]
        file["dimensions"].attrs["spatial_dims"] = ["x", "y"]
        file["dimensions/x"], file["dimensions/y"] = np.arange(GRID[0]), np.arange(GRID[1])
        file["t0_fields/height"] = np.ones((2, 2, *GRID), "float32")
        file["t0_fields/land"] = np.broadcast_to(LAND, (2, 2, *GRID)) * np.array([1.0, 0.7])[:, None, None]
        system = split.system
        config = FilmConfig(fields=("height",))
        assert np.isfinite(EnsembleFrames(file, system, config, None).ensemble("height", 1)).all()
        file.attrs.update(lola_mask="land", lola_outside=1.0)
        frames = EnsembleFrames(file, system, config, split)
        assert np.array_equal(np.isnan(frames.ensemble("height", 1)), np.broadcast_to(LAND, (2, *GRID)))
        assert np.array_equal(np.isnan(frames.true("height", 1)), LAND)


def test_guidance_sees_neither_the_land_nor_what_is_given(split, monkeypatch):
    """A guided rollout whose land holds anything is the same where the sea is, and observes the sea alone."""
    seen = []
    genuine = ObservationConfig.observe

    def observe(self, truth, *arguments):
        seen.append(found := genuine(self, truth, *arguments))
        return found

    monkeypatch.setattr(ObservationConfig, "observe", observe)
    torch.manual_seed(0)
    model = DiffusionConfig(network=NETWORK).build(4, split.parameter_count, 2, 3).eval()
    config = EvaluationConfig(
        sampler=SamplerConfig(steps=1),
        members=1,
        stride=1,
        observed=ObservationConfig(operator="subsample", factor=1),
        guidance=GuidanceConfig(iterations=1),
    )
    emulator = Emulator(model=model, sampler=config.sampler, system=split.system)
    scores = evaluate_trajectory(config, SUBJECT, split, 1, 0, autoencoder=None, emulator=emulator)
    (observations,) = seen
    truth = split.read(1, 1, 2)[:, 0]
    sea = truth[:3][:, torch.from_numpy(~LAND)].flatten()
    assert observations.values[1].shape == (1, len(sea))
    assert (observations.values[1][0] - sea).abs().max() < 6 * float(observations.noise.max())
    assert all(np.isfinite(row["value"]) for row in scores.metrics.to_pylist())
