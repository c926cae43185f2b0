"""What options must fit is checked before anything is simulated or trained."""

import shutil

import layouts
import pytest

from lola.core.errors import ConfigError, DataError, LolaError, MissingDataError
from lola.data.systems import SPLITS
from lola.emulation.guidance_config import GuidanceConfig
from lola.emulation.observation_config import ObservationConfig
from lola.simulate.euler import EulerConfig
from lola.simulate.simulation import simulation_jobs
from lola.workflows import presets, run
from lola.workflows.base_plan import open_plan
from lola.workflows.dataset_info import DatasetInfo
from lola.workflows.fitting import Windows, fit_training
from lola.workflows.plan import SweepPlan

SMOKE = presets.smoke()
DATA = DatasetInfo.of_simulation(SMOKE.simulation)


def fit(data=DATA, **changes):
    """Fit the smoke sweep to its data, with options changed by their path."""
    config = SMOKE
    for path, value in changes.items():
        *owners, name = path.split("__")
        parts = [config]
        for owner in owners:
            parts.append(getattr(parts[-1], owner))
        value = parts[-1].replace(**{name: value})
        for part, owner in zip(reversed(parts[:-1]), reversed(owners), strict=True):
            value = part.replace(**{owner: value})
        config = value
    config.fit(data)


def test_a_simulation_tells_its_data():
    assert DATA.grid == (32, 32)
    assert (DATA.steps, DATA.parameters) == (41, 5)
    assert DATA.trajectories == {"train": 8, "valid": 4, "test": 4}
    fit()


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_every_split_needs_trajectories(split):
    with pytest.raises(ConfigError, match=f"--simulation.{split} must be at least 1"):
        DatasetInfo.of_simulation(EulerConfig(**{split: 0}))


def test_a_simulation_is_expected_without_what_is_left_out():
    simulation = SMOKE.simulation
    fewer = DatasetInfo.of_simulation(simulation, include=("gamma_1.4",))
    assert fewer.trajectories == {name: count // 2 for name, count in DATA.trajectories.items()}
    assert fewer.files == DATA.files // 2
    one = simulation_jobs(simulation)[-1].path
    without = DatasetInfo.of_simulation(simulation, exclude=(f"train/{one.name}#1",))
    assert without.trajectories == DATA.trajectories | {"train": 7}
    assert without.excluded == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"include": ("gama",)}, "--include gama matches none of the files that will be simulated: euler"),
        ({"exclude": ("nothing#3",)}, "--exclude nothing#3 matches none of the files"),
        ({"exclude": ("gamma",)}, "--include and --exclude leave nothing of the train split"),
    ],
)
def test_what_is_left_out_of_a_simulation_must_exist_and_leave_something(options, message):
    with pytest.raises(ConfigError, match=message):
        DatasetInfo.of_simulation(SMOKE.simulation, **options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window": 12}, "a --window of 12 states at an --evaluation.stride of 4 spans 45 steps"),
        ({"evaluation__stride": 11}, "--evaluation.stride of 11 spans 45 steps; the trajectories have 41"),
        ({"diffusion__strides": (2, 8)}, "--diffusion.strides 2 8 must include 4, the --evaluation.stride"),
        ({"diffusion__strides": (4, 11)}, "states at --diffusion.strides of 11 spans 45 steps"),
        (
            {"evaluation__starts": (0, 37)},
            "from state 37, 4 steps apart; choose a shorter --evaluation.context",
        ),
        ({"evaluation__starts": (30,), "contexts": (3,)}, "--contexts 3: trajectories of 41 states"),
        ({"evaluation__members": 65536, "latent_channels": (4096,)}, "--evaluation.members 65536 take"),
        ({"autoencoder__patch_size": 5}, "a smaller --autoencoder.patch-size"),
        ({"autoencoder__kernel_size": 31, "autoencoder__periodic": True}, "--autoencoder.kernel-size wraps"),
        ({"diffusion__network__patch_size": 3}, "a --diffusion.network.patch-size of 3 does not tile"),
        ({"pixel__network__patch_size": (1, 5, 8)}, "a --pixel.network.patch-size of 5 does not tile"),
        ({"autoencoder_training__order__memory": 1e-9}, "--autoencoder-training.order.memory of 1e-09 GB"),
        ({"emulator_training__order__memory": 1e-9}, "--emulator-training.order.memory of 1e-09 GB"),
        ({"pixel_training__batch_size": 65536}, "a --pixel-training.batch-size of 65536 takes 6.71 GB"),
        (
            {"autoencoder__channels": (65536, 65536)},
            r"--autoencoder has .* parameters on samples of 5 x 1",
        ),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message) as error:
        fit(**changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("observed", "message"),
    [
        ({"factor": 5, "operator": "block_mean"}, "--observed.factor 5: blocks of 5"),
        ({"factor": 64}, "--observed.factor 64 exceeds a grid axis of 32 cells"),
        ({"count": 1025, "operator": "sensors"}, "--observed.count 1025 sensors do not fit on 1024 points"),
        ({"fields": ("heat",)}, "--observed.fields: there is no field heat"),
        ({"every": 11}, "--observed.every 11: none of the 10 states that may be observed"),
        ({"every": 4, "until": 3}, "--observed.every 4: none of the 3 states"),
    ],
)
def test_impossible_observations_are_refused(observed, message):
    config = SMOKE.replace(observed=ObservationConfig(**observed), guidance=GuidanceConfig())
    with pytest.raises(ConfigError, match=message):
        config.fit(DATA)


def test_windows_that_fit_have_an_order():
    windows = Windows(lengths=[10, 10, 10], span=5, state_bytes=100, whole_trajectories=False)
    assert len(windows) == 18
    fit_training(SMOKE.pixel_training, windows, 5)


def test_nothing_is_simulated_for_options_that_do_not_fit(tmp_path, monkeypatch):
    def simulate(*arguments):
        raise AssertionError("simulated")

    monkeypatch.setattr(run, "simulate", simulate)
    config = SMOKE.replace(window=12, storage=str(tmp_path))
    with pytest.raises(ConfigError, match="--window of 12"):
        run.run_sweep(config)
    assert list(tmp_path.iterdir()) == []


def test_resources_are_checked_before_simulating_for_the_chosen_stages_alone(tmp_path, monkeypatch):
    checked = []

    def simulate(simulation, well, log, before):
        before()
        raise LolaError("no solver")

    def check_resources(config, trials):
        checked.extend(step.title for trial in trials for step in trial.steps)

    monkeypatch.setattr(run, "simulate", simulate)
    monkeypatch.setattr(run, "check_resources", check_resources)
    monkeypatch.setattr(run, "Tracker", lambda *arguments: None)
    config = SMOKE.replace(storage=str(tmp_path))
    with pytest.raises(LolaError, match="no solver"):
        run.run_stages(config, "autoencoders", lambda plan: [plan.autoencoder(16)])
    assert checked == ["autoencoder-f8c16"]


def test_files_that_are_faulty_are_not_taken_for_missing_ones(tmp_path, well):
    folder = shutil.copytree(well, tmp_path / "well")
    next(folder.rglob("train/*.hdf5")).write_bytes(b"")
    config = SMOKE.replace(simulation=None, well=str(folder))
    with pytest.raises(DataError):
        open_plan(SweepPlan, config, tmp_path, folder)
    assert not open_plan(SweepPlan, config.replace(well="well"), tmp_path, tmp_path / "nothing").data.exists


def test_published_sizes_do_not_stand_for_a_folder_that_was_named(tmp_path):
    config = presets.paper("euler")
    assert open_plan(SweepPlan, config, tmp_path, tmp_path / config.well).data.origin.startswith("The Well's")
    with pytest.raises(MissingDataError, match="a plan without --well takes sizes of published data"):
        open_plan(SweepPlan, config.replace(well="typo"), tmp_path, tmp_path / "typo")


def test_a_plan_of_data_without_a_split_says_which_is_missing(tmp_path):
    for split in ("train", "test"):
        layouts.write_layout(tmp_path / "mine" / "gs" / "data" / split / "a.hdf5", 2)
    config = SMOKE.replace(system=str(tmp_path / "mine" / "gs"), well="well", simulation=None)
    message = (
        r"mine has no HDF5 files in gs/data/valid \(.*\); a dataset needs the splits train, valid and test"
    )
    with pytest.raises(MissingDataError, match=message) as error:
        open_plan(SweepPlan, config, tmp_path, tmp_path / "well")
    assert "--simulate" not in str(error.value)
    with pytest.raises(
        ConfigError, match=r"--simulate: nothing simulates .*/gs here; leave it out, and name"
    ):
        open_plan(SweepPlan, config.replace(simulate=True), tmp_path, tmp_path / "well")


def test_a_geometry_that_coordinates_do_not_have_is_found_before_training(tmp_path):
    folder = tmp_path / "mine" / "gs"
    for split in SPLITS:
        layouts.write_layout(folder / "data" / split / "a.hdf5", 2, grid=(16, 16), steps=20)
    (folder / "system.yaml").write_text("fields: {density: {}}\ngeometry: {x: chebyshev}\n")
    config = presets.smoke(str(folder)).replace(pixel=None)
    with pytest.raises(
        DataError, match=r"the grid of gs has no quadrature weights .* correct the key geometry"
    ):
        SweepPlan(config, tmp_path, tmp_path / "well")
    published = config.evaluation.replace(geometry="published")
    SweepPlan(config.replace(evaluation=published), tmp_path, tmp_path / "well")
