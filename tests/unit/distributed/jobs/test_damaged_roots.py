"""Every file of a finished and of a half-finished storage root, emptied and cut in turn.

The files are those that are found, so that new kinds of files are tried too. A next start must end with what
it would have ended with, reporting what it made again; and readers of a stage must see the same values, or
one line that names the file and the remedy.
"""

import logging
import shutil

import numpy as np
import pytest
from damaged import KEPT, KINDS, Root, below_ray, digest, interrupt, messages, start

from lola.core.errors import LolaError
from lola.data import hdf5
from lola.data.description import EULER
from lola.data.latent_shards import verify
from lola.data.latents import LatentSplit
from lola.data.statistics import with_statistics
from lola.distributed.trials import complete_event_log
from lola.emulation.emulator import load_autoencoder, load_emulator
from lola.evaluation.tables.stored import read_array, read_table
from lola.storage.event_log import EventLog, last_status, read_events
from lola.storage.stages import read_manifest
from lola.workflows.plan import SweepPlan

pytestmark = pytest.mark.filterwarnings("ignore:The `:DeprecationWarning")  # Ray's own
HALF = ("autoencoders", "latents", "evaluations")
UNTOLD = ("events.jsonl", "error.txt")  # what is lost of these changes no result


@pytest.fixture(scope="module")
def finished(tmp_path_factory, well):
    """A finished root, with the digests of its stages."""
    folder = tmp_path_factory.mktemp("finished")
    with below_ray():
        root = Root(folder / "root", shutil.copytree(well, folder / "well"))
        root.make_all()
        yield root, {kind: digest(root.steps[kind].stage) for kind in KINDS}


@pytest.fixture
def each_damage(tmp_path, caplog):
    """Yields every file of a stage's folder, damaged, and puts the folder right after each."""

    def damages(folder, files):
        whole = shutil.copytree(folder, tmp_path / "whole")
        for name in files:
            for kept in KEPT:
                contents = (whole / name).read_bytes()
                damaged = contents[: int(kept * len(contents))]
                if damaged == contents:
                    continue
                shutil.rmtree(folder)
                shutil.copytree(whole, folder)
                (folder / name).write_bytes(damaged)
                caplog.clear()
                yield name, damaged
        shutil.rmtree(folder)
        shutil.move(whole, folder)

    return damages


def is_reported(path, text):
    """Whether a text names a file, or a folder that it is in below that of its stage."""
    return str(path) in text or (path.parent.name.startswith("step-") and str(path.parent) in text)


def check_starts(root, expected, kind, each_damage, caplog):
    """Damage a stage's files in turn and start again; returns how many there were."""
    step, count = root.steps[kind], 0
    folder = step.stage.folder
    for name, damaged in each_damage(folder, root.files(kind)):
        with caplog.at_level(logging.WARNING):
            start(step)
        assert step.stage.finished, name
        assert digest(step.stage) == expected, name
        path, count = folder / name, count + 1
        again = not path.exists() or path.read_bytes() != damaged
        if again and name.name not in UNTOLD and not any(part.startswith(".") for part in name.parts):
            assert is_reported(path, messages(step.stage, caplog.records)), name
        complete_event_log(step)
        kinds = [event["kind"] for _, event in read_events(folder)]
        assert "describe" in kinds, name
        assert last_status(folder) == "FINISHED", name
        EventLog(folder).notice("a later event")
        assert [event.get("text") for _, event in read_events(folder)][-1:] == ["a later event"], name
    return count


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_finished_stage_with_a_damaged_file_ends_the_same(finished, kind, each_damage, caplog):
    root, expected = finished
    assert check_starts(root, expected[kind], kind, each_damage, caplog) >= 4


@pytest.mark.slow
@pytest.mark.parametrize("kind", HALF)
def test_a_half_finished_stage_with_a_damaged_file_ends_the_same(finished, kind, each_damage, caplog):
    root, expected = finished
    interrupt(root.steps[kind])
    assert check_starts(root, expected[kind], kind, each_damage, caplog) >= 6
    start(root.steps[kind])


def values_of(kind, folder):
    """Everything that is read of a finished stage, as lists."""
    if kind == "statistics":
        system = with_statistics(EULER, folder)
        return [system.mean, system.std]
    if kind in ("autoencoders", "emulators"):
        models = (
            [load_autoencoder(folder, weights) for weights in ("raw", "ema")]
            if kind == "autoencoders"
            else [load_emulator(folder).model]
        )
        return [value.tolist() for model in models for value in model.state_dict().values()]
    if kind == "latents":
        splits = [LatentSplit(folder, name) for name in ("train", "valid", "test")]
        return [
            (split.latents(i).tolist(), split.parameters(i).tolist(), split.describe(i))
            for split in splits
            for i in range(len(split))
        ]
    rows = read_manifest(folder)["rows"]
    arrays = [np.array(read_array(folder / name)).tolist() for name in ("example.npy", "moments.npy")]
    tables = [read_table(folder / f"{name}.parquet").to_pydict() for name in ("metrics", "spectra")]
    return [rows, *arrays, *map(repr, tables)]


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_a_damaged_file_that_is_read_is_named_with_the_remedy(finished, kind, each_damage):
    root, _ = finished
    folder, refused = root.steps[kind].stage.folder, set()
    expected = values_of(kind, folder)
    for name, _ in each_damage(folder, root.files(kind)):
        try:
            found = values_of(kind, folder)
        except LolaError as error:
            (line,) = str(error).splitlines()
            assert str(folder / name) in line
            assert "run" in line
            refused.add(name.name)
        else:
            assert found == expected, name
        if kind == "latents" and name.suffix == ".parquet":
            assert any(str(folder / name) in fault for fault in verify(folder))
    assert "manifest.json" in refused
    assert len(refused) >= {"statistics": 1, "emulators": 2}.get(kind, 3)


def test_a_damaged_simulation_is_named_with_the_remedy(finished):
    root, _ = finished
    files = sorted(path for path in root.well.rglob("*") if path.is_file())
    assert len(files) == 6
    for path in files:
        contents = path.read_bytes()
        for kept in KEPT:
            hdf5._keep_open.cache_clear()
            path.write_bytes(contents[: int(kept * len(contents))])
            with pytest.raises(LolaError) as caught:
                SweepPlan(root.plan.config, root.root, root.well)
            (line,) = str(caught.value).splitlines()
            assert str(path) in line
            assert "again" in line
        path.write_bytes(contents)
