import runpy
import shutil
import sys

import pytest
from mlflow import MlflowClient
from stages import ROOT, finish_autoencoder

from lola.core.config import flatten
from lola.core.errors import ConfigError, DataError, TrackingError
from lola.data.well.datasets import Datasets
from lola.emulation.cache_config import CacheConfig
from lola.emulation.emulator import trained_system
from lola.storage.event_log import EventLog
from lola.storage.registry import find_stage
from lola.storage.tracking import Tracker
from lola.workflows import latent_cache
from lola.workflows.latent_cache import plan_cache, verify_cache
from lola.workflows.plan import SweepPlan

CONFIG = CacheConfig(block=8)


@pytest.fixture(autouse=True)
def no_server(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_a_sweep_has_the_same_stage(tmp_path, well, autoencoder, sweep):
    cache = plan_cache(tmp_path, Datasets(well), autoencoder.name, CONFIG)
    plan = SweepPlan(sweep.replace(cache=CONFIG), tmp_path, well)
    assert cache.stage.fingerprint == plan.cache(16).fingerprint
    assert cache.stage.folder == plan.cache(16).folder
    (step,) = [
        step for trial in plan.trials for step in trial.steps if step.stage.folder == cache.stage.folder
    ]
    assert (step.tags, step.total, step.reads) == (cache.tags, cache.total, cache.reads)


def test_one_of_two_datasets_is_all_that_later_commands_read(tmp_path, well, sweep):
    """A folder of Euler's names half of what the name `euler` stands for."""
    folder = well / "euler_multi_quadrants_openBC"
    plan = SweepPlan(sweep.replace(cache=CONFIG, system=str(folder), simulation=None), tmp_path, well)
    (run,) = [step.run.args[0] for step in plan.steps if step.stage.folder == plan.autoencoder(16).folder]
    finish_autoencoder(tmp_path, well, system=str(folder), **run.details)
    assert trained_system(plan.autoencoder(16).folder).datasets == (folder.name,)
    cache = plan_cache(tmp_path, Datasets(well), plan.autoencoder(16).name, CONFIG)
    assert cache.stage.fingerprint == plan.cache(16).fingerprint


def test_a_cache_that_differs_in_its_block_alone_is_taken(tmp_path, well, autoencoder):
    def planned(**options):
        config = CacheConfig(**options)
        return plan_cache(tmp_path, Datasets(well), autoencoder.name, config, "block" not in options).stage

    known = planned(block=8)
    assert planned().config.block == CacheConfig().block != 8
    EventLog(known.folder).describe(name="latents", tags={}, parameters=flatten(known.config.to_json()))
    assert planned().folder == known.folder  # begun
    assert planned(dtype="float16").config.block == CacheConfig().block
    finished = planned(block=9)
    EventLog(finished.folder).describe(name="latents", tags={}, parameters=flatten(finished.config.to_json()))
    finished.commit()
    assert planned().folder == finished.folder
    assert planned(block=25).config.block == 25


def test_an_autoencoder_is_found_by_folder_name_and_fingerprint(tmp_path, autoencoder):
    references = (str(autoencoder.folder), autoencoder.name, autoencoder.fingerprint)
    for reference in (*references, autoencoder.fingerprint[:8]):
        assert find_stage(tmp_path, reference, "autoencoders") == autoencoder.folder
    with pytest.raises(TrackingError, match="unknown"):
        find_stage(tmp_path, "unknown", "autoencoders")


@pytest.mark.filterwarnings("ignore")
def test_a_registered_autoencoder_becomes_a_stage(tmp_path, autoencoder):
    tracker = Tracker(tmp_path, "euler")
    tracker.start_sweep("sweep", "f" * 64, {})
    tracker.follow(autoencoder.folder, autoencoder.fingerprint)
    event_log = EventLog(autoencoder.folder)
    event_log.describe(name="autoencoder", tags={}, parameters={})
    event_log.model(autoencoder.folder / "model.safetensors", "euler-autoencoder-f8c16")
    tracker.finish_sweep(None, "FINISHED")
    weights = (autoencoder.folder / "model.safetensors").read_bytes()
    shutil.rmtree(autoencoder.folder)
    assert find_stage(tmp_path, "euler-autoencoder-f8c16", "autoencoders") == autoencoder.folder
    assert autoencoder.finished
    assert (autoencoder.folder / "model.safetensors").read_bytes() == weights


def test_an_emulator_cannot_encode(tmp_path, autoencoder):
    emulator = tmp_path / "emulators" / "euler-diffusion"
    emulator.mkdir(parents=True)
    manifest = (autoencoder.folder / "manifest.json").read_text()
    (emulator / "manifest.json").write_text(manifest.replace('"autoencoders"', '"emulators"'))
    with pytest.raises(DataError, match="not an autoencoder"):
        find_stage(tmp_path, str(emulator), "autoencoders")


@pytest.mark.parametrize(
    "change", [{"block": 0}, {"variants": 0}, {"actors": 0}, {"gpus": -1.0}, {"compile": True}]
)
def test_impossible_options_are_refused(change):
    with pytest.raises(ConfigError):
        CONFIG.replace(**change)


@pytest.mark.filterwarnings("ignore")
def test_the_command_makes_verifies_and_repairs_a_cache(tmp_path, well, autoencoder, monkeypatch, capsys):
    def command(*options):
        storage = ("--storage", str(tmp_path), "--well", str(well))
        monkeypatch.setattr(
            sys, "argv", ["cache_latents.py", autoencoder.fingerprint[:8], *storage, *options]
        )
        runpy.run_path(str(ROOT / "experiments" / "cache_latents.py"), run_name="__main__")
        return capsys.readouterr().out

    block = ("--block", "8")  # not the default: a cache is checked whatever its options
    with pytest.raises(SystemExit) as end:
        command("--verify")
    assert "has no finished latent cache" in str(end.value.code)
    assert f"cache: {plan_cache(tmp_path, Datasets(well), autoencoder.name, CONFIG).stage.folder}" in command(
        *block
    )
    assert "all row groups match their checksums" in command("--verify")
    (path,) = tmp_path.glob("latents/*/valid/shard-00001.parquet")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(SystemExit) as end:
        command("--verify")
    assert "error: faults of" in str(end.value.code)  # a text: the exit code is 1
    assert f"{path}: row group" in capsys.readouterr().out
    path.unlink()
    (path.parents[1] / "manifest.json").unlink()
    command(*block)
    verify_cache(path.parents[1])

    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("lola/euler").experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"] * 2
    (run,) = [run for run in runs if run.data.tags["lola.stage"] == "latents"]
    (read,) = run.inputs.dataset_inputs
    assert read.dataset.name == "euler"
    assert (
        plan_cache(tmp_path, Datasets(well), autoencoder.name, CONFIG)
        .stage.inputs["dataset"]
        .startswith(read.dataset.digest)
    )
    assert read.tags[0].value == "encoding"
    assert run.data.tags["lola.progress/shards"] == "6"
    assert not [name for name in run.data.metrics if name.startswith("progress/")]


def test_the_grid_must_fit(tmp_path, well, autoencoder, monkeypatch):
    manifest = (autoencoder.folder / "manifest.json").read_text()
    (autoencoder.folder / "manifest.json").write_text(manifest.replace('"patch_size": 4', '"patch_size": 32'))
    with pytest.raises(ConfigError, match="16"):
        plan_cache(tmp_path, Datasets(well), autoencoder.name, CONFIG)


def test_a_dataset_is_named_as_in_a_sweep(tmp_path, well, autoencoder, monkeypatch):
    """`--system` of a folder, whose parent is `--well` then."""
    program = runpy.run_path(str(ROOT / "experiments" / "cache_latents.py"))
    found = []

    def stop(root, datasets, *_):
        found.append(datasets.root)
        raise DataError("enough")

    monkeypatch.setattr(latent_cache, "plan_cache", stop)
    folder = next(well.iterdir())
    config = program["LatentCache"](autoencoder="a", storage=str(tmp_path), system=str(folder))
    with pytest.raises(DataError, match="enough"):
        program["main"](config)
    assert found == [well]
