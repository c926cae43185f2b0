"""Everything in a storage root except finished stages is listed."""

import json

import pytest

from lola.storage.inventory import unknown_files


def write(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def root(tmp_path):
    stages = {
        "statistics/a": ["stats.yaml"],
        "autoencoders/a": ["model.safetensors", "model_ema.safetensors"],
        "latents/a": ["train/shard-00000.parquet"],
        "evaluations/a": ["metrics.parquet", "spectra.parquet", "example.npy", "moments.npy"],
        "reports/a": ["report.html"],
    }
    for name, files in stages.items():
        write(tmp_path / name / "manifest.json", json.dumps({"files": dict.fromkeys(files, 0)}))
        for file in ["events.jsonl", ".lease", *files]:
            write(tmp_path / name / file)
    write(tmp_path / "evaluations" / "a" / "parts" / "00003-0000" / "seconds")
    write(tmp_path / "reports" / "a" / "accuracy.png")
    write(tmp_path / "mlflow" / "artifacts" / "anything")
    write(tmp_path / "well" / "euler" / "stats.yaml")
    write(tmp_path / "well" / "euler" / "data" / "train" / "gamma_1.4.hdf5")
    write(tmp_path / "well-smoke" / ".lease")
    write(tmp_path / "well-smoke" / "euler" / "data" / "test" / "gamma_1.4.hdf5")
    write(tmp_path / "mine" / "here" / "gray_scott" / "data" / "test" / "run.h5")
    write(tmp_path / "shear_flow" / "data" / "test" / "run.hdf5")
    return tmp_path


def test_finished_stages_and_datasets_account_for_their_files(root):
    assert unknown_files(root) == []


@pytest.mark.parametrize(
    "name",
    [
        "autoencoders/a/checkpoints/step-00000010/model.safetensors",
        "autoencoders/a/.model.safetensors.0123abcd",
        "autoencoders/a/optimizer.pt",
        "latents/a/train/shard-00001.parquet",
        "latents/a/train/.shard-00000.parquet.0123abcd",
        "evaluations/a/parts/.00003-0000.0123abcd/seconds",
        "emulators/unfinished/model.safetensors",
        "evaluations/a/moments-2.npy",
        "reports/.tune-01234567/state.json",
        "well/euler/data/train/.gamma_1.4.hdf5.0123abcd",
        "notes.txt",
        "well-smoke/notes.txt",
        "mine/here/notes.txt",
    ],
)
def test_leftovers_are_listed(root, name):
    path = write(root / name)
    assert unknown_files(root) == [path]


def test_a_stage_without_a_manifest_accounts_for_nothing(root):
    (root / "evaluations" / "a" / "manifest.json").unlink()
    assert len(unknown_files(root)) == 7
