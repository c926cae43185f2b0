"""The public interface: its examples run, it loads lazily, and its type hints are installed."""

import doctest
import importlib
import importlib.resources
import subprocess
import sys
from pathlib import Path

import h5py
import layouts
import numpy as np
import pytest
import torch
from caches import encode_cache
from runs import write_autoencoder, write_emulator
from setuptools import Distribution
from stages import finish_autoencoder, finish_diffusion
from waves import write_dataset

import lola
from lola.core.errors import ConfigError, StorageError, TrackingError
from lola.emulation.cache_config import CacheConfig
from lola.workflows import api, run

ROOT = Path(__file__).parents[3]
EULER = "euler_multi_quadrants_openBC"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """A folder with datasets, a storage root and a published run, and the stages that examples name."""
    folder = tmp_path_factory.mktemp("api")
    well = write_dataset(folder / "datasets")
    storage = folder / "storage"
    diffusion, autoencoder = finish_diffusion(storage, well), finish_autoencoder(storage, well)
    cache = encode_cache(storage, well, autoencoder, CacheConfig(block=21))
    torch.manual_seed(0)
    write_autoencoder(write_emulator(folder / "published", "denoiser", ae_run="elsewhere") / "autoencoder")
    names = {
        "euler-diffusion-f8c32-0123abcd": diffusion.name,
        "euler-autoencoder-f8c32-0123abcd": autoencoder.name,
        "euler-latents-f8c32-89abcdef": cache.name,
    }
    return folder, names


@pytest.fixture(autouse=True)
def here(folder, monkeypatch) -> Path:
    monkeypatch.chdir(folder[0])
    monkeypatch.setenv("LOLA_STORAGE", str(folder[0] / "storage"))
    return folder[0]


@pytest.mark.parametrize(
    "name", sorted({*lola.__all__} - {"run_sweep"})
)  # test_readme runs that of `run_sweep`
def test_the_example_of_a_docstring_runs(name, folder):
    text = getattr(lola, name).__doc__
    for shown, stage in folder[1].items():
        text = text.replace(shown, stage)
    globs = {"lola": lola, "torch": torch, "h5py": h5py, "np": np}
    test = doctest.DocTestParser().get_doctest(text, globs, name, None, 0)
    assert test.examples
    results = doctest.DocTestRunner().run(test)
    assert not results.failed


def test_run_sweep_runs_a_preset_with_options(monkeypatch):
    seen = []
    monkeypatch.setattr(run, "run_sweep", lambda config: seen.append(config) or Path("report.html"))
    assert lola.run_sweep("smoke", latent_channels=(8, 4), storage="there").name == "report.html"
    assert (seen[0].latent_channels, seen[0].storage, seen[0].well) == ((8, 4), "there", "well-smoke")
    with pytest.raises(
        ConfigError, match="preset must be one of mini, smoke, study, ablations, paper, not 'large'"
    ):
        lola.run_sweep("large")


def test_run_sweep_takes_a_dataset_of_a_folder(monkeypatch, tmp_path):
    layouts.write_layout(tmp_path / "data sets/mine/data/train/a.hdf5", 2, grid=(32, 16), steps=30)
    seen = []
    monkeypatch.setattr(run, "run_sweep", seen.append)
    lola.run_sweep("smoke", "mine", well=str(tmp_path / "data sets"), storage=str(tmp_path))
    assert (seen[0].system, seen[0].well) == ("mine", str(tmp_path / "data sets"))
    assert seen[0].autoencoder.factors(2) == (8, 4)


def test_a_published_run_is_rolled_out_like_a_stage(folder):
    split = lola.open_well("datasets", "euler", "test")
    emulator = lola.load_emulator(folder[0] / "published")
    drawn = lola.rollout(emulator, split.read(0, 0, 1), split.parameters(0), states=2, members=2)
    assert drawn.shape == (2, 5, 2, 16, 16)
    assert drawn.isfinite().all()
    assert lola.load_autoencoder("published/autoencoder").encode(torch.zeros(1, 5, 16, 16)).shape[1] == 3


def test_members_depend_on_seed_and_number_alone(folder):
    split = lola.open_well("datasets", "euler", "test")
    emulator = lola.load_emulator(folder[1]["euler-diffusion-f8c32-0123abcd"])
    known, parameters = split.read(0, 0, 1), split.parameters(0)
    two = lola.rollout(emulator, known, parameters, states=2, members=2)
    three = lola.rollout(emulator, known, parameters, states=2, members=3)
    other = lola.rollout(emulator, known, parameters, states=2, members=1, seed=1)
    torch.testing.assert_close(three[:2], two)
    assert not torch.allclose(two[0], two[1])
    assert not torch.allclose(two[0], other[0])


def test_scores_are_in_closed_form_those_of_a_shifted_truth():
    truth = torch.randn(2, 3, 8, 8)
    members = truth + torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1, 1)
    scores = lola.score(truth, members)
    assert float(scores["skill"].max()) < 1e-6
    torch.testing.assert_close(scores["spread"], torch.full((2, 3), 3**0.5))
    torch.testing.assert_close(lola.score(truth, members[:1])["crps"], torch.ones(2, 3))


@pytest.mark.parametrize("unit", [1e-4, 1, 1e4])
def test_the_best_constant_has_an_error_of_1_in_any_unit(unit):
    truth = unit * torch.randn(1, 1, 8, 8)
    constant = truth.mean((2, 3), keepdim=True).expand_as(truth)
    bessel = (63 / 64) ** 0.5  # The Well's variance
    torch.testing.assert_close(lola.score(truth, constant[None])["vrmse"], torch.full((1, 1), bessel))
    uniform = torch.zeros(1, 1, 8, 8)
    assert float(lola.score(uniform, uniform[None])["vrmse"]) == 0


def test_scores_of_some_cells_do_not_see_the_others():
    truth, valid = torch.randn(2, 3, 8, 8), torch.rand(8, 8) > 0.3
    members = torch.where(valid, truth + 1, 1e9)[None]
    torch.testing.assert_close(lola.score(truth, members, valid)["skill"], torch.ones(2, 3))
    with pytest.raises(ConfigError, match=r"valid must be bool with shape \(8, 8\)"):
        lola.score(truth, members, valid[1:])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda e, x, p: lola.rollout(e, x[None], p, 1),
            ConfigError,
            r"context must have shape \(5, K, \*grid",
        ),
        (lambda e, x, p: lola.rollout(e, x[:4], p, 1), ConfigError, "order energy, density"),
        (lambda e, x, p: lola.rollout(e, x, p, 0), ConfigError, "states and members must be at least 1"),
        (lambda e, x, p: lola.rollout(e, x, p, 1, overlap=5), ConfigError, "overlap must be 1 to 4"),
        (lambda e, x, p: lola.score(x, x), ConfigError, r"must have shapes \(C, L, \*grid\)"),
        (lambda e, x, p: lola.load_emulator("datasets"), StorageError, "manifest"),
        (lambda e, x, p: lola.load_emulator("nothing"), TrackingError, "nothing is no emulator"),
        (lambda e, x, p: lola.load_emulator("nothing", device="gpu"), ConfigError, "--device must be cpu"),
        (lambda e, x, p: lola.open_latents("nothing"), StorageError, "nothing has no manifest"),
        (lambda e, x, p: lola.open_well("~no-such-user/well", "euler"), StorageError, "folder of a user"),
    ],
)
def test_what_cannot_be_is_refused(call, error, message, folder):
    split = lola.open_well("datasets", "euler", "test")
    emulator = lola.load_emulator(folder[1]["euler-diffusion-f8c32-0123abcd"])
    with pytest.raises(error, match=message):
        call(emulator, split.read(0, 0, 1), split.parameters(0))


def test_importing_lola_imports_nothing_that_is_slow():
    script = (
        "import sys, lola; assert {*lola.__all__} <= {*dir(lola)}; "
        "assert not {'torch', 'ray', 'mlflow', 'numpy', 'pyarrow'} & {*sys.modules}; "
        "lola.load_emulator; assert 'torch' in sys.modules and not {'ray', 'mlflow'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
    with pytest.raises(AttributeError, match="module 'lola' has no attribute 'nothing'"):
        lola.nothing  # noqa: B018


def test_every_public_name_has_its_own_line_and_docstring():
    for name in lola.__all__:
        assert getattr(lola, name) is getattr(api, name)
        assert f"\n    {name} " in lola.__doc__
        for part in ("Arguments:", "Raises:", "Example:"):
            assert part in getattr(lola, name).__doc__


def test_type_hints_are_installed(monkeypatch):
    """`py.typed` tells mypy to read the annotations: it belongs to the installed package."""
    assert importlib.resources.files("lola").joinpath("py.typed").is_file()
    monkeypatch.chdir(ROOT)
    distribution = Distribution()
    distribution.parse_config_files()
    build = distribution.get_command_obj("build_py")
    build.ensure_finalized()
    build.manifest_files = {}  # what pyproject.toml names alone
    assert str(ROOT / "lola" / "py.typed") in build.find_data_files("lola", str(ROOT / "lola"))
