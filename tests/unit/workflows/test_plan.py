import shutil

import h5py
import numpy as np
import pytest

from lola.core.cli import parse
from lola.core.errors import ConfigError, DataError
from lola.data.description import EULER
from lola.data.well.simulation_files import simulation_files
from lola.data.well.splits import open_split
from lola.distributed.jobs.datasource import WellDatasource
from lola.emulation.guidance_config import GuidanceConfig
from lola.emulation.observation_config import ObservationConfig
from lola.evaluation.tables.lead_times import model_titles
from lola.models.diffusion_config import DiffusionConfig
from lola.models.neural_solver_config import NeuralSolverConfig
from lola.models.schedule_config import TimePriorConfig
from lola.models.transformer_autoencoder_config import TransformerAutoencoderConfig
from lola.models.unet_config import UNetConfig
from lola.workflows import presets
from lola.workflows.plan import SweepPlan


@pytest.fixture
def config():
    smoke = presets.smoke()
    pixel = smoke.pixel.replace(network=smoke.pixel.network.replace(patch_size=4))
    return smoke.replace(latent_channels=(16, 1), pixel=pixel)


def fingerprints(config, tmp_path, well):
    plan = SweepPlan(config, tmp_path, well)
    return {trial.name: tuple(step.stage.fingerprint for step in trial.steps) for trial in plan.trials}


def changed(before, after):
    return {name for name in before.keys() & after.keys() if before[name] != after[name]}


def test_trials_need_only_what_earlier_ones_make(config, tmp_path, well):
    made = set()
    for trial in SweepPlan(config, tmp_path, well).trials:
        assert {stage.fingerprint for stage in trial.needs} <= made
        made |= {step.stage.fingerprint for step in trial.steps}


def test_every_stage_has_a_folder_of_its_own(config, tmp_path, well):
    folders = [
        step.stage.folder for trial in SweepPlan(config, tmp_path, well).trials for step in trial.steps
    ]
    assert len(set(folders)) == len(folders) == 2 * 2 + 1 + 4 + 4 + 2 * 4 + 1


def test_observations_add_evaluations_and_change_no_other_stage(config, tmp_path, well):
    before = fingerprints(config, tmp_path, well)
    guided = config.replace(observed=ObservationConfig(), guidance=GuidanceConfig())
    after = fingerprints(guided, tmp_path, well)
    assert not changed(before, after)
    added = [f"evaluation diffusion-{rate}-s4-guided" for rate in ("f8c16", "f8c1")]
    assert sorted(after.keys() - before.keys()) == sorted(added)
    other = guided.replace(guidance=GuidanceConfig(name="pgdm"))
    assert changed(after, fingerprints(other, tmp_path, well)) == set(added)
    with pytest.raises(ConfigError, match="needs a guidance"):
        config.replace(observed=ObservationConfig())
    both = {"observed": ObservationConfig(), "guidance": GuidanceConfig()}
    with pytest.raises(ConfigError, match="guided by --observed and --guidance instead"):
        config.replace(evaluation=config.evaluation.replace(**both))


def test_a_change_reaches_what_depends_on_it_and_nothing_else(config, tmp_path, well):
    before = fingerprints(config, tmp_path, well)
    more_steps = fingerprints(config.replace(solver_steps=(2, 4, 8)), tmp_path, well)
    assert not changed(before, more_steps)
    assert len(more_steps) == len(before) + 2
    how = config.emulator_training.replace(report_every=7, workers=2)
    elsewhere = config.replace(emulator_training=how, concurrency=3)
    assert not changed(before, fingerprints(elsewhere, tmp_path, well))
    longer = config.emulator_training.replace(steps=21)
    assert changed(before, fingerprints(config.replace(emulator_training=longer), tmp_path, well)) == {
        name for name in before if "f8" in name and ("diffusion" in name or "neural_solver" in name)
    }
    other = config.autoencoder_training.replace(seed=1)
    assert changed(before, fingerprints(config.replace(autoencoder_training=other), tmp_path, well)) == {
        name for name in before if "f8" in name
    }


def test_averaged_weights_are_scored_in_addition_to_the_others(config, tmp_path, well):
    before = {trial.name for trial in SweepPlan(config, tmp_path, well).evaluations}
    averaged = config.replace(
        autoencoder_training=config.autoencoder_training.replace(ema=0.9),
        emulator_training=config.emulator_training.replace(ema=0.9),
    )
    plan = SweepPlan(averaged, tmp_path, well)
    names = [trial.name for trial in plan.evaluations]
    assert before <= set(names)
    assert len(set(names)) == len(names) == len(before) + 2 + 2 * 3
    for trial in plan.evaluations:
        stage = trial.steps[0].stage
        assert (stage.config.weights == "ema") == ("_ema" in trial.name)
        assert trial.steps[0].tags["model"].endswith("_ema") == ("_ema" in trial.name)
        run = trial.steps[0].run.args[0]
        assert run.subject.model in model_titles()
        assert run.subject.model.endswith("_ema") == ("_ema" in trial.name)


def test_a_grid_that_does_not_fit_is_refused_before_anything_runs(config, tmp_path, well):
    with pytest.raises(ConfigError, match="16"):
        SweepPlan(config.replace(autoencoder=config.autoencoder.replace(patch_size=32)), tmp_path, well)
    pixel = config.pixel.replace(network=config.pixel.network.replace(patch_size=5))
    with pytest.raises(ConfigError, match="16"):
        SweepPlan(config.replace(pixel=pixel), tmp_path, well)


def test_a_part_of_a_plan_makes_its_goal_and_what_that_needs(config, tmp_path, well):
    plan = SweepPlan(config, tmp_path, well)

    def steps(part):
        return [[step.stage.what for step in trial.steps] for trial in part.trials]

    alone = plan.towards(plan.autoencoder(1))
    assert steps(alone) == [["autoencoder-f8c1"]]
    emulator = plan.towards(plan.emulator(plan.planned("diffusion", 16)))
    assert steps(emulator) == [["autoencoder-f8c16", "latents-f8c16"], ["diffusion-f8c16"]]
    pixel = plan.towards(plan.emulator(plan.planned("neural_solver", None)))
    assert steps(pixel) == [["neural_solver-pixel"]]
    both = plan.towards(plan.autoencoder(16), plan.autoencoder(1))
    assert steps(both) == [["autoencoder-f8c16"], ["autoencoder-f8c1"]]
    assert len({part.fingerprint for part in (plan, alone, emulator, pixel, both)}) == 5
    whole = {step.stage.fingerprint for trial in plan.trials for step in trial.steps}
    assert {step.stage.fingerprint for trial in emulator.trials for step in trial.steps} < whole


def test_a_sweep_may_leave_out_pixel_space(config, tmp_path, well):
    before = fingerprints(config, tmp_path, well)
    after = fingerprints(config.replace(pixel=None), tmp_path, well)
    assert before.keys() - after.keys() == {
        name for name in before if name.endswith("neural_solver-pixel")
    } | {"neural_solver pixel"}
    assert not changed(before, after)


def test_other_architectures_have_stages_of_their_own(config, tmp_path, well):
    unet = UNetConfig(channels=(8, 16), blocks=(1, 1), modulation=8)
    other = config.replace(
        autoencoder=TransformerAutoencoderConfig(patch_size=8, features=16, blocks=1, heads=2),
        diffusion=DiffusionConfig(network=unet),
        pixel=NeuralSolverConfig(network=unet),
    )
    assert type(other).from_json(other.to_json()).to_json() == other.to_json()
    before, after = fingerprints(config, tmp_path, well), fingerprints(other, tmp_path, well)
    assert before.keys() == after.keys()
    baselines = {"evaluation persistence-pixel", "evaluation climatology-pixel"}
    assert {name for name in before if before[name] == after[name]} == baselines
    assert SweepPlan(other, tmp_path, well).compression(16) == 5 * 64 / 16


def test_latents_that_do_not_fit_an_emulator_are_refused_before_anything_runs(config, tmp_path, well):
    deep = UNetConfig(channels=(8, 8, 8), blocks=(1, 1, 1), modulation=8)
    with pytest.raises(ConfigError, match="down-sampling 4 does not divide a grid axis of 2"):
        SweepPlan(config.replace(diffusion=DiffusionConfig(network=deep)), tmp_path, well)


def test_contexts_are_evaluated_without_training_again(config, tmp_path, well):
    before = fingerprints(config, tmp_path, well)
    further = config.replace(contexts=(2, 3))
    after = fingerprints(further, tmp_path, well)
    assert not changed(before, after)
    added = [trial for trial in SweepPlan(further, tmp_path, well).evaluations if trial.name not in before]
    emulated = [name for name in before if name.startswith(("evaluation diff", "evaluation neural"))]
    assert len(added) == 2 * len(emulated)
    for trial in added:
        (step,) = trial.steps
        assert trial.name.endswith(f"-k{step.stage.config.context}")
        assert step.run.args[0].subject.context == step.stage.config.context == step.tags["context"]


@pytest.mark.parametrize("contexts", [(1,), (2, 2), (0,), (5,)])
def test_contexts_that_cannot_be_are_refused(config, contexts):
    with pytest.raises(ConfigError, match="context"):
        config.replace(contexts=contexts)


def test_trajectories_must_outlast_the_contexts(config, tmp_path, well):
    SweepPlan(
        config.replace(contexts=(2,), evaluation=config.evaluation.replace(starts=(0, 12))), tmp_path, well
    )
    late = config.replace(contexts=(2,), evaluation=config.evaluation.replace(starts=(0, 13)))
    with pytest.raises(ConfigError, match=r"--contexts 2: trajectories of 21 states .* from state 13"):
        SweepPlan(late, tmp_path, well)


def test_missing_data_are_named(config, tmp_path):
    with pytest.raises(DataError, match="euler_multi_quadrants_openBC"):
        SweepPlan(config, tmp_path, tmp_path / "nothing")


def test_every_stage_names_what_it_reads(config, tmp_path, well):
    plan = SweepPlan(config, tmp_path, well)
    for step in (step for trial in plan.trials for step in trial.steps):
        (reads,) = step.reads
        inputs = step.stage.inputs
        expected = {
            "autoencoders": ("euler", inputs["dataset"], "training"),
            "latents": ("euler", inputs["dataset"], "encoding"),
            "evaluations": ("euler/test", plan.splits["test"].fingerprint, "evaluation"),
            "emulators": ("euler", inputs["dataset"], "training"),
        }[step.stage.kind]
        if "latents" in inputs:
            (cache,) = [plan.cache(n) for n in (16, 1) if plan.cache(n).fingerprint == inputs["latents"]]
            expected = (cache.name, cache.fingerprint, "training")
        assert (reads.name, reads.digest, reads.context) == expected


def test_the_command_line_chooses_architectures():
    arguments = (
        "--autoencoder.type TransformerAutoencoderConfig --autoencoder.patch-size 8 --autoencoder.heads 4 "
        "--diffusion.network.type UNetConfig --diffusion.network.blocks 1 1 1 --diffusion.times.name beta "
        "--diffusion.times.a 2 --pixel.network.features 64 --neural-solver.network.type UNetConfig"
    )
    config = parse(arguments.split(), "sweep", "Sweeps.", presets.SWEEPS, "smoke")
    smoke = presets.smoke()
    assert config == smoke.replace(
        autoencoder=TransformerAutoencoderConfig(patch_size=8, heads=4),
        diffusion=smoke.diffusion.replace(
            network=UNetConfig(blocks=(1, 1, 1)), times=TimePriorConfig(name="beta", a=2.0)
        ),
        neural_solver=NeuralSolverConfig(network=UNetConfig()),
        pixel=NeuralSolverConfig(network=smoke.pixel.network.replace(features=64)),
    )


def test_presets_are_complete():
    for preset in presets.SWEEPS.values():
        config = preset()
        assert type(config).from_json(config.to_json()).to_json() == config.to_json()


def test_the_datasource_yields_every_state_once(well):
    split = open_split(well, EULER, "train")
    shards = dict(enumerate(simulation_files(split)))
    source = WellDatasource(shards, states=8)
    tasks = source.get_read_tasks(parallelism=1)
    assert len(tasks) == 2
    found = {}
    for task in tasks:
        blocks = list(task())
        assert len(blocks) == task.metadata.num_rows == 2 * 3
        for block in blocks:
            (entry,) = block.drop_columns(["states"]).to_pylist()
            states = block["states"].combine_chunks().to_numpy_ndarray()[0]
            assert len(states) == 8
            found.setdefault(entry["trajectory"], []).append(states[: entry["count"]])
    assert sorted(found) == [0, 1, 2, 3]
    for index, parts in found.items():
        expected = split.read(index, 0, split.steps).movedim(1, 0).numpy()
        np.testing.assert_array_equal(np.concatenate(parts), expected)
    assert source.estimate_inmemory_data_size() == 4 * 21 * 5 * 16 * 16 * 4


def test_splits_must_have_the_same_constants(config, tmp_path, well):
    root = shutil.copytree(well, tmp_path / "well")
    for path in root.glob("*/data/test/*.hdf5"):
        with h5py.File(path, "r+") as file:
            file["scalars"].attrs["field_names"] = ["other"]
            file["scalars"].move("gamma", "other")
    message = r"the test split of euler has constants \('other',\), and its train split \('gamma',\); leave"
    with pytest.raises(DataError, match=message):
        SweepPlan(config, tmp_path, root)
