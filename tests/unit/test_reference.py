"""Published runs, against numbers from the authors' networks (in the folder that LOLA_ORACLES names)."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from lola.autoencoder import Autoencoder
from lola.diffusion import Diffusion
from lola.emulation import Emulator
from lola.errors import ConfigError, DataError
from lola.neural_solver import NeuralSolver, NeuralSolverConfig
from lola.reference import load_published
from lola.sampling import SamplerConfig
from lola.transformer import TransformerConfig

ORACLES = os.environ.get("LOLA_ORACLES")
oracle = pytest.mark.skipif(ORACLES is None, reason="LOLA_ORACLES names no folder of oracles")


def numbers(run):
    with np.load(Path(ORACLES) / run / "io.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


def assert_agrees(ours, theirs, tolerance=5e-6):
    assert ours.shape == theirs.shape
    assert (ours - theirs).norm() <= tolerance * theirs.norm()


@oracle
@pytest.mark.parametrize("run", ["autoencoder_2d", "autoencoder_3d"])
@torch.no_grad()
def test_autoencoder_agrees(run):
    model, known = load_published(Path(ORACLES) / run), numbers(run)
    assert isinstance(model, Autoencoder)
    assert_agrees(model.encode(known["x"]), known["z"])
    assert_agrees(model.decode(known["z"]), known["y"])


@oracle
@torch.no_grad()
def test_neural_solver_agrees():
    model, known = load_published(Path(ORACLES) / "neural_solver"), numbers("neural_solver")
    assert isinstance(model, NeuralSolver)
    assert_agrees(model(known["x"], known["mask"], known["label"]), known["y"])


@oracle
@torch.no_grad()
def test_neural_solver_rollout_agrees():
    """The authors' rollout of 11 states begins with the solver's estimate of the context itself."""
    model, known = load_published(Path(ORACLES) / "neural_solver"), numbers("neural_solver")
    context = known["z0"].expand(2, -1, -1, -1, -1)
    label = known["label"][:1].expand(2, -1)
    parts = list(Emulator(model=model).rollout(context, label, states=10, keys=[(0,), (1,)]))
    assert_agrees(torch.cat(parts, dim=2), known["rollout"][:, :, 1:])


@oracle
@torch.no_grad()
def test_diffusion_agrees():
    model, known = load_published(Path(ORACLES) / "diffusion"), numbers("diffusion")
    assert isinstance(model, Diffusion)
    denoiser = model.denoiser
    alpha, sigma = denoiser.schedule(known["t"])
    assert_agrees(alpha, known["alpha"].flatten())
    assert_agrees(sigma, known["sigma"].flatten())
    q = denoiser(known["x_t"], known["t"], label=known["label"], mask=known["mask"])
    assert_agrees(q.mean, known["mean"])
    assert_agrees(q.var, known["var"])


@oracle
@torch.no_grad()
def test_diffusion_draw_agrees():
    model, known = load_published(Path(ORACLES) / "diffusion"), numbers("diffusion")
    conditioned = model.denoiser.condition(known["sample_obs"], known["sample_mask"], known["label"][:2])
    sampler = SamplerConfig(steps=int(known["sample_steps"])).build(conditioned)
    assert_agrees(sampler(known["sample_noise"]), known["sample_out"])


@oracle
@pytest.mark.parametrize(
    ("run", "section", "option", "value", "message"),
    [
        ("autoencoder_2d", "ae", "wavelets", 3, "wavelets"),
        ("autoencoder_2d", "ae", "arch", "unet", "arch: unet"),
        ("autoencoder_2d", "ae", "stride", [1, 2], "equal sizes"),
        ("autoencoder_2d", "ae", "lat_channels", 8, "not \\(8, 48, 3, 3\\)"),
        ("autoencoder_2d", "ae", "hid_blocks", [1, 1, 1], "surplus|lacks"),
        ("diffusion", "denoiser", "window_size", 7, "window_size: 7"),
        ("diffusion", "denoiser", "masked", False, "masked: False"),
        ("diffusion", "denoiser", "schedule", {"name": "cosine"}, "name: cosine"),
        ("neural_solver", "surrogate", "rope", False, "theta"),
    ],
)
def test_what_we_cannot_be_is_refused(tmp_path, run, section, option, value, message):
    folder = copy(run, tmp_path)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config[section][option] = value
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises((DataError, ConfigError), match=message):
        load_published(folder)


@oracle
def test_torn_and_foreign_runs_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"config\.yaml is missing"):
        load_published(tmp_path)
    folder = copy("neural_solver", tmp_path)
    whole = (folder / "state.pth").read_bytes()
    (folder / "state.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="not a whole, plain state dict"):
        load_published(folder)
    torch.save({"weights": Path("/")}, folder / "state.pth")
    with pytest.raises(DataError, match="not a whole, plain state dict"):
        load_published(folder)
    (folder / "config.yaml").write_text("optim: {}")
    torch.save({}, folder / "state.pth")
    with pytest.raises(DataError, match="is it a published run"):
        load_published(folder)


def test_pixel_space_patches_and_absent_parameters(tmp_path):
    """A run written under the authors' names from a network of ours comes back as that network."""
    torch.manual_seed(0)
    transformer = TransformerConfig(features=16, blocks=1, heads=2, modulation=8, patch_size=(1, 2, 4))
    model = NeuralSolverConfig(network=transformer).build(3, 0, 2, window=4).eval()
    names = {
        "network.project_in.": "backbone.in_proj.",
        "network.project_out.": "backbone.out_proj.",
        "network.position.": "backbone.positional_embedding.2.",
        "network.blocks.0.": "backbone.blocks.0.",
        ".attention.qkv.": ".msa.qkv_proj.",
        ".attention.out.": ".msa.y_proj.",
        ".feedforward.": ".ffn.",
        ".abcd": ".ada_zero",
    }
    state = {}
    for name, tensor in model.state_dict().items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        state[name] = tensor
    torch.save(state, tmp_path / "state.pth")
    section = {"arch": "vit", "hid_channels": 16, "hid_blocks": 1, "attention_heads": 2, "emb_features": 8}
    config = {"surrogate": {**section, "patch_size": [1, 2, 4]}, "trajectory": {"length": 4}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    again = load_published(tmp_path)
    assert again.window == 4
    x, mask = torch.randn(2, 3, 4, 4, 8), torch.ones(2, 1, 4, 1, 1, dtype=torch.bool)
    with torch.no_grad():
        assert torch.equal(again(x, mask, torch.zeros(2, 0)), model(x, mask, torch.zeros(2, 0)))


def copy(run, folder):
    target = folder / run
    shutil.copytree(Path(ORACLES) / run, target, copy_function=shutil.copyfile)
    target.chmod(0o755)
    return target
