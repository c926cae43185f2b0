"""Published networks that no oracle stands for, against plain ones of the same weights."""

import pytest
import torch
from plain import Autoencoder, State, TransformerAutoencoder, denoise, neural_solver, scales, write_run

from lola.core.errors import DataError
from lola.reference import load_autoencoder, load_denoiser, load_neural_solver

SMALL = {"arch": "dcae", "lat_channels": 3, "hid_channels": [4, 8], "hid_blocks": [1, 2]}
VIT = {"arch": "vit", "emb_features": 8, "hid_channels": 12, "hid_blocks": 2, "attention_heads": 2}
UNET = {"arch": "unet", "emb_features": 8, "hid_channels": [6, 8], "hid_blocks": [1, 2]}
LOGIT = {"name": "log_logit", "sigma_min": 1e-3, "sigma_max": 1e3, "scale": 1.0, "shift": 0.0}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def assert_agrees(ours, theirs):
    assert ours.shape == theirs.shape
    assert (ours - theirs).norm() <= 1e-5 * theirs.norm()


@pytest.mark.parametrize("grid", [(8, 12), (4, 8, 12)], ids=["2d", "3d"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pixel_shuffle": False},
        {"periodic": True},
        {"periodic": True, "pixel_shuffle": False},
        {"attention_heads": {1: 2}},
        {"attention_heads": {"0": 4, "1": 1}, "periodic": True, "ffn_factor": 2},
        {"patch_size": 2, "hid_channels": [4], "hid_blocks": [1]},
        {"norm": "group", "hid_channels": [4, 32]},
        {"dropout": 0.1, "kernel_size": 5, "ffn_factor": 3, "identity_init": False},
        {"dropout": None, "stride": 4, "hid_blocks": [0, 1], "loss": {"losses": ["mse"]}},
        *({"saturation": name} for name in ("softclip", "tanh", "arcsinh", "rmsnorm", None)),
    ],
    ids=str,
)
@torch.no_grad()
def test_autoencoders(tmp_path, options, grid):
    section = SMALL | options
    heads = {int(level): number for level, number in section.get("attention_heads", {}).items()}
    theirs = Autoencoder(section | {"attention_heads": heads}, channels=2)
    x = torch.randn(2, 2, *grid)
    z = theirs.encode(x)
    y = theirs.decode(z)
    ours = load_autoencoder(write_run(tmp_path, {"ae": section}, theirs.P))
    assert_agrees(ours.encode(x), z)
    assert_agrees(ours.decode(z), y)


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": [5, 3], "stride": [1, 4], "patch_size": [2, 1]},
        {"stride": [2, 3], "pixel_shuffle": False, "periodic": True},
    ],
    ids=str,
)
@torch.no_grad()
def test_autoencoders_with_sizes_per_axis(tmp_path, options):
    theirs, x = Autoencoder(SMALL | options, channels=2), torch.randn(2, 2, 8, 12)
    z = theirs.encode(x)
    y = theirs.decode(z)
    ours = load_autoencoder(write_run(tmp_path, {"ae": SMALL | options}, theirs.P))
    assert_agrees(ours.encode(x), z)
    assert_agrees(ours.decode(z), y)


@pytest.mark.parametrize("grid", [(8, 12), (4, 8, 12)], ids=["2d", "3d"])
@pytest.mark.parametrize("options", [{}, {"saturation": None, "rope": False}, {"qk_norm": False}], ids=str)
@torch.no_grad()
def test_transformer_autoencoders(tmp_path, options, grid):
    section = {"arch": "vit", "lat_channels": 3, "hid_channels": 12, "hid_blocks": 2, "attention_heads": 2}
    section |= {"patch_size": 4, **options}
    theirs, x = TransformerAutoencoder(section, channels=2), torch.randn(2, 2, *grid)
    z = theirs.encode(x)
    y = theirs.decode(z)
    ours = load_autoencoder(write_run(tmp_path, {"ae": section}, theirs.P))
    assert_agrees(ours.encode(x), z)
    assert_agrees(ours.decode(z), y)


EMULATORS = [
    (VIT, (5, 4, 6), 3),
    (VIT, (5, 2, 3, 4), 3),
    (VIT | {"patch_size": [1, 2, 3]}, (5, 4, 6), 3),
    (VIT | {"patch_size": 2}, (4, 4, 6), 1),
    (VIT | {"patch_size": [2, 1, 2, 2], "ffn_factor": 2}, (4, 2, 4, 4), 0),
    (VIT | {"rope": False, "qk_norm": False, "dropout": None}, (3, 4, 4), 0),
    (VIT | {"arch": "vit", "attention_heads": 3, "hid_blocks": 1}, (2, 6), 2),
    (UNET, (5, 4, 6), 3),
    (UNET | {"stride": [1, 2, 2], "kernel_size": [1, 3, 3], "norm": "group"}, (5, 4, 6), 0),
    (UNET | {"attention_heads": {1: 2}, "ffn_factor": 2}, (4, 4, 4), 2),
    (UNET | {"hid_channels": [6], "hid_blocks": [1]}, (3, 8), 0),
]


@pytest.mark.parametrize(("section", "shape", "parameters"), EMULATORS, ids=str)
@torch.no_grad()
def test_neural_solvers(tmp_path, section, shape, parameters):
    P, x = State(), torch.randn(2, 3, *shape)
    mask = torch.rand(2, 1, *shape[:1], *[1] * (len(shape) - 1)) < 0.5
    label = torch.randn(2, parameters) if parameters else None
    y = neural_solver(P, section, x, mask, label)
    config = {"surrogate": section, "trajectory": {"length": shape[0], "stride": 1}}
    ours = load_neural_solver(write_run(tmp_path, config, P))
    assert ours.window == shape[0]
    assert_agrees(ours(x, mask, torch.zeros(2, 0) if label is None else label), y)


@pytest.mark.parametrize(
    "schedule",
    [
        LOGIT,
        LOGIT | {"scale": 0.7, "shift": 0.3, "sigma_max": 80.0},
        {"name": "log_linear", "sigma_min": 1e-2, "sigma_max": 1e2},
    ],
    ids=str,
)
@pytest.mark.parametrize(("section", "shape", "parameters"), EMULATORS[::3], ids=str)
@torch.no_grad()
def test_denoisers(tmp_path, schedule, section, shape, parameters):
    section = section | {"masked": True, "schedule": schedule}
    P, x_t, t = State(), 3 * torch.randn(2, 3, *shape), torch.tensor([0.2, 0.9])
    mask = torch.rand(2, 3, *shape) < 0.5
    label = torch.randn(2, parameters) if parameters else None
    mean, var = denoise(P, section, x_t, t, mask, label)
    ours = load_denoiser(write_run(tmp_path, {"denoiser": section, "trajectory": {"length": shape[0]}}, P))
    given = torch.zeros(2, 0) if label is None else label
    for times in (t, t.reshape(2, 1), t.reshape(2, *[1] * (x_t.ndim - 1))):
        q = ours(x_t, times, label=given, mask=mask)
        assert_agrees(q.mean, mean)
        assert_agrees(q.var.expand_as(mean), var.expand_as(mean))
    q = ours(x_t, t[1], label=given, mask=mask)
    assert_agrees(q.mean[1], mean[1])
    for times in (t, t[0], t.reshape(1, 2, 1)):
        for scale, expected in zip(ours.schedule(times), scales(schedule, times), strict=True):
            torch.testing.assert_close(scale, expected, rtol=1e-5, atol=0)


def test_the_names_of_another_attention_of_theirs(tmp_path):
    section = SMALL | {"attention_heads": {1: 2}}
    theirs = Autoencoder(section, channels=2)
    x = torch.randn(1, 2, 4, 4)
    z = theirs.encode(x)
    theirs.decode(z)
    for name in [name for name in theirs.P if ".attn." in name]:
        renamed = name.replace("in_proj_", "qkv_proj.").replace("out_proj", "y_proj")
        theirs.P[renamed] = theirs.P.pop(name)
    assert_agrees(load_autoencoder(write_run(tmp_path, {"ae": section}, theirs.P)).encode(x), z)


def test_a_wrapped_unet_is_refused(tmp_path):
    P = State()
    neural_solver(P, UNET, torch.randn(1, 3, 5, 4, 6), torch.ones(1, 1, 5, 1, 1, dtype=torch.bool), None)
    with pytest.raises(DataError, match="periodic: True"):
        load_neural_solver(write_run(tmp_path, {"surrogate": UNET | {"periodic": True}}, P))
