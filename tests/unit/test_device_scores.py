"""Scoring and encoding on a GPU, as far as this can be seen without one; see `test_devices.py`."""

import copy
import dataclasses
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch
from pretended import PretendedGPU

from lola.core.seeding import seed_process
from lola.data.description import EULER
from lola.data.latent_shards import tensor_column
from lola.data.well.splits import open_split
from lola.emulation import encoding as encoder
from lola.emulation.emulator import Emulator
from lola.emulation.guidance_config import GuidanceConfig
from lola.emulation.observation_config import ObservationConfig
from lola.emulation.sampling_config import SamplerConfig
from lola.evaluation.evaluation_config import EvaluationConfig
from lola.evaluation.scores.anomalies import anomaly_correlation
from lola.evaluation.scores.conservation import drift
from lola.evaluation.scores.ensemble import score_ensemble
from lola.evaluation.scores.increments import increment_scores
from lola.evaluation.scores.quadrature import Domain, GridAxis
from lola.evaluation.scores.rows import Subject
from lola.evaluation.scores.stability import share_stable
from lola.evaluation.trajectory import evaluate_trajectory
from lola.models.autoencoder_config import AutoencoderConfig
from lola.models.diffusion_config import DiffusionConfig
from lola.models.transformer_config import TransformerConfig

WINDOW = 3
CONV = AutoencoderConfig(latent_channels=2, channels=(4, 8), blocks=(1, 1), dropout=0.0)
TRANSFORMER = TransformerConfig(features=16, blocks=2, heads=2, modulation=8, dropout=0.0)


def values_of(evaluation):
    """The values of an evaluation's tables."""
    lists = evaluation.spectra["values"].combine_chunks()
    return np.asarray(evaluation.metrics["value"]), np.asarray(lists.flatten())


@pytest.mark.parametrize("subject", ["emulator", "guided", "autoencoder", "persistence"])
def test_trajectories_are_scored_on_a_gpu_as_on_the_cpu(well, subject):
    split = open_split(well, EULER, "test")
    seed_process(0, "weights")
    codec = CONV.build(5, 2).eval()
    model = DiffusionConfig(network=TRANSFORMER).build(2, split.parameter_count, 2, WINDOW)
    sampler = SamplerConfig(steps=2)
    whole = (
        Emulator(model=model, autoencoder=codec, sampler=sampler)
        if subject in ("emulator", "guided")
        else None
    )
    config = EvaluationConfig(
        subject=subject if subject in ("autoencoder", "persistence") else "emulator",
        sampler=sampler if whole else None,
        members=3,
        observed=ObservationConfig() if subject == "guided" else None,
        guidance=GuidanceConfig() if subject == "guided" else None,
        chunk=6,
    )
    key = Subject(system="euler", dataset="d", fingerprint="f", model="m", space="latent", compression=20.0)

    def evaluate(device):
        inner = None if subject == "persistence" else copy.deepcopy(codec).to(device)
        outer = whole and dataclasses.replace(whole, model=copy.deepcopy(model).to(device), autoencoder=inner)
        return evaluate_trajectory(config, key, split, 0, 0, autoencoder=inner, emulator=outer)

    expected = evaluate("cpu")
    with PretendedGPU() as gpu:
        found = evaluate("cuda")
    if subject != "persistence":  # without a model there is no device
        chunks = -(-found.example.shape[2] // max(1, config.chunk // (3 if whole else 1)))
        assert (
            sum(wait.endswith("clock") for wait in gpu.waits) == 2 + 2 * chunks
        )  # times are of work that is done
    for ours, theirs in zip(values_of(found), values_of(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-2, atol=2e-3)


@pytest.mark.parametrize("spatial", [2, 3])
@pytest.mark.parametrize("even", [True, False])
def test_every_metric_is_computed_on_a_gpu_as_on_the_cpu(spatial, even):
    generator = torch.Generator().manual_seed(0)
    truth, members = (torch.randn(*shape, 2, 3, *[8] * spatial, generator=generator) for shape in ((), (4,)))
    members[0, 0, 0] = truth[0, 0]  # ties

    uneven = GridAxis("none", tuple(np.arange(1, 9) / 36))
    axes = () if even else (GridAxis("cosine"), uneven, GridAxis())[:spatial]

    def scores(u, v):
        scored, statistics = score_ensemble({"truth": u}, v, spatial=spatial, axes=axes)
        found = scored["truth"].metrics | scored["truth"].spectra
        weights = Domain.of(v, spatial, axes).weights
        states = u[:, :2].flatten(2), v[:, :, :2].flatten(3)
        found |= increment_scores(*states, weights)
        found["anomaly"] = anomaly_correlation(u.flatten(2), v[1].flatten(2), v[2].flatten(2), weights)
        found["drift"] = drift(u[:, 0], statistics.means, spatial=spatial, weights=weights)
        return found | {"stability": share_stable(u, statistics)}

    expected = scores(truth, members)
    with PretendedGPU():
        found = {name: value.cpu() for name, value in scores(truth.to("cuda"), members.to("cuda")).items()}
    torch.testing.assert_close(found, expected, equal_nan=True)


@pytest.mark.parametrize("compile", [False, True])
def test_latents_are_encoded_on_a_gpu_as_on_the_cpu(well, monkeypatch, compile):
    split = open_split(well, EULER, "train")
    seed_process(0, "weights")
    codec = CONV.build(5, 2).eval()
    monkeypatch.setattr(encoder, "load_autoencoder", lambda folder: copy.deepcopy(codec))
    calls = []
    monkeypatch.setattr(encoder, "compiled", lambda encode: lambda x: calls.append(x) or encode(x))
    states = split.read(0, 0, 4).movedim(1, 0).numpy()
    block = pa.table(
        {
            **{name: pa.array([0], pa.int32()) for name in ("shard", "trajectory", "start")},
            "fault": pa.array([""]),
            "states": tensor_column([states]),
        }
    )

    def encode(gpus):
        config = encoder.CacheConfig(variants=3, gpus=gpus, compile=compile and gpus > 0)
        shards = {0: SimpleNamespace(split=split, members=(0,))}
        return encoder.tensors(encoder.BlockEncoder("folder", shards, config)(block), "latents")

    expected = encode(0.0)
    with PretendedGPU():
        found = encode(1.0)
    assert len(found) == 3
    assert len(calls) == (3 if compile else 0)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
