import json

import numpy as np
import pytest
import torch
from benchmarks.configs import DataBenchmark
from benchmarks.data import data_table, run_data_benchmark
from benchmarks.datasets import copy_to_hdf5, write_latents, write_well
from benchmarks.loader import Slices, plain_batches
from benchmarks.memory import memory_table, stream_epoch, write_memory

from lola.core.errors import ConfigError
from lola.data.description import EULER, TURBULENCE_GRAVITY_COOLING
from lola.data.latents import LatentWindows
from lola.data.transforms import Standardisation
from lola.data.well.splits import open_split
from lola.data.well.windows import WellWindows
from lola.models.neural_solver_config import NeuralSolverConfig
from lola.models.transformer_config import TransformerConfig
from lola.training.config import TrainingConfig
from lola.training.order import OrderConfig

EMULATOR = NeuralSolverConfig(network=TransformerConfig(features=8, blocks=1, heads=1, modulation=8))
CONFIG = DataBenchmark(
    emulator=EMULATOR,
    training=TrainingConfig(steps=4, batch_size=4, report_every=2, valid_samples=4),
    gigabytes=0.002,
    cells=16,
    steps=21,
    batch_size=8,
    rounds=2,
    threads=0,
)


def test_every_part_is_timed_and_survives_json(monkeypatch):
    monkeypatch.setattr("benchmarks.data.LATENTS", {"demo": (21, 4, 4, 4)})
    result = run_data_benchmark(CONFIG, progress=lambda name: None)
    assert json.loads(json.dumps(result)) == result
    assert set(result["fields"]["seconds"]) == {"h5py", "h5py, kept", "long reads", "stream of states"}
    assert len(result["latents demo"]["seconds"]["DataLoader"]) == 2
    (share,) = result["wait"]
    assert 0 <= share < 1
    lines = data_table(result).splitlines()
    assert sum("windows/s" in line for line in lines) == 3


def test_rates_are_given_per_second():
    seconds = {"h5py": [1.0, 1.0], "long reads": [0.5, 0.5]}
    ray = {"blocks": [2e8, 3e8, 1e9], "encoding": {"bare": 800.0, "end to end": 600.0}}
    text = data_table({"fields": {"bytes": 3e9, "seconds": seconds}, "wait": [0.012], "ray": ray})
    assert "| Ray Data | blocks | 0.3 | GB/s | |" in text
    assert "| encoding | a cache's stage | 600 | states/s | 0.75 |" in text
    assert "| fields | long reads | 6 | GB/s | 2.00 |" in text
    assert text.endswith("1.20%.")


@pytest.mark.parametrize("system", [EULER, TURBULENCE_GRAVITY_COOLING])
def test_noise_is_a_dataset_of_the_system(tmp_path, system):
    write_well(tmp_path, system, 0.0, 5, 4, "train")
    split = open_split(tmp_path, system, "train")
    assert (len(split.trajectories), split.steps, split.grid) == (8, 5, (4,) * system.dimensions)
    Standardisation(system).forward(split.read(7, 0, 5))


def test_the_plain_loader_gives_the_same_windows(tmp_path):
    split = write_latents(tmp_path, 9, (8, 2, 3, 3))
    copy_to_hdf5(split, tmp_path / "copy.hdf5")
    slices, windows = Slices(tmp_path / "copy.hdf5", 3, 2), LatentWindows(split, 3, 2)
    assert len(slices) == len(windows) == 9 * 4
    for index in (0, 17, 35):
        for a, b in zip(slices[index], windows.read(index, ()), strict=True):
            assert torch.equal(a, b)
    states, parameters = next(plain_batches(slices, 4, workers=0))
    assert states.shape == (4, 2, 3, 3, 3)
    assert parameters.shape == (4, 5)


@pytest.mark.slow
def test_a_dataset_larger_than_the_memory_streams_through_it(tmp_path):
    write_well(tmp_path, EULER, 0.6, 51, 64, "train")
    windows = WellWindows(open_split(tmp_path, EULER, "train"), Standardisation(EULER), 1)
    dataset = len(windows) * windows.state_bytes
    samples = stream_epoch(windows, OrderConfig(block=8, memory=dataset / 10 / 1e9), batch_size=16)
    held = np.array(samples)[:, 2]
    assert samples[-1][1] >= dataset
    assert held.max() < dataset / 10 + 8 * 16 * windows.state_bytes + 5e7  # what the allocator keeps
    assert abs(held[-20:].mean() - held[-60:-40].mean()) < 0.02 * dataset


def test_memory_is_drawn_and_listed(tmp_path):
    samples = [[0.0, 0.0, 0.0], [1.0, 5e8, 9e7], [2.0, 1e9, 8e7]]
    result = {"allowed": 1e8, "batch": 1e6, "dataset": 1e9, "samples": samples}
    write_memory(result, tmp_path)
    assert (tmp_path / "data-memory.csv").read_text().splitlines()[2] == "1.0,500000000.0,90000000.0"
    assert (tmp_path / "data-memory.png").stat().st_size > 1000
    assert "grew by 0.090 GB at most" in memory_table(result)


def test_windows_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="--window 5 at --stride 4 does not fit into --steps 10"):
        CONFIG.replace(steps=10)
