"""The descriptions of The Well's data sets: their files, what The Well's reader reads of them, and sizes."""

import numpy as np
import pytest
import torch
from well_reader import compare
from wells import LAYOUTS, write_well
from whole import statistics_here

from lola.data.description import BUILT_IN, PAPER, Description, described_systems, get_system
from lola.data.statistics import with_statistics
from lola.data.transforms import Standardisation
from lola.data.well.datasets import Datasets
from lola.data.well.find import find_system
from lola.distributed.jobs import compute_statistics as statistics
from lola.workflows import presets
from lola.workflows.dataset_info import DatasetInfo
from lola.workflows.plan import SweepPlan


def test_every_data_set_of_the_well_is_described():
    utils = pytest.importorskip("the_well.data.utils")
    described = {dataset for name in described_systems() for dataset in get_system(name).datasets}
    assert described >= set(utils.WELL_DATASETS)
    euler = set(get_system("euler").datasets)
    assert set(LAYOUTS) == set(utils.WELL_DATASETS) - euler


@pytest.mark.parametrize("name", LAYOUTS)
def test_descriptions_have_the_fields_of_the_files(name, tmp_path):
    """All of them in the files' order, with their roles; constants, windows and ranges fit too."""
    write_well(tmp_path, name, count=1, steps=LAYOUTS[name].steps[:1])
    inferred = Datasets(tmp_path).infer(name)
    system, _ = find_system(str(tmp_path / name), Datasets("elsewhere"))
    assert system == get_system(name)
    assert system.dimensions == inferred.dimensions
    assert [(f.name, f.order, f.role) for f in system.fields] == [
        (f.name, f.order, f.role) for f in inferred.fields
    ]
    published = system.published
    assert published is not None
    assert published.constants == len(LAYOUTS[name].scalars)
    assert len(published.grid) == system.dimensions
    given = [each for each, _ in LAYOUTS[name].scalars]
    assert set(system.log_parameters) - {"Reynolds"} <= set(given)
    window = 4 * system.stride + 1
    assert system.starts[-1] + window <= min(LAYOUTS[name].steps)
    assert system.ranges[-1][0] < published.steps


@pytest.mark.parametrize("name", LAYOUTS)
def test_data_sets_open_as_the_well_reads_them(name, tmp_path, monkeypatch):
    """Values, axes, constants and boundaries; then statistics, standardised states, symmetries and a plan."""
    folder = write_well(tmp_path, name)
    system, datasets = find_system(str(folder), Datasets("elsewhere"))
    read = compare(tmp_path, name)
    split = datasets.open(system, "train")
    ours, theirs = split.read(1, 2, 5), read.read(1, 2, 5)
    if system.mask is not None:  # what is outside of the domain is filled
        inside = theirs[system.channels.index(system.mask.field)] != system.mask.outside
        assert 0 < inside.float().mean() < 1
        ours, theirs = ours[:, inside], theirs[:, inside]
    assert torch.equal(ours, theirs)
    assert torch.isfinite(split.parameters(0)).all()

    statistics_here(monkeypatch)
    stage = statistics.statistics_stage(tmp_path / "root", system, split.fingerprint)
    statistics.compute_statistics(stage, system, datasets)
    known = with_statistics(system, stage.folder)
    states = split.read(0, 0, split.trajectories[0].steps)
    standardised = Standardisation(known).forward(states)
    assert torch.isfinite(standardised).all()
    assert 0.2 < float(standardised.std()) < 5
    torch.testing.assert_close(Standardisation(known).inverse(standardised), states, rtol=1e-3, atol=1e-4)
    generator = np.random.default_rng(0)
    for _ in range(4):
        symmetry = split.symmetry(0, "full", generator)
        assert torch.isfinite(Standardisation(known).forward(symmetry.apply(states))).all()

    config = presets.smoke(str(folder), storage=str(tmp_path / "root"))
    plan = SweepPlan(config, tmp_path / "root", folder.parent)
    assert plan.system == system
    assert plan.trials
    config.autoencoder.check_grid(split.grid)


def test_the_documentation_lists_every_key_and_every_system():
    text = (BUILT_IN / "README.md").read_text(encoding="utf-8")
    for key in Description.model_fields:
        assert f"`{key}`" in text
    for name in described_systems():
        size = get_system(name).published
        grid = " x ".join(map(str, size.grid))
        assert f"| `{name}` | {grid} | {size.trajectories} x {size.steps} |" in text


@pytest.mark.parametrize("name", sorted(set(LAYOUTS) - set(PAPER)))
def test_published_sizes_are_planned_without_files(name, tmp_path):
    """Those of 256^3 cells too, of which few states fit in memory."""
    system = get_system(name)
    info = DatasetInfo.of_publication(system)
    assert (info.grid, info.steps) == (system.published.grid, system.published.steps)
    config = presets.mini(name, storage=str(tmp_path))
    plan = SweepPlan(config, tmp_path, tmp_path, info)
    rates = [plan.compression(n) for n in config.latent_channels]
    assert 7 <= rates[0] < rates[1] <= 120


def test_few_states_of_a_large_volume_are_held_at_once(tmp_path):
    """A state of MHD_256 takes 0.47 GB: blocks and batches are smaller than at 64^3."""
    small, large = (presets.mini(f"MHD_{n}", storage=str(tmp_path)) for n in (64, 256))
    assert (small.autoencoder_training.order.block, small.autoencoder_training.batch_size) == (16, 16)
    assert (large.autoencoder_training.order.block, large.autoencoder_training.batch_size) == (4, 8)
    assert (small.emulator_training.order.memory, large.emulator_training.order.memory) == (4.0, 7.0)
