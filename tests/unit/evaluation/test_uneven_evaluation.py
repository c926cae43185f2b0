"""Evaluations on uneven grids, and against the climate."""

import dataclasses

import h5py
import numpy as np
import pytest
import torch
from wells import write_well

from lola.core.errors import DataError
from lola.data.description import EULER, SYSTEMS
from lola.data.well.datasets import Datasets
from lola.data.well.splits import open_split
from lola.evaluation.climate import find_climate, mean_states
from lola.evaluation.evaluation_config import EvaluationConfig
from lola.evaluation.scores.rows import Subject
from lola.evaluation.trajectory import evaluate_trajectory
from lola.simulate.rayleigh_benard import chebyshev_points

SUBJECT = Subject(system="s", dataset="d", fingerprint="f", model="m", space="pixel", compression=1.0)
BENARD = SYSTEMS["rayleigh_benard"]


@pytest.fixture(scope="module")
def convection(tmp_path_factory):
    root = tmp_path_factory.mktemp("convection")
    for path in write_well(root, "rayleigh_benard").rglob("*.hdf5"):
        with h5py.File(path, "r+") as file:
            file["dimensions/y"][...] = chebyshev_points(8)
    return root


def scored(split, start=16, climate=None, **options):
    config = EvaluationConfig(subject="persistence", stride=4, eps="published", **options)
    return evaluate_trajectory(
        config, SUBJECT, split, 0, start, autoencoder=None, emulator=None, climate=climate
    )


def value(scores, metric, field, lead):
    rows = [row for row in scores.to_pylist() if row["metric"] == metric and row["field"] == field]
    (found,) = [row for row in rows if row["lead_time"] == lead]
    return found.get("value", found.get("values"))


def test_scores_of_convection_take_the_weights_of_its_nodes(convection):
    split = open_split(convection, BENARD, "test")
    u, v = (split.read(0, step, step + 1)[0, 0].double().numpy() for step in (24, 16))
    exact = scored(split)
    # Gauss and Chebyshev's weights of Fejer's first rule, by the integrals of the Lagrange polynomials
    z = chebyshev_points(8)
    weights = np.linalg.solve(np.vander(z, increasing=True).T, 1 / np.arange(1, 9))
    mean = lambda x: x.mean(0) @ weights  # noqa: E731
    assert value(exact.metrics, "skill", "buoyancy", 8) == pytest.approx(mean((u - v) ** 2) ** 0.5, rel=1e-5)
    assert value(exact.metrics, "crps", "buoyancy", 8) == pytest.approx(mean(np.abs(u - v)), rel=1e-5)
    power = np.abs(np.fft.fft(u, axis=0, norm="ortho")) ** 2 @ weights
    np.testing.assert_allclose(
        value(exact.spectra, "power_truth", "buoyancy", 8), power[1:17], rtol=1e-4, atol=1e-9
    )
    paper = scored(split, geometry="published")
    assert value(paper.metrics, "skill", "buoyancy", 8) == pytest.approx(
        np.mean((u - v) ** 2) ** 0.5, rel=1e-5
    )
    assert len(value(paper.spectra, "power_truth", "buoyancy", 8)) == 5  # sqrt(2) / 2 of 8 cells


def test_coordinates_without_weights_are_an_error(convection):
    split = open_split(convection, BENARD, "test")
    wrong = dataclasses.replace(
        split, coordinates=(split.coordinates[0], np.array([0, 1, 1, 1, 2, 3, 4, 5.0]))
    )
    with pytest.raises(DataError, match=r"no quadrature weights .*--evaluation.geometry published"):
        scored(wrong)
    assert scored(wrong, geometry="published").metrics.num_rows


def test_periodic_even_grids_are_scored_as_published(well):
    split = open_split(well, EULER, "test")
    periodic = next(i for i, each in enumerate(split.trajectories) if (each.boundary == 2).all())
    options = {"autoencoder": None, "emulator": None}
    one, other = (
        evaluate_trajectory(
            EvaluationConfig(subject="persistence", geometry=geometry), SUBJECT, split, periodic, 0, **options
        )
        for geometry in ("quadrature", "published")
    )
    assert one.metrics.equals(other.metrics)
    for values in zip(one.spectra["values"].to_pylist(), other.spectra["values"].to_pylist(), strict=True):
        np.testing.assert_array_equal(*values)  # some are NaN: the coherence where there is no power


def test_the_climate_is_the_mean_of_training_states_at_the_same_time(well):
    training, split = (open_split(well, EULER, name) for name in ("train", "test"))
    config = EvaluationConfig(subject="persistence", starts=(2, 3, 6), stride=4, context=2)
    climate = mean_states(training, config)
    assert sorted(climate.means) == [2, 3]
    indices = range(len(training.trajectories))
    for start in config.starts:
        length = len(range(start + 8, split.trajectories[0].steps, 4))
        found = climate.at(start, config, length, range(5))
        states = [training.read(i, start + 8, training.steps, 4).numpy() for i in indices]
        expected = np.mean(states, 0)
        torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-5, atol=1e-6)
    scores = scored(split, 2, climate, starts=config.starts, context=2)
    u, v = split.read(0, 14, 15)[0, 0].numpy(), split.read(0, 6, 7)[0, 0].numpy()
    c = climate.at(2, config, 2, [0])[0, 1].numpy()
    expected = np.sum((u - c) * (v - c)) / np.sqrt(np.sum((u - c) ** 2) * np.sum((v - c) ** 2))
    assert value(scores.metrics, "anomaly_correlation", "energy", 8) == pytest.approx(expected, rel=1e-4)
    assert "valid" not in scored(split, 2).metrics["metric"].to_pylist()


def test_trajectories_that_end_leave_the_climate(well, monkeypatch):
    training = open_split(well, EULER, "train")
    lengths = [9, *[each.steps for each in training.trajectories[1:]]]
    refs = [
        dataclasses.replace(each, steps=n) for each, n in zip(training.trajectories, lengths, strict=True)
    ]
    short = dataclasses.replace(training, trajectories=tuple(refs))
    config = EvaluationConfig(subject="persistence", stride=4)
    late = mean_states(short, config).at(0, config, 4, range(5))
    rest = np.mean([training.read(i, 12, 13)[:, 0].numpy() for i in range(1, len(refs))], 0)
    np.testing.assert_allclose(late[:, 2], rest, rtol=1e-5, atol=1e-6)
    # Large grids: times are averaged as well
    monkeypatch.setattr("lola.evaluation.climate.KEPT_BYTES", 1)
    pooled = mean_states(training, config).at(0, config, 3, range(5))
    assert torch.equal(pooled[:, 0], pooled[:, 2])
    assert pooled.stride(1) == 0  # one time in memory
    everything = np.mean([training.read(i, 0, training.steps, 4).numpy() for i in range(len(refs))], (0, 2))
    np.testing.assert_allclose(pooled[:, 0], everything, rtol=1e-5, atol=1e-6)


def test_a_climate_that_does_not_exist_has_a_reason(well, tmp_path):
    split = open_split(well, EULER, "test")
    found, reason = find_climate(Datasets(tmp_path), split, EvaluationConfig())
    assert found is None
    assert reason.startswith("no anomaly correlation and valid time are scored: ")
    found, reason = find_climate(Datasets(well), split, EvaluationConfig(starts=(10_000,)))
    assert found is None
    assert reason.endswith("no training trajectory of euler has a state 10000")
    assert find_climate(Datasets(well), split, EvaluationConfig())[1] == ""
