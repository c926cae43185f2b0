"""A sweep's forecast: its figures follow from sizes, and measured times count."""

import pytest

from lola.core.cli import parse
from lola.core.errors import ConfigError
from lola.data.description import RAYLEIGH_BENARD
from lola.emulation.guidance_config import GuidanceConfig
from lola.emulation.observation_config import ObservationConfig
from lola.storage.stages import well_folder
from lola.training.hardware import Hardware
from lola.workflows import presets
from lola.workflows.base_plan import open_plan
from lola.workflows.dataset_info import DatasetInfo
from lola.workflows.forecast import estimates
from lola.workflows.forecast.cluster import ClusterConfig
from lola.workflows.forecast.estimates import forecast
from lola.workflows.forecast.overheads import EVALUATION_S, TRAINING_S, simulation_seconds
from lola.workflows.forecast.show import show_sweep
from lola.workflows.plan import SweepPlan

CPUS = ClusterConfig(gpus=0, cpus=2, cpu_price=0.5)


def price(config, root, cluster=CPUS, cores=2):
    """The forecast of a sweep, whether or not its data exist."""
    return forecast(open_plan(SweepPlan, config, root, well_folder(root, config.well)), cluster, cores)


@pytest.fixture(scope="module")
def paper():
    """The paper's sweep of Rayleigh-Bénard convection on 16 H100s, in pixel space with two layers only."""
    config = presets.paper("rayleigh_benard")
    network = config.pixel.network.replace(blocks=2)
    return config.replace(latent_channels=(64, 4), pixel=config.pixel.replace(network=network))


@pytest.fixture(scope="module")
def expected(paper, tmp_path_factory):
    root = tmp_path_factory.mktemp("storage")
    return price(paper, root, ClusterConfig(gpus=16, gpu_price=2.0), cores=8)


@pytest.fixture
def steady(monkeypatch):
    """A processor whose speed is not measured again by every forecast."""
    monkeypatch.setattr(
        estimates, "processor", lambda cores: Hardware(float32=5e10 * cores, bfloat16=5e10 * cores)
    )


def local(config, well):
    """A sweep on the tests' data."""
    pixel = config.pixel.replace(network=config.pixel.network.replace(patch_size=4))
    simulation = config.simulation.replace(resolution=16)
    return config.replace(pixel=pixel, well=str(well), simulation=simulation)


def test_data_that_do_not_exist_have_the_same_stages(tmp_path, well):
    """Of all options, and each after those that it needs."""
    config = local(presets.smoke(), well)
    averaged = config.replace(
        emulator_training=config.emulator_training.replace(ema=0.9), contexts=(2, 3), statistics="computed"
    )
    missing = averaged.replace(well="nothing", simulate=True)
    here, expected = price(averaged, tmp_path), price(missing, tmp_path)
    assert [stage.name for stage in here.stages] == [stage.name for stage in expected.stages]
    known = set()
    for stage in expected.stages:
        assert set(stage.needs) <= known
        known.add(stage.name)
    plan = open_plan(SweepPlan, missing, tmp_path, tmp_path / "nothing")
    assert not plan.data.exists
    assert plan.data == DatasetInfo.of_simulation(missing.simulation)
    kept = {step.stage.fingerprint for step in SweepPlan(averaged, tmp_path, well).steps}
    assert kept.isdisjoint(step.stage.fingerprint for step in plan.steps)


def test_sizes_are_those_of_the_published_ensemble(expected):
    stages = {stage.name: stage for stage in expected.stages}
    states = (1400 * 4 + 175 + 175) * 200  # with four variants of what is trained on
    assert stages["latents-f32c4"].stored == states * 4 * 16 * 4 * 4
    assert stages["latents-f32c64"].stored == 16 * stages["latents-f32c4"].stored
    assert stages["latents-f32c4"].read == 1750 * 200 * 4 * 512 * 128 * 4
    assert stages["autoencoder-f32c4"].read == 1024 * 256 * 64 * 4 * 512 * 128 * 4
    assert stages["diffusion-f32c4"].read == pytest.approx(stages["latents-f32c4"].stored * 5600 / 5950)
    trained = stages["autoencoder-f32c4"]
    assert trained.hours("gpu") == pytest.approx(8 * trained.seconds / 3600)
    assert DatasetInfo.of_publication(RAYLEIGH_BENARD).bytes("test") == 175 * 200 * 4 * 512 * 128 * 4


def test_wall_time_lies_between_the_work_and_the_longest_chain(expected):
    work = 3600 * expected.hours("gpu")
    assert expected.cost == pytest.approx(2.0 * work / 3600)
    assert max(work / 16, expected.critical_seconds) <= expected.wall() < work
    assert expected.critical_seconds < expected.wall(32) < expected.wall()
    assert expected.wall(10_000) == pytest.approx(expected.critical_seconds, rel=0.05)
    stages = {each.name: each for each in expected.stages}
    chain = ("autoencoder-f32c64", "latents-f32c64", "diffusion-f32c64", "evaluation diffusion-f32c64-s16")
    assert expected.critical_seconds == pytest.approx(sum(stages[name].seconds for name in chain), rel=0.05)
    with pytest.raises(ConfigError, match="neural_solver-pixel needs 16 gpu, but the cluster has 8"):
        expected.wall(8)


def test_a_storage_that_is_too_small_is_refused_in_one_line(expected):
    expected.require_storage(expected.storage_bytes)
    with pytest.raises(ConfigError, match=r"this plan needs [\d.]+ GB of storage .* and 1 GB are free; give"):
        expected.require_storage(1e9)


def test_a_sweep_for_gpus_needs_some(paper, tmp_path):
    with pytest.raises(ConfigError, match=r"takes 1 GPU, and the cluster has none; plan .* --cluster\.gpus"):
        price(paper, tmp_path)


def commit(stage, **content):
    stage.folder.mkdir(parents=True)
    stage.commit(**content)


def test_what_is_finished_costs_nothing_and_tells_the_speed_of_what_is_alike(tmp_path, well):
    config = local(presets.smoke(), well)
    whole = SweepPlan(config, tmp_path, well)
    before = {stage.name: stage for stage in price(config, tmp_path).stages}
    assert {stage.source for stage in before.values()} == {"peak"}
    stage = whole.emulator(whole.planned("diffusion", 16))
    model = {"type": "DiffusionConfig", **config.diffusion.to_json()}
    sizes = {"channels": 16, "parameters": 5, "spatial": 2, "window": 5}
    speed = {"seconds_per_step": 3.0, "workers": 1, "device": "cpu"}
    commit(stage, model=model, sizes=sizes, speed=speed)
    commit(whole.evaluation(whole.planned("diffusion", 16), solver_steps=2), seconds_per_state=0.5)
    longer = config.replace(emulator_training=config.emulator_training.replace(steps=70))
    found = {stage.name: stage for stage in price(longer, tmp_path).stages}
    assert found["diffusion-f8c16"].source == "measured"
    assert found["diffusion-f8c16"].seconds == 210 + TRAINING_S
    assert found["neural_solver-f8c16"].source == "peak"
    scored = found["evaluation diffusion-f8c16-s2"]
    assert (scored.source, scored.seconds, scored.parts) == ("measured", EVALUATION_S + 0.5 * 2 * 5, 2)
    again = {stage.name: stage for stage in price(config, tmp_path).stages}
    assert (again["diffusion-f8c16"].source, again["diffusion-f8c16"].seconds) == ("finished", 0)
    for other in (
        config.emulator_training.replace(batch_size=8),
        config.emulator_training.replace(workers=2),
    ):
        different = price(config.replace(emulator_training=other), tmp_path)
        assert {stage.source for stage in different.stages if stage.name == "diffusion-f8c16"} <= {
            "peak",
            "finished",
        }


@pytest.mark.parametrize(("gpus", "source"), [(1.0, "peak"), (0.25, "measured")])
def test_a_speed_is_of_as_much_of_a_gpu(tmp_path, well, gpus, source):
    config = local(presets.smoke(), well)
    quarter = config.replace(emulator_training=config.emulator_training.replace(gpus=0.25))
    whole = SweepPlan(quarter, tmp_path, well)
    model = {"type": "DiffusionConfig", **config.diffusion.to_json()}
    sizes = {"channels": 16, "parameters": 5, "spatial": 2, "window": 5}
    speed = {"seconds_per_step": 3.0, "workers": 1, "device": "h100", "gpus": gpus}
    commit(whole.emulator(whole.planned("diffusion", 16)), model=model, sizes=sizes, speed=speed)
    longer = quarter.replace(emulator_training=quarter.emulator_training.replace(steps=70))
    found = {stage.name: stage for stage in price(longer, tmp_path, ClusterConfig(gpus=1)).stages}
    assert found["diffusion-f8c16"].source == source


def test_what_is_printed_is_complete(tmp_path, well, capsys):
    config = local(presets.smoke(), well).replace(storage=str(tmp_path), cluster=CPUS)
    show_sweep(config)
    text = capsys.readouterr().out
    for word in (
        "autoencoder-f8c16",
        "Data: the files in",
        "Storage:",
        "CPU hours",
        "2 x CPU",
        "Cost:",
        "40%",
    ):
        assert word in text
    with pytest.raises(ConfigError, match="GB of storage"):
        show_sweep(config.replace(cluster=CPUS.replace(storage=1e-6)))


def test_options_reach_the_sweep_and_its_results_keep_their_names():
    config = parse(
        ["smoke", "--plan", "--cluster.gpus", "4"], "sweep", "", presets.SWEEPS, "mini", presets.GIVEN
    )
    assert (config.plan, config.cluster.gpus) == (True, 4)
    assert config.to_json() == presets.smoke().to_json()
    chosen = parse(["--cluster.kind", "a100-80gb"], "plan", "", presets.SWEEPS, "paper", {"system": "euler"})
    assert (chosen.cluster.kind, chosen.cluster.gpus) == ("a100-80gb", 16)


def test_data_of_any_grid_are_planned_for(tmp_path, well, steady):
    """Not only those of the preset's simulation, or of the published ensemble."""
    config = local(presets.smoke(), well)
    other = config.replace(simulation=config.simulation.replace(resolution=256))
    assert price(other, tmp_path).stages == price(config, tmp_path).stages


def test_the_paper_s_sweep_is_planned_where_demo_data_are(tmp_path, capsys):
    """Those lie in a folder of their own, and this machine's disk does not bound another cluster's."""
    folder = tmp_path / "well" / "euler_multi_quadrants_openBC" / "data" / "test"
    folder.mkdir(parents=True)
    (folder / "demo.hdf5").write_bytes(b"of the demo")
    config = presets.paper("rayleigh_benard").replace(
        storage=str(tmp_path), latent_channels=(4,), pixel=None, contexts=()
    )
    full = type("Usage", (), {"free": 10_000_000})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda _: full)
        show_sweep(config)
    text = " ".join(capsys.readouterr().out.split())
    assert "Data: The Well's published ensemble." in text
    assert "0.01 GB free here, too little" in text
    assert "--cluster.storage" in text


def test_small_sweeps_take_minutes_and_no_less(tmp_path, steady):
    """Processes that start, simulations and the report are counted."""
    config = presets.smoke().replace(storage=str(tmp_path))
    found = price(config, tmp_path)
    assert 60 < found.wall() < 300
    simulation = config.simulation
    assert found.simulating == simulation_seconds(simulation, {"cpu": 2})
    assert found.overhead_seconds > found.simulating > 0
    # 16 trajectories on two cores, of a quarter of the cells that were measured and 0.6 of 1.5 of their time
    seconds = 0.5 * 0.25**1.4 * 0.4
    assert found.simulating == pytest.approx(8 * seconds)
    one_file = simulation.replace(gammas=(1.4,), boundaries=("open",), train=6, valid=0, test=0)
    assert simulation_seconds(one_file, {"cpu": 2}) == pytest.approx(6 * seconds)
    assert simulation_seconds(None, {"cpu": 2}) == 0


def scoring_seconds(found):
    """Seconds of evaluations by name, without those that processes take to start."""
    scored = [stage for stage in found.stages if stage.name.startswith("evaluation")]
    return {stage.name: stage.seconds - EVALUATION_S for stage in scored}


def test_contexts_starts_and_guidance_are_counted(tmp_path, well, steady):
    config = local(presets.smoke(), well)
    before = scoring_seconds(price(config, tmp_path))
    more = config.replace(contexts=(2,), observed=ObservationConfig(), guidance=GuidanceConfig())
    more = more.replace(evaluation=more.evaluation.replace(starts=(0, 4)))
    after = scoring_seconds(price(more, tmp_path))
    trials = SweepPlan(more, tmp_path, well).evaluations
    names = {step.stage.what for trial in trials for step in trial.steps}
    assert {f"evaluation {name}" for name in names} == set(after)
    name = f"evaluation diffusion-f8c16-s{max(config.solver_steps)}"
    assert before[name] < after[name] < 2 * before[name]
    assert after[f"{name}-guided"] > 5 * after[name]


def test_guidance_goes_by_the_measured_speed_without_it(tmp_path, well, steady):
    config = local(presets.smoke(), well)
    config = config.replace(observed=ObservationConfig(), guidance=GuidanceConfig())
    steps = max(config.solver_steps)
    name = f"evaluation diffusion-f8c16-s{steps}"
    before = scoring_seconds(price(config, tmp_path))
    plan = SweepPlan(config, tmp_path, well)
    commit(plan.evaluation(plan.planned("diffusion", 16), solver_steps=steps), seconds_per_state=0.5)
    found = price(config.replace(evaluation=config.evaluation.replace(seed=9)), tmp_path)
    after = scoring_seconds(found)
    assert after[name] == pytest.approx(0.5 * 2 * 5)
    assert after[f"{name}-guided"] / after[name] == pytest.approx(before[f"{name}-guided"] / before[name])
    assert {stage.source for stage in found.stages if stage.name.endswith("guided")} == {"measured"}


def test_evaluations_cost_the_same_however_many_members_and_windows_a_sample_has(tmp_path, well, steady):
    config = local(presets.smoke(), well).replace(emulators=("crps_ensemble",), window=3)
    found = {}
    for members, windows in ((2, 1), (8, 1), (2, 2)):
        ensemble = config.crps_ensemble.replace(members=members, rollout_windows=windows)
        stages = {
            stage.name: stage for stage in price(config.replace(crps_ensemble=ensemble), tmp_path).stages
        }
        training, evaluation = stages["crps_ensemble-f8c16"], stages["evaluation crps_ensemble-f8c16"]
        found[members, windows] = training.seconds - TRAINING_S, evaluation.seconds - EVALUATION_S
    for key, ratio in (((8, 1), 4.0), ((2, 2), 7 / 3)):
        assert found[key][0] / found[2, 1][0] == pytest.approx(ratio, rel=0.1)
        assert found[key][1] == pytest.approx(found[2, 1][1], rel=0.1)
