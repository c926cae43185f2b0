"""Statistics of a training set, by Ray, and a model that is standardised by them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import fsspec
import h5py
import numpy as np
import pytest
import torch
import yaml
from objectstore import serve

from lola.data.description import EULER
from lola.data.well.splits import open_split
from lola.emulation.emulator import load_emulator

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def run(storage, program, *options, **environment):
    return subprocess.run(
        [sys.executable, str(ROOT / "experiments" / program), *options],
        env={**os.environ, "LOLA_STORAGE": str(storage), **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )


def printed(output):
    """The statistics that a command prints, without the lines before that say what it waits for and finds."""
    return output[output.index("\nmean:") :]


@pytest.mark.long
def test_statistics_by_name_of_a_system(tmp_path, well):
    first, again = (run(tmp_path, "compute_statistics.py", "euler", "--well", str(well)) for _ in range(2))
    assert first.returncode == again.returncode == 0, first.stderr + again.stderr
    assert printed(first.stdout) == printed(again.stdout)
    (path,) = tmp_path.glob("statistics/euler-statistics-*/stats.yaml")
    statistics = yaml.safe_load(path.read_text())
    split = open_split(well, EULER, "train")
    x = np.stack([split.read(i, 0, split.steps).double().numpy() for i in range(len(split.trajectories))])
    for values, expected in (
        (statistics, x),
        (statistics["transformed"], np.concatenate([np.log1p(x[:, :3]), x[:, 3:]], axis=1)),
    ):
        for channel, name in enumerate(("energy", "density", "pressure")):
            assert values["mean"][name] == pytest.approx(expected[:, channel].mean(), abs=1e-12)
            assert values["std"][name] == pytest.approx(expected[:, channel].std(), rel=1e-12)
            assert values["min"][name] == expected[:, channel].min()
        np.testing.assert_allclose(values["std"]["momentum"], expected[:, 3:].std((0, 2, 3, 4)))


@pytest.mark.long
def test_workers_read_a_bucket(tmp_path, well, monkeypatch):
    """The same bytes in a bucket are the same dataset; what opens the bucket is recorded nowhere."""
    local = run(tmp_path, "compute_statistics.py", "euler", "--well", str(well))
    with serve() as address:
        environment = {
            "AWS_ACCESS_KEY_ID": "anybody",
            "AWS_SECRET_ACCESS_KEY": "a-secret-that-nobody-may-see",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": address,
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        system = fsspec.filesystem("s3", skip_instance_cache=True)
        system.mkdir("simulations")
        for path in well.rglob("*.hdf5"):
            system.put(str(path), f"simulations/{path.relative_to(well)}")
        options = ("euler", "--well", "s3://simulations")
        remote = run(tmp_path / "remote", "compute_statistics.py", *options, **environment)
    assert remote.returncode == 0, remote.stderr
    assert printed(remote.stdout).replace(str(tmp_path / "remote"), str(tmp_path)) == printed(local.stdout)
    written = [path for path in (tmp_path / "remote").rglob("*") if path.is_file()]
    assert len(written) >= 2
    assert not any(b"a-secret" in path.read_bytes() for path in written)


def test_a_dataset_that_does_not_exist_is_one_line(tmp_path, well):
    result = run(tmp_path, "compute_statistics.py", "shear_flow", "--well", str(well))
    assert result.returncode == 1
    (line,) = result.stderr.strip().splitlines()
    assert "has no HDF5 files in shear_flow/data/train" in line


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (-3, "density has values where its transform log1p is undefined in state 5"),
        pytest.param(np.nan, "density is missing (nan", marks=pytest.mark.long),
    ],
)
def test_unphysical_values_are_one_line(tmp_path, well, value, fault):
    """Whether the task that reads fails, or the one that takes moments."""
    datasets = shutil.copytree(well, tmp_path / "datasets")
    path = next(datasets.glob("*/data/train/*.hdf5"))
    with h5py.File(path, "r+") as file:
        file["t0_fields/density"][1, 5, 2, 2] = value
    result = run(tmp_path / "storage", "compute_statistics.py", "euler", "--well", str(datasets))
    assert result.returncode == 1
    line = result.stderr.strip().splitlines()[-1]
    assert line.startswith("compute_statistics.py: error: ")
    assert f"{path.name}#1" in line
    assert fault in line
    assert not list((tmp_path / "storage").glob("statistics/*/manifest.json"))


@pytest.mark.long
def test_an_emulator_is_standardised_by_computed_statistics(tmp_path, well):
    options = ("smoke", "--space", "pixel", "--model", "neural-solver", "--statistics", "computed")
    result = run(
        tmp_path,
        "train_emulator.py",
        *options,
        "--pixel.network.patch-size",
        "1",
        "4",
        "4",
        "--well",
        str(well),
    )
    assert result.returncode == 0, result.stderr
    (statistics,) = tmp_path.glob("statistics/euler-statistics-*")
    (folder,) = tmp_path.glob("emulators/euler-neural_solver-pixel-*")
    manifest = json.loads((statistics / "manifest.json").read_text())
    assert (
        json.loads((folder / "manifest.json").read_text())["inputs"]["statistics"] == manifest["fingerprint"]
    )
    standardise = load_emulator(folder).standardisation
    split = open_split(well, EULER, "train")
    x = torch.cat([split.read(i, 0, split.steps) for i in range(len(split.trajectories))], dim=1)
    hat = standardise.forward(x).flatten(1)
    torch.testing.assert_close(hat.mean(1), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(hat.std(1), torch.ones(5), atol=1e-3, rtol=0)
