"""Stages on a storage root that is no folder are those of a folder, byte by byte where those are."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from caches import CONFIG, encode_cache
from stages import finish_autoencoder, small_sweep

from lola.core.errors import DataError
from lola.data.description import EULER
from lola.data.latent_shards import verify
from lola.data.latents import LatentSplit
from lola.data.well.datasets import Datasets
from lola.distributed.jobs.compute_statistics import statistics_stage
from lola.distributed.jobs.encode import encode
from lola.emulation.emulator import load_autoencoder
from lola.storage.registry import find_stage
from lola.storage.remote import find_files, find_relative_paths, local_copy, read_bytes
from lola.workflows.plan import SweepPlan


@pytest.fixture
def roots(tmp_path, memory_root):
    return tmp_path / "local", memory_root


def test_an_autoencoder_is_found_and_loaded(roots, well):
    local, remote = (finish_autoencoder(root, well) for root in roots)
    assert local.fingerprint == remote.fingerprint
    for reference in (remote.name, remote.fingerprint[:8], str(remote.folder)):
        assert find_stage(remote.root, reference, "autoencoders") == remote.folder
    expected = load_autoencoder(local.folder).state_dict()
    for name, weight in load_autoencoder(remote.folder).state_dict().items():
        assert torch.equal(weight, expected[name])


def test_a_cache_has_the_same_bytes(roots, well):
    codecs = [finish_autoencoder(root, well) for root in roots]
    local, remote = (encode_cache(root, well, codec) for root, codec in zip(roots, codecs, strict=True))
    names = [name for name in find_relative_paths(remote.folder) if name.endswith(".parquet")]
    assert names == [name for name in find_relative_paths(local.folder) if name.endswith(".parquet")]
    for name in names:
        assert read_bytes(remote.folder / name) == read_bytes(local.folder / name)
    assert remote.manifest()["splits"] == local.manifest()["splits"]
    assert list(verify(remote.folder)) == []
    for split in ("train", "test"):
        own, other = (LatentSplit(stage.folder, split) for stage in (remote, local))
        assert len(own) == len(other)
        assert torch.equal(own.parameters(0), other.parameters(0))
        np.testing.assert_array_equal(own.latents(1), other.latents(1))


def test_a_cache_goes_on_after_the_existing_shards(memory_root, well, monkeypatch):
    codec = finish_autoencoder(memory_root, well)
    stage = encode_cache(memory_root, well, codec)
    shards = [path for path in find_files(stage.folder) if path.suffix == ".parquet"]
    times = {path: path.fs.created(path.path) for path in shards}
    (stage.folder / "manifest.json").unlink()
    shards[0].unlink()
    encode(stage, codec.folder, Datasets(well), CONFIG)
    assert stage.finished
    changed = [path for path in shards if path.fs.created(path.path) != times[path]]
    assert changed == shards[:1]
    shards[0].unlink()
    with pytest.raises(DataError, match=r"missing; remove its stage's folder"):
        LatentSplit(stage.folder, shards[0].parent.name)
    assert len(list(verify(stage.folder))) == 1


def test_an_evaluation_has_the_same_tables(roots, well, tasks):
    tables = []
    for root in roots:
        config = small_sweep()
        evaluation = config.evaluation.replace(starts=(0, 3), trajectories=2)
        plan = SweepPlan(config.replace(evaluation=evaluation), root, well)
        step = plan.evaluations[0].steps[0]
        step.run()
        step.run()  # again, as if the manifest had been lost: nothing is computed
        assert sum(map(len, tasks.calls)) == 4
        tasks.calls.clear()
        tables.append(pq.read_table(local_copy(step.stage.folder / "metrics.parquet")))
    assert tables[0].equals(tables[1])


def test_a_plan_is_the_same_wherever_its_results_go(roots, well):
    plans = [SweepPlan(small_sweep(), root, well) for root in roots]
    assert plans[0].fingerprint == plans[1].fingerprint
    assert [trial.name for trial in plans[0].trials] == [trial.name for trial in plans[1].trials]
    split = Datasets(well).open(EULER, "train")
    stages = [statistics_stage(root, EULER, split.fingerprint) for root in roots]
    assert stages[0].name == stages[1].name
    assert not any(trial.finished for trial in plans[1].trials)
