"""Whatever a person gets wrong ends in one line that names it, and leaves nothing half-written."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py

ROOT = Path(__file__).parents[2]
SWEEP = ROOT / "experiments" / "sweep_compression.py"
TRAIN = ROOT / "experiments" / "train_autoencoder.py"
STUDY = ROOT / "experiments" / "study_samplers.py"


def run(
    storage: Path | str, *options: str, command: tuple[str | Path, ...] = (SWEEP, "smoke"), **environment: str
) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *map(str, command), *options],
        env={**os.environ, "LOLA_STORAGE": str(storage), **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_an_impossible_option(tmp_path):
    result = run(tmp_path, "--latent-channels", "0")
    assert result.returncode == 2
    (line,) = result.stderr.strip().splitlines()
    assert "--latent-channels must be in [1, 65536], not 0" in line
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_datasets_that_does_not_exist(tmp_path):
    result = run(tmp_path, "--well", "/nowhere/datasets")
    assert result.returncode == 1
    (line,) = result.stderr.strip().splitlines()
    assert "/nowhere/datasets" in line
    assert "--well" in line


def test_storage_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    result = run(tmp_path / "file")
    assert result.returncode == 1
    (line,) = result.stderr.strip().splitlines()
    assert f"cannot use {tmp_path / 'file'} (File exists); give another --storage" in line


def test_a_tracking_server_that_does_not_answer(tmp_path):
    result = run(tmp_path, MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert result.returncode == 1
    line = result.stderr.strip().splitlines()[-1]
    assert "MLflow at http://127.0.0.1:9 does not answer" in line
    assert not list(tmp_path.glob("well-smoke"))


def test_a_truncated_file(tmp_path, well):
    datasets = shutil.copytree(well, tmp_path / "datasets")
    truncated = next(datasets.glob("*/data/valid/*.hdf5"))
    truncated.write_bytes(truncated.read_bytes()[:-1000])
    result = run(tmp_path / "storage", "--well", str(datasets))
    assert result.returncode == 1
    line = result.stderr.strip().splitlines()[-1]
    assert truncated.name in line
    assert "fetch it again" in line or "remove it" in line


def test_a_file_of_another_kind(tmp_path, well):
    datasets = shutil.copytree(well, tmp_path / "datasets")
    unrecognised = next(datasets.glob("*/data/test/*.hdf5"))
    with h5py.File(unrecognised, "w") as file:
        file["numbers"] = [1, 2, 3]
    result = run(tmp_path / "storage", "--well", str(datasets))
    assert result.returncode == 1
    assert str(unrecognised) in result.stderr.strip().splitlines()[-1]


def test_published_data_that_do_not_exist(tmp_path):
    result = run(tmp_path, "--system", "rayleigh_benard", command=(TRAIN, "paper"))
    assert result.returncode == 1
    line = result.stderr.strip().splitlines()[-1]
    assert "has no HDF5 files in rayleigh_benard/data/train" in line


def test_a_plan_needs_no_data_and_leaves_nothing(tmp_path):
    result = run(tmp_path, "--system", "rayleigh_benard", "--plan", command=(TRAIN, "smoke"))
    assert result.returncode == 0, result.stderr
    assert "autoencoder-f8c16" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_sampler_that_does_not_exist(tmp_path):
    result = run(tmp_path, "--samplers", "magic", command=(STUDY, "smoke"))
    assert result.returncode == 2
    (line,) = result.stderr.strip().splitlines()
    assert "no sampler is called 'magic'" in line


def test_a_study_of_models_that_do_not_exist(tmp_path, well):
    result = run(tmp_path, "--well", str(well), command=(STUDY, "smoke"))
    assert result.returncode == 1
    (line,) = result.stderr.strip().splitlines()
    assert f"{tmp_path} has no diffusion model that was trained on the data of {well}" in line
