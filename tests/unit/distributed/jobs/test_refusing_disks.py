"""Stages on a disk that is full at one write after another, and in the environments of users."""

import errno
import json
import os
import shutil
import stat
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from caches import CONFIG, cache_of
from stages import finish_autoencoder, small_sweep

from lola.core.errors import LolaError
from lola.data import latent_shards
from lola.data.well.datasets import Datasets
from lola.distributed.jobs import evaluate
from lola.distributed.jobs.encode import encode
from lola.storage.stages import remove_temporary_paths
from lola.workflows.plan import SweepPlan


class Full:
    """Lets so many calls that write pass, and none after them."""

    def __init__(self, monkeypatch, left, number=errno.ENOSPC):
        self.left, self.number, self.hit = left, number, False
        for owner, name in (
            (pq, "write_table"),
            (pq.ParquetWriter, "write_table"),
            (np, "save"),
            (Path, "write_text"),
            (Path, "write_bytes"),
            (Path, "mkdir"),
            (os, "fsync"),
            (os, "replace"),
        ):
            monkeypatch.setattr(owner, name, self.guard(getattr(owner, name)))

    def guard(self, genuine):
        def call(*arguments, **options):
            if self.left <= 0:
                self.hit = True
                raise OSError(self.number, os.strerror(self.number))
            self.left -= 1
            return genuine(*arguments, **options)

        return call


def through_full_disks(monkeypatch, number, make, folder):
    """Make a new stage for every number of writes that pass; how many it took."""
    for left in range(1000):
        with monkeypatch.context() as patched:
            full = Full(patched, left, number)
            try:
                make()
            except LolaError as error:
                (line,) = str(error).splitlines()
                assert os.strerror(number) in line
                assert "--storage" in line
            else:
                assert not full.hit
                return left
        assert full.hit
        if (folder / "manifest.json").exists():  # whole: it is only not known whether its name is on the disk
            assert json.loads((folder / "manifest.json").read_text())["files"]
            (folder / "manifest.json").unlink()
        remove_temporary_paths(folder)
        shutil.rmtree(folder / "parts", ignore_errors=True)
    raise AssertionError("never finished")


@pytest.mark.slow
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_an_evaluation_ends_in_one_line_wherever_the_disk_is_full(tmp_path, well, tasks, monkeypatch, number):
    config = small_sweep()
    evaluation = config.evaluation.replace(trajectories=1)
    step = SweepPlan(config.replace(evaluation=evaluation), tmp_path, well).evaluations[0].steps[0]
    once = {}

    def scored(*arguments, **options):  # the same states each time: scoring is not what is tried
        if not once:
            once["result"] = genuine(*arguments, **options)
        return once["result"]

    genuine = evaluate.evaluate_trajectory
    monkeypatch.setattr(evaluate, "evaluate_trajectory", scored)
    assert through_full_disks(monkeypatch, number, step.run, step.stage.folder) > 10
    assert step.stage.finished


@pytest.mark.long
def test_a_cache_ends_in_one_line_wherever_the_disk_is_full(tmp_path, well, monkeypatch):
    autoencoder = finish_autoencoder(tmp_path, well)
    stage = cache_of(tmp_path, well, autoencoder)

    def make():
        encode(stage, autoencoder.folder, Datasets(well), CONFIG)

    assert through_full_disks(monkeypatch, errno.ENOSPC, make, stage.folder) > 10
    assert stage.finished
    assert latent_shards.verify(stage.folder) is not None
    assert list(latent_shards.verify(stage.folder)) == []


ROOTS = ("with blank", "a [x] [red] b", "50%20 %s", "a::b", "*?{}", "ünï-日本", "~tilde", "#a&b=c;d")


@pytest.mark.parametrize("name", ROOTS)
@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_a_root_may_have_any_name(tmp_path, well, tasks, name, mask):
    if mask == 0o077 and name != ROOTS[1]:
        pytest.skip("one name under each umask is enough")
    before = os.umask(mask)
    try:
        root = tmp_path / name
        config = small_sweep()
        evaluation = config.evaluation.replace(trajectories=1)
        plan = SweepPlan(config.replace(evaluation=evaluation), root, well)
        step = plan.evaluations[0].steps[0]
        with step.stage.lease():
            step.run()
    finally:
        os.umask(before)
    assert step.stage.finished
    assert step.stage.folder.parents[1] == root
    assert [path.name for path in tmp_path.iterdir()] == [name]
    for path in step.stage.folder.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o777 if path.is_dir() else 0o666) & ~mask


def test_arrays_tell_a_full_disk_by_its_number(tmp_path):
    array = np.arange(12.0).reshape(3, 4)
    evaluate._write_array(tmp_path / "array.npy", array)
    np.testing.assert_array_equal(np.load(tmp_path / "array.npy"), array)
    with pytest.raises(OSError, match="No space left") as error:
        evaluate._write_array(Path("/dev/full"), array)
    assert error.value.errno == errno.ENOSPC
