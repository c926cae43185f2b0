import math

import layouts
import pytest
from readme import parse_options

import lola
from lola.core.errors import LolaError
from lola.data.systems import Field, System
from lola.workflows import presets, run
from lola.workflows.dataset_info import DatasetInfo
from lola.workflows.sizing import RATES, DataSizes


def sizes(grid, channels=4, steps=100):
    fields = tuple(Field(f"field{number}") for number in range(channels))
    return DataSizes(System("mine", ("mine",), len(grid), fields), grid, steps)


@pytest.mark.parametrize(
    ("grid", "factors"),
    [
        ((64, 64), 16),
        ((128, 384), 32),
        ((512, 128), 32),
        ((256, 256), 32),
        ((64, 64, 64), 8),
        ((192, 128, 66), (8, 8, 6)),  # The Well's post_neutron_star_merger
        ((48, 80), 8),
        ((100, 60), (20, 12)),
        ((100, 64), (20, 16)),
        ((65, 65), 13),
        ((130, 64), (13, 16)),
        ((1024,), 16),
    ],
)
def test_default_networks_fit_usual_grids(grid, factors):
    data = sizes(grid)
    factors = (factors,) * len(grid) if isinstance(factors, int) else factors
    assert data.factors == factors
    codec = data.autoencoder(64, 96, 128)
    assert codec.factors(len(grid)) == factors
    codec.check_grid(grid)
    channels = data.latent_channels()
    assert channels[-1] >= 1
    most = 4 * math.prod(factors)  # what a single latent channel compresses by
    for wanted, number in zip(RATES, channels, strict=False):
        rate = codec.replace(latent_channels=number).compression(4, len(grid))
        assert min(most, wanted) / 1.5 < rate < 1.5 * wanted


def test_the_demo_has_the_sizes_that_the_rules_give():
    """Euler's 32 x 32 cells and 5 channels."""
    config, data = presets.mini(), sizes((32, 32), channels=5)
    assert data.latent_channels() == config.latent_channels
    assert data.autoencoder(32, 64, 96) == config.autoencoder.replace(latent_channels=64)
    assert data.pixel_solver(config.neural_solver) == config.pixel


@pytest.mark.parametrize("preset", [presets.mini, presets.smoke])
def test_presets_of_a_folder_fit_its_data(tmp_path, preset):
    folder = tmp_path / "mine"
    for split in ("train", "valid", "test"):
        layouts.write_layout(folder / "data" / split / "a.hdf5", 2, grid=(32, 16), steps=30)
    config = preset(str(folder), storage=str(tmp_path / "storage"))
    assert config.simulation is None
    data = DataSizes.find(str(folder), "well", str(tmp_path / "storage"))
    trajectories = {"train": 3, "valid": 3, "test": 3}
    info = DatasetInfo(
        system=data.system, origin="", grid=data.grid, steps=30, parameters=5, trajectories=trajectories
    )
    config.fit(info)


def test_a_grid_that_no_factor_divides_is_refused_with_what_would(tmp_path):
    folder = tmp_path / "mine"
    for split in ("train", "valid", "test"):
        layouts.write_layout(folder / "data" / split / "a.hdf5", 2, grid=(31, 16), steps=30)
    config = presets.smoke(str(folder), storage=str(tmp_path / "storage"))
    info = DatasetInfo(
        system=DataSizes.find(str(folder), "well", str(tmp_path)).system,
        origin="",
        grid=(31, 16),
        steps=30,
        parameters=5,
        trajectories={"train": 3, "valid": 3, "test": 3},
    )
    with pytest.raises(LolaError, match="grid of 31 x 16; crop or pad the data, to 32 x 16"):
        config.fit(info)


@pytest.fixture
def mixed(tmp_path):
    """A folder whose first file is of another grid than the second."""
    for split in ("train", "valid", "test"):
        folder = tmp_path / "mine" / "data" / split
        layouts.write_layout(folder / "a.hdf5", 2, grid=(32, 16), steps=30)
        layouts.write_layout(folder / "b.hdf5", 2, grid=(128, 64), steps=50)
    return tmp_path


@pytest.mark.parametrize(
    "option",
    [
        {"include": ("b",)},
        {"exclude": ("a.hdf5",)},
        {"exclude": tuple(f"a#{i}" for i in range(layouts.COUNT))},
    ],
)
def test_sizes_are_those_of_the_files_in_use(mixed, option, monkeypatch):
    place = str(mixed / "mine"), "well", str(mixed)
    assert DataSizes.find(*place).grid == (32, 16)
    data = DataSizes.find(*place, **option)
    assert (data.grid, data.steps) == ((128, 64), 50)
    config = presets.mini(*place, **option)
    assert config.autoencoder == data.autoencoder(64, 96, 128) != presets.mini(*place).autoencoder
    ((name, values),) = option.items()
    arguments = ["--system", place[0], "--storage", place[2], f"--{name}", *values]
    for program in ("sweep_compression.py", "train_autoencoder.py", "guide.py", "plan.py"):
        with monkeypatch.context() as patch:
            parsed = parse_options(program, ["mini", *arguments], patch)
        assert parsed.autoencoder == config.autoencoder
    with monkeypatch.context() as patch:
        patch.setattr(run, "run_sweep", lambda config: config)
        assert lola.run_sweep("mini", place[0], storage=place[2], **option).autoencoder == config.autoencoder


def test_sizes_of_no_trajectory_are_refused(mixed):
    every = tuple(f"{name}#{i}" for name in "ab" for i in range(layouts.COUNT))
    with pytest.raises(LolaError, match="leaves out all trajectories"):
        DataSizes.find(str(mixed / "mine"), "well", str(mixed), exclude=every)
    with pytest.raises(LolaError, match=r"--include c matches no file .*; the nearest are .*a.hdf5"):
        DataSizes.find(str(mixed / "mine"), "well", str(mixed), include=("c",))


def test_sizes_are_those_of_a_file_that_can_be_read(tmp_path):
    """The others are named when the training set is opened."""
    folder = tmp_path / "mine" / "data" / "train"
    layouts.write_layout(folder / "b.hdf5", 2, grid=(32, 16), steps=30)
    (folder / "a.hdf5").write_text("not data")
    data = DataSizes.find(str(tmp_path / "mine"), "well", str(tmp_path))
    assert (data.grid, data.steps) == ((32, 16), 30)


@pytest.mark.parametrize(
    ("grid", "windows"), [((32, 32), 32), ((64, 64), 32), ((128, 128), 16), ((512, 512), 16), ((256,), 32)]
)
def test_batches_of_many_tokens_have_few_windows(grid, windows):
    """32 windows of 16 latent cells; never fewer than 16."""
    data, training = sizes(grid, channels=5), presets.mini().pixel_training
    assert data.windows(training).batch_size == windows
    assert data.windows(training.replace(batch_size=4)).batch_size == 4
