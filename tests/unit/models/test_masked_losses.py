"""Losses over the cells of a domain, against sums that are written out."""

import dataclasses

import pytest
import torch

from lola.core.seeding import SampleGenerator
from lola.data.state import Batch
from lola.models.autoencoder import LOSSES
from lola.models.autoencoder_config import AutoencoderConfig
from lola.models.diffusion_config import DiffusionConfig
from lola.models.masks import unknown_mean, valid_mean
from lola.models.neural_solver_config import NeuralSolverConfig
from lola.models.transformer_config import TransformerConfig

TRANSFORMER = TransformerConfig(features=16, blocks=1, heads=2, modulation=16, dropout=0.0, patch_size=1)


def batch(size=3, length=1, seed=0):
    torch.manual_seed(seed)
    valid = torch.rand(size, 1, 1, 4, 4) > 0.4
    return Batch(states=torch.randn(size, 2, length, 4, 4), parameters=torch.zeros(size, 1), valid=valid)


def keys(size=3):
    return SampleGenerator([(0, i) for i in range(size)])


def test_means_are_of_valid_cells():
    error = torch.tensor([[[1.0, 2.0, 50.0], [3.0, 4.0, 60.0]], [[8.0, 70.0, 80.0], [10.0, 90.0, 99.0]]])
    valid = torch.tensor([[[True, True, False]], [[True, False, False]]])
    assert valid_mean(error, valid) == pytest.approx((2.5 + 9) / 2)
    mask = torch.tensor([[[True, False, False]], [[False, False, True]]])
    assert unknown_mean(error, mask, valid) == pytest.approx(((2 + 4) / 2 + 9) / 2)
    assert torch.equal(valid_mean(error, None), error.mean())


@pytest.mark.parametrize("name", ["vrmse", "mse", "mae"])
def test_objectives_of_autoencoders_are_those_of_the_valid_cells(name):
    x, y = batch().states[:, :, 0], batch(seed=1).states[:, :, 0]
    valid = batch().valid[:, 0]
    alone = [
        LOSSES[name](x[i : i + 1, :, valid[i, 0]], y[i : i + 1, :, valid[i, 0]], None) for i in range(len(x))
    ]
    torch.testing.assert_close(LOSSES[name](x, y, valid), torch.stack(alone).mean())
    everywhere = torch.ones_like(valid)
    torch.testing.assert_close(LOSSES[name](x, y, everywhere), LOSSES[name](x, y, None))


@pytest.mark.parametrize("kind", ["autoencoder", "diffusion", "neural_solver"])
def test_targets_outside_of_the_domain_do_not_matter(kind, monkeypatch):
    """With networks that see nothing, what a model is compared with outside changes no loss or diagnostic."""
    torch.manual_seed(0)
    length = 1 if kind == "autoencoder" else 3
    config = {
        "autoencoder": AutoencoderConfig(latent_channels=2, channels=(4, 4), blocks=(1, 1), patch_size=1),
        "diffusion": DiffusionConfig(network=TRANSFORMER),
        "neural_solver": NeuralSolverConfig(network=TRANSFORMER),
    }[kind]
    model = config.build(2, 2) if kind == "autoencoder" else config.build(2, 1, 2, length)
    blind = {"autoencoder": "decode", "diffusion": "denoiser", "neural_solver": "forward"}[kind]
    if kind == "diffusion":
        network = model.denoiser.backbone
        monkeypatch.setattr(network, "forward", lambda x, *_: torch.zeros_like(x))
        # The denoiser's own skip connection sees the states, so that each element's error is its own
    elif kind == "autoencoder":
        monkeypatch.setattr(model, blind, lambda z: torch.zeros(len(z), 2, 4, 4))
    else:
        monkeypatch.setattr(model, blind, lambda x, *_: torch.zeros_like(x))
    whole = batch(length=length)
    spoilt = torch.where(whole.valid, whole.states, 1e4)
    other = dataclasses.replace(whole, states=spoilt)
    (loss, diagnostics), (again, others) = (model.loss(each, keys()) for each in (whole, other))
    assert loss.isfinite()
    assert torch.equal(loss, again)
    assert all(torch.equal(others[name], value) for name, value in diagnostics.items())
    unmasked = model.loss(dataclasses.replace(other, valid=None), keys())[0]
    assert unmasked > 1.2 * loss


@pytest.mark.parametrize("kind", ["autoencoder", "neural_solver"])
def test_a_batch_is_the_mean_of_its_samples(kind):
    torch.manual_seed(0)
    if kind == "autoencoder":
        model = AutoencoderConfig(latent_channels=2, channels=(4, 4), blocks=(1, 1), patch_size=1).build(2, 2)
    else:
        model = NeuralSolverConfig(network=TRANSFORMER).build(2, 1, 2, 3)
    model.eval()
    whole = batch(length=2 if kind == "autoencoder" else 3)
    loss, _ = model.loss(whole, keys())
    parts = [model.loss(whole.rows(i, i + 1), SampleGenerator([(0, i)]))[0] for i in range(3)]
    torch.testing.assert_close(loss, torch.stack(parts).mean())
