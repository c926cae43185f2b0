"""Published runs, against numbers from the authors' networks.

`pytest tests/unit/reference/test_reference.py -rP` prints the largest deviation of each array.
"""

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from oracles import ORACLES, read_oracle

from lola.core.errors import DataError
from lola.emulation.sampling_config import SamplerConfig
from lola.models.diffusion import ConditionedDenoiser
from lola.reference import (
    load_autoencoder,
    load_denoiser,
    load_emulator,
    load_neural_solver,
    load_published,
)

TOLERANCE = 5e-6


@pytest.fixture
def agrees(record_property):
    """Asserts that an array is that of an oracle, and records how far it is from it."""

    def check(name, ours, theirs):
        assert ours.shape == theirs.shape
        scale = theirs.abs().max()
        largest, mean = ((ours - theirs).abs().max() / scale).item(), (ours - theirs).norm() / theirs.norm()
        record_property(name, largest)
        print(f"{name:>8}: largest deviation {largest:.1e} of the largest value, {mean:.1e} in the norm")
        assert max(largest, mean) <= TOLERANCE

    return check


@pytest.mark.parametrize("run", ["autoencoder_2d", "autoencoder_3d"])
@torch.no_grad()
def test_autoencoder_agrees(run, agrees):
    model, known = load_autoencoder(ORACLES / run), read_oracle(f"{run}/io.npz")
    agrees("z", model.encode(known["x"]), known["z"])
    agrees("y", model.decode(known["z"]), known["y"])


@torch.no_grad()
def test_neural_solver_agrees(agrees):
    model, known = load_neural_solver(str(ORACLES / "neural_solver")), read_oracle("neural_solver/io.npz")
    agrees("y", model(known["x"], known["mask"], known["label"]), known["y"])


@torch.no_grad()
def test_neural_solver_rollout_agrees(agrees):
    """The authors' rollout of 11 states begins with the solver's estimate of the context itself."""
    emulator, known = load_emulator(ORACLES / "neural_solver"), read_oracle("neural_solver/io.npz")
    assert emulator.autoencoder is None
    context = known["z0"].expand(2, -1, -1, -1, -1)
    label = known["label"][:1].expand(2, -1)
    parts = list(emulator.rollout(context, label, states=10, keys=[(0,), (1,)]))
    agrees("rollout", torch.cat(parts, dim=2), known["rollout"][:, :, 1:])


@torch.no_grad()
def test_denoiser_agrees(agrees):
    denoiser, known = load_denoiser(ORACLES / "diffusion"), read_oracle("diffusion/io.npz")
    for shape in ((3,), (3, 1, 1, 1, 1)):
        t = known["t"].reshape(shape)
        alpha, sigma = denoiser.schedule(t)
        agrees("alpha", alpha, known["alpha"].reshape(shape))
        agrees("sigma", sigma, known["sigma"].reshape(shape))
        q = denoiser(known["x_t"], t, label=known["label"], mask=known["mask"])
        agrees("mean", q.mean, known["mean"])
        agrees("var", q.var, known["var"])


@torch.no_grad()
def test_diffusion_draw_agrees(agrees):
    known = read_oracle("diffusion/io.npz")
    sampler = SamplerConfig(steps=int(known["sample_steps"]))
    emulator = load_emulator(ORACLES / "diffusion", sampler)
    denoiser = ConditionedDenoiser(
        emulator.model.denoiser, known["sample_obs"], known["sample_mask"], known["label"][:2]
    )
    agrees("sample", emulator.sampler.build(denoiser)(known["sample_noise"]), known["sample_out"])


def test_any_run_is_loaded_and_kinds_are_not_confused():
    for run, load in [("autoencoder_2d", load_emulator), ("diffusion", load_autoencoder)]:
        load_published(ORACLES / run)
        with pytest.raises(DataError, match="it is a run of"):
            load(ORACLES / run)


@pytest.mark.parametrize(
    ("run", "section", "option", "value", "message"),
    [
        ("autoencoder_2d", "ae", "wavelets", 3, "wavelets"),
        ("autoencoder_2d", "ae", "arch", "unet", "arch: unet"),
        ("autoencoder_2d", "ae", "norm", "rms", "norm: rms"),
        ("autoencoder_2d", "ae", "saturation", "hard", "saturation"),
        ("autoencoder_2d", "ae", "encoder_only", {"hid_blocks": [1]}, "encoder_only"),
        ("autoencoder_2d", "ae", "attention_heads", {"deep": 2}, "attention_heads"),
        ("autoencoder_2d", "ae", "hid_channels", "many", "channels"),
        ("autoencoder_2d", "ae", "pix_channels", 4, r"encoder\.descent\.0\.0\.weight is \(16, 5, 3, 3\)"),
        ("autoencoder_2d", "ae", "spatial", 3, r"descent\.0\.0\.weight"),
        (
            "autoencoder_2d",
            "ae",
            "lat_channels",
            8,
            r"descent\.2\.2\.weight is \(16, 48, 3, 3\).* gives \(8, 48",
        ),
        ("autoencoder_2d", "ae", "hid_blocks", [1, 1, 1], "surplus|lacks|is"),
        ("autoencoder_2d", "ae", "stride", [2, 2, 2], "stride"),
        ("autoencoder_2d", "ae", "stride", [1, 2], r"descent\.1\.0\.1\.weight"),
        ("autoencoder_2d", "ae", "kernel_size", 2, "--kernel-size must be odd"),
        ("diffusion", "denoiser", "window_size", 7, "window_size: 7"),
        ("diffusion", "denoiser", "masked", False, "masked: False"),
        ("diffusion", "denoiser", "schedule", {"name": "cosine"}, "name: cosine"),
        ("diffusion", "denoiser", "schedule", {"name": ["log_logit"]}, "name: "),
        ("diffusion", "denoiser", "schedule", {"name": "log_logit", 3: 1}, "that we do not know: 3"),
        ("diffusion", "denoiser", "schedule", None, "schedule: None"),
        ("diffusion", "denoiser", "schedule", {"name": "log_linear", "scale": 1}, "scale"),
        ("diffusion", "denoiser", "label_features", 4, r"label_embedding\.0\.weight"),
        ("diffusion", "denoiser", "channels", 15, r"in_proj\.weight"),
        ("diffusion", "trajectory", "length", 0, "length: 0"),
        ("diffusion", "trajectory", "length", 1, "window needs at least 2"),
        ("diffusion", "trajectory", "leaps", 2, "leaps"),
        ("neural_solver", "surrogate", "rope", False, r"surplus backbone\.blocks\.0\.theta"),
        ("neural_solver", "surrogate", "masked", True, "masked"),
        ("neural_solver", "surrogate", "hid_channels", 62, "62"),
    ],
)
def test_what_we_cannot_be_is_refused(tmp_path, run, section, option, value, message):
    folder = copy(run, tmp_path)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config[section][option] = value
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(DataError, match=message) as error:
        load_published(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("run", ["autoencoder_3d", "neural_solver", "diffusion"])
def test_every_tensor_must_be_there_and_no_other(tmp_path, run):
    """Each tensor in turn, constants too: taken out, it is named; so is one that does not belong."""
    folder = copy(run, tmp_path)
    state = torch.load(folder / "state.pth", weights_only=True)
    names = sorted(state)
    for name in (
        *names[:: max(1, len(names) // 6)],
        names[-1],
        *(n for n in names if n.endswith(("eps", "freqs"))),
    ):
        without = {key: tensor for key, tensor in state.items() if key != name}
        torch.save(without, folder / "state.pth")
        with pytest.raises(DataError, match=f"lacks {name}"):
            load_published(folder)
        torch.save(state | {f"{name}.copy": state[name]}, folder / "state.pth")
        with pytest.raises(DataError, match=f"surplus {name}.copy"):
            load_published(folder)
        torch.save(state | {name: state[name][..., None]}, folder / "state.pth")
        with pytest.raises(DataError, match=f"{name} is "):
            load_published(folder)
    constant = next(name for name in names if name.endswith(("eps", "freqs")))
    torch.save(state | {constant: 2 * state[constant]}, folder / "state.pth")
    with pytest.raises(DataError, match=f"{constant} has other values"):
        load_published(folder)


def test_sections_about_training_are_ignored(tmp_path):
    folder = copy("diffusion", tmp_path)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    ignored = ("optim", "server", "train", "valid", "compute", "wandb", "fork", "name", "path", "seed")
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {key: {"any": 1} for key in ignored}))
    assert load_published(folder).window == 5


def test_the_best_weights_are_read_where_there_are_no_last_ones(tmp_path):
    folder = copy("autoencoder_2d", tmp_path)
    last = torch.load(folder / "state.pth", weights_only=True)
    torch.save({name: 2 * t if t.ndim else t for name, t in last.items()}, folder / "state_best.pth")
    weight = load_autoencoder(folder).encoder.levels[0][0].weight
    (folder / "state.pth").unlink()
    assert torch.equal(load_autoencoder(folder).encoder.levels[0][0].weight, 2 * weight)
    (folder / "state_best.pth").unlink()
    with pytest.raises(DataError, match=r"neither state\.pth nor state_best\.pth"):
        load_autoencoder(folder)


def test_corrupt_and_unrecognised_runs_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"config\.yaml cannot be read"):
        load_published(tmp_path)
    folder = copy("neural_solver", tmp_path)
    content = (folder / "state.pth").read_bytes()
    for corrupt in (b"", content[: len(content) // 2], b"junk" * 100):
        (folder / "state.pth").write_bytes(corrupt)
        with pytest.raises(DataError, match="not a complete, plain state dict"):
            load_published(folder)
    torch.save({"weights": Path("/")}, folder / "state.pth")
    with pytest.raises(DataError, match="not a complete, plain state dict"):
        load_published(folder)
    torch.save({"step": 3}, folder / "state.pth")
    with pytest.raises(DataError, match="not a plain state dict of tensors"):
        load_published(folder)
    for text, message in (
        ("optim: {}", "is it a published run"),
        ("a: [", "not YAML"),
        ("- 1", "is it a published run"),
        ("surrogate: 3", "surrogate is 3, not a section"),
    ):
        (folder / "config.yaml").write_text(text)
        torch.save({}, folder / "state.pth")
        with pytest.raises(DataError, match=message):
            load_published(folder)


def copy(run, folder):
    target = folder / run
    shutil.copytree(ORACLES / run, target, copy_function=shutil.copyfile)
    target.chmod(0o755)
    return target
