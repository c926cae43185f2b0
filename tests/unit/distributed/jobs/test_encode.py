import dataclasses
import hashlib
import math
import shutil

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from caches import CONFIG, cache_of, encode_cache
from stages import finish_autoencoder

from lola.core.errors import DataError
from lola.data.augment import draw_variant
from lola.data.description import EULER
from lola.data.latent_shards import verify
from lola.data.latents import LatentSplit
from lola.data.transforms import Standardisation
from lola.data.well.datasets import Datasets
from lola.data.well.splits import open_split
from lola.distributed.jobs import encode as encoding
from lola.distributed.jobs.encode import encode
from lola.emulation.cache_config import CacheConfig
from lola.emulation.emulator import load_autoencoder
from lola.storage.event_log import read_events


def hashes(stage):
    return {
        str(path.relative_to(stage.folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(stage.folder.rglob("*.parquet"))
    }


def manifest_but_times(stage):
    return {key: value for key, value in stage.manifest().items() if key not in ("seconds", "speed")}


@pytest.fixture
def data(tmp_path, well):
    """A copy that may be damaged, with three files for training."""
    root = shutil.copytree(well, tmp_path / "data")
    source = next(root.glob("*openBC/data/train/*.hdf5"))
    shutil.copy(source, source.with_name("a_second.hdf5"))
    return root


def break_data(path):
    """Make values unphysical beyond what a header's fingerprint looks at."""
    with h5py.File(path, "r+") as file:
        file["t0_fields/density"][1, 7, 2] = -3.0


def test_the_cache_holds_what_the_autoencoder_says(tmp_path, well, autoencoder):
    stage = encode_cache(tmp_path, well, autoencoder)
    model = load_autoencoder(autoencoder.folder)
    for name, variants in (("train", 3), ("test", 1)):
        split = open_split(well, EULER, name)
        latents = LatentSplit(stage.folder, name)
        assert len(latents) == variants * len(split.trajectories)
        for row in range(len(latents)):
            index, variant = divmod(row, variants)
            source = split.trajectories[index]
            symmetry = draw_variant(EULER, source.boundary, split.grid, (0, source.id), variant)
            x = Standardisation(EULER).forward(symmetry.apply(split.read(index, 0, split.steps)))
            with torch.no_grad():
                z = model.encode(x.movedim(1, 0)).movedim(0, 1)
            torch.testing.assert_close(latents.read(row, 0, split.steps), z, rtol=1e-4, atol=1e-5)
            parameters = symmetry.parameters(split.parameters(index))
            torch.testing.assert_close(latents.parameters(row), parameters)
    table = pq.read_table(next((stage.folder / "train").glob("*.parquet")))
    assert table["variant"].to_pylist() == [0, 1, 2, 0, 1, 2]


def test_the_manifest_names_what_was_encoded(tmp_path, well, autoencoder):
    stage = encode_cache(tmp_path, well, autoencoder)
    manifest = stage.manifest()
    assert manifest["autoencoder"] == autoencoder.name
    assert manifest["inputs"]["autoencoder"] == autoencoder.fingerprint
    assert {"torch", "pyarrow", "lola"} <= manifest["software"].keys()
    for name, described in manifest["splits"].items():
        assert described["dataset"] == open_split(well, EULER, name).fingerprint
        files = [shard["file"] for shard in described["shards"]]
        assert files == sorted(
            str(path.relative_to(well)).replace("/data/", "/") for path in well.glob(f"*/data/{name}/*")
        )
    assert list(verify(stage.folder)) == []


def test_a_job_that_was_stopped_encodes_what_is_missing_and_ends_the_same(
    tmp_path, data, autoencoder, monkeypatch
):
    whole = encode_cache(tmp_path / "whole", data, autoencoder)
    stage = cache_of(tmp_path / "stopped", data, autoencoder)
    write, written = encoding.write_shard, []

    def stopping(path, trajectories):
        if len(written) == 2:
            (path.parent / f".{path.name}.0123abcd").write_bytes(b"half of a shard")  # as a kill leaves it
            raise KeyboardInterrupt
        write(path, trajectories)
        written.append(path)

    monkeypatch.setattr(encoding, "write_shard", stopping)
    with pytest.raises(KeyboardInterrupt):
        encode(stage, autoencoder.folder, Datasets(data), CONFIG)
    assert not stage.finished
    before = {path: path.stat().st_mtime_ns for path in written}
    monkeypatch.undo()
    encode(stage, autoencoder.folder, Datasets(data), CONFIG)
    assert before == {path: path.stat().st_mtime_ns for path in written}
    assert hashes(stage) == hashes(whole)
    assert manifest_but_times(stage) == manifest_but_times(whole)
    assert not list(stage.folder.rglob(".shard-*"))


def test_what_a_cache_is_of_decides_its_fingerprint(tmp_path, data, autoencoder):
    stage = cache_of(tmp_path, data, autoencoder)
    changes = {
        "dtype": "float16",
        "precision": "bfloat16",
        "variants": 4,
        "seed": 1,
        "symmetries": "full",
        "block": 9,
        "skip_bad_shards": True,
    }
    how = {"actors": 2, "gpus": 1.0, "compile": True}
    assert changes.keys() | how.keys() == {field.name for field in dataclasses.fields(CacheConfig)}
    others = [cache_of(tmp_path, data, autoencoder, CONFIG.replace(**{k: v})) for k, v in changes.items()]
    others.append(cache_of(tmp_path, data, finish_autoencoder(tmp_path, data, seed=1)))
    with h5py.File(next(data.glob("*openBC/data/train/a_second.hdf5")), "r+") as file:
        file["t0_fields/density"][0, 0] += 0.25
    others.append(cache_of(tmp_path, data, autoencoder))
    found = [stage.fingerprint, *(other.fingerprint for other in others)]
    assert len(set(found)) == len(found) == len(changes) + 3
    assert cache_of(tmp_path, data, autoencoder, CONFIG.replace(**how)).fingerprint == found[-1]


def test_a_faulty_file_stops_the_job_and_nothing_is_half_written(tmp_path, data, autoencoder):
    bad = next(data.glob("*openBC/data/train/*gamma*.hdf5"))
    break_data(bad)
    stage = cache_of(tmp_path, data, autoencoder)
    with pytest.raises(DataError, match=rf"{bad.name}.*density holds -3.*--skip-bad-shards"):
        encode(stage, autoencoder.folder, Datasets(data), CONFIG)
    assert not stage.finished
    assert [path.name for path in sorted((stage.folder / "train").iterdir())] == ["shard-00000.parquet"]


@pytest.mark.parametrize(
    ("scale", "dtype", "message"),
    [(math.inf, "float32", "diverged"), (1e8, "float16", "holds .*beyond the largest float16.*as float32")],
)
def test_latents_that_are_not_finite_are_not_stored(
    tmp_path, well, autoencoder, monkeypatch, scale, dtype, message
):
    """Those of an autoencoder that diverged, or too large for the type they are stored in."""

    def scaled(folder):
        model = load_autoencoder(folder)
        encode = model.encode
        model.encode = lambda x: scale * encode(x)
        return model

    monkeypatch.setattr("lola.emulation.encoding.load_autoencoder", scaled)
    with pytest.raises(DataError, match=rf"_gamma_1.4.hdf5#0 .*{message}") as error:
        encode_cache(tmp_path, well, autoencoder, CacheConfig(dtype=dtype))
    assert "\n" not in str(error.value)
    stage = cache_of(tmp_path, well, autoencoder, CacheConfig(dtype=dtype))
    assert not stage.finished
    assert not list(stage.folder.rglob("*.parquet"))


@pytest.mark.parametrize("kind", ["values", "not finite", "header"])
def test_a_faulty_file_may_be_left_out(tmp_path, data, autoencoder, kind):
    bad = next(data.glob("*openBC/data/train/*gamma*.hdf5"))
    if kind == "values":
        break_data(bad)
    elif kind == "not finite":
        with h5py.File(bad, "r+") as file:
            file["t1_fields/momentum"][1, 20, 3, 3] = np.nan
    else:
        bad.write_bytes(bad.read_bytes()[:3000])
    config = CONFIG.replace(skip_bad_shards=True)
    stage = encode_cache(tmp_path, data, autoencoder, config)
    described = stage.manifest()["splits"]["train"]
    (name,) = described["skipped"]
    assert name == f"euler_multi_quadrants_openBC/train/{bad.name}"
    assert bad.name in described["skipped"][name]
    assert [shard["file"].split("/")[2] for shard in described["shards"]] == [
        "a_second.hdf5",
        next(data.glob("*periodicBC/data/train/*.hdf5")).name,
    ]
    split = LatentSplit(stage.folder, "train")
    assert len(split) == 2 * 2 * 3
    assert split.skipped.keys() == {name}
    assert stage.manifest()["splits"]["test"]["skipped"] == {}
    assert list(verify(stage.folder)) == []
    manifest = stage.manifest()
    encoded = 21 * sum(each["trajectories"] for each in manifest["splits"].values())
    assert manifest["seconds"] / manifest["speed"]["seconds_per_state"] == pytest.approx(encoded)
    events = [event for _, event in read_events(stage.folder)]
    (notice,) = [event["text"] for event in events if event["kind"] == "notice"]
    assert notice == f"left out {name}: {described['skipped'][name]}"
    shards = sum(len(each["shards"]) for each in manifest["splits"].values())
    steps = [event["values"]["progress/shards"] for event in events if event["kind"] == "metrics"]
    assert steps == list(range(1, shards + 1))


def test_a_split_without_a_readable_file_is_refused(tmp_path, data, autoencoder):
    for path in data.glob("*/data/valid/*.hdf5"):
        break_data(path)
    config = CONFIG.replace(skip_bad_shards=True)
    stage = cache_of(tmp_path, data, autoencoder, config)
    with pytest.raises(DataError, match="no file of the valid split"):
        encode(stage, autoencoder.folder, Datasets(data), config)
    assert not stage.finished


def test_blocks_divide_a_trajectory_evenly(tmp_path, well, autoencoder, monkeypatch):
    lengths = []
    read = encoding.encoded_blocks

    def counting(*arguments):
        for block in read(*arguments):
            lengths.append(len(block.latents))
            yield block

    monkeypatch.setattr(encoding, "encoded_blocks", counting)
    encode_cache(tmp_path, well, autoencoder, CacheConfig(block=20))
    assert set(lengths) == {11, 10}  # 21 states


@pytest.mark.parametrize("kept", [0, 5000, -1])
def test_a_shard_that_a_power_cut_has_cut_is_encoded_again(tmp_path, well, autoencoder, kept):
    stage = encode_cache(tmp_path, well, autoencoder)
    before, path = hashes(stage), next((stage.folder / "train").glob("*.parquet"))
    path.write_bytes(path.read_bytes()[:kept])
    assert not stage.finished
    with pytest.raises(DataError, match=rf"{path} is missing or corrupt .*manifest.json, and run again"):
        LatentSplit(stage.folder, "train").latents(0)
    encode(stage, autoencoder.folder, Datasets(well), CONFIG)
    assert stage.finished
    assert hashes(stage) == before
    (notice,) = (event["text"] for _, event in read_events(stage.folder) if event["kind"] == "notice")
    assert f"latent shard {path} is corrupt" in notice
    assert notice.endswith("it is encoded again")
