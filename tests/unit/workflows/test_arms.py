"""Sweeps that compare several recipes of a kind, and several training seeds."""

import dataclasses
import functools

import guide
import pytest
from inline import run_inline
from small_run import plan_of, train_here

from lola.core.cli import parse
from lola.core.config import flatten
from lola.core.errors import ConfigError
from lola.distributed.jobs.train import run_training
from lola.distributed.trials import make
from lola.emulation.sampling_config import SamplerConfig
from lola.evaluation.tables.lead_times import REFERENCES, model_titles
from lola.evaluation.tables.stored import read_table
from lola.models.kinds import ARM_COLOURS, KINDS, kind_colours, shown_with
from lola.workflows import presets, resource_requests, run, sweep_conclusion, sweep_report
from lola.workflows.arms import TAKEN, EmulatorArmConfig
from lola.workflows.forecast.estimates import forecast
from lola.workflows.forecast.forecast import Forecast
from lola.workflows.forecast.measured import MeasuredSpeeds
from lola.workflows.kept_results import keep_results, render
from lola.workflows.plan import SweepPlan
from lola.workflows.studies.sampler_plan import SamplerPlan


def arm(sweep, name, kind="neural_solver", **options):
    own = {key: options.pop(key) for key in ("training", "title", "latent_channels") if key in options}
    return EmulatorArmConfig(name=name, model=getattr(sweep, kind).replace(**options), **own)


@pytest.fixture
def base(sweep):
    """A sweep at two rates with two arms, one of which starts from the other."""
    return sweep.replace(
        latent_channels=(16, 4),
        emulators=("neural_solver",),
        arms=(
            arm(sweep, "ours", loss_states="unknown", title="Neural solver, our recipe"),
            arm(sweep, "tuned", "crps_ensemble", warm_start="ours", latent_channels=(4,)),
        ),
    )


def trained(plan):
    """The emulators' stages by name."""
    return {step.stage.what: step for step in plan.steps if step.stage.kind == "emulators"}


def test_a_sweep_without_arms_and_seeds_is_what_it_was(sweep, tmp_path, well):
    before = SweepPlan(sweep, tmp_path, well)
    more = sweep.replace(arms=(arm(sweep, "ours", loss_states="unknown"),), seeds=(0, 3))
    after = SweepPlan(more, tmp_path, well)
    stages = [{step.stage.name for step in plan.steps} for plan in (before, after)]
    assert stages[0] < stages[1]
    assert not {"arms", "seeds", "seeds_at"} & sweep.to_json().keys()
    assert before.fingerprint != after.fingerprint
    assert type(more).from_json(more.to_json()).to_json() == more.to_json()


def test_every_emulator_is_trained_and_scored_with_every_seed(base, tmp_path, well):
    plan = SweepPlan(base.replace(seeds=(0, 7), seeds_at=(4,)), tmp_path, well)
    first = ["neural_solver-pixel", "neural_solver-f8c16", "ours-f8c16"]
    first += ["neural_solver-f8c4", "ours-f8c4", "tuned-f8c4"]
    steps = trained(plan)
    assert list(steps) == [*first, "neural_solver-f8c4-seed7", "ours-f8c4-seed7", "tuned-f8c4-seed7"]
    everywhere = trained(SweepPlan(base.replace(seeds=(0, 7)), tmp_path, well))
    assert len(everywhere) == 2 * len(first)
    assert "neural_solver-pixel-seed7" in everywhere
    for name, step in steps.items():
        seed = 7 if name.endswith("-seed7") else 0
        assert step.stage.config.training.seed == step.tags["training_seed"] == seed
        (scored,) = (one for one in plan.evaluations if one.name == f"evaluation {name}")
        subject, tags = scored.steps[0].run.args[0].subject, scored.steps[0].tags
        assert subject.training_seed == tags["training_seed"] == seed
        assert subject.model == tags["model"] == step.tags["model"] == name.split("-")[0]
        assert scored.steps[0].run.args[0].emulator == step.stage.folder
    caches = {step.stage.name for step in plan.steps if step.stage.kind in ("autoencoders", "latents")}
    assert len(caches) == 4


def test_scores_of_autoencoders_have_the_seeds_of_autoencoders(base, tmp_path, well):
    training = base.autoencoder_training.replace(seed=5)
    plan = SweepPlan(base.replace(autoencoder_training=training, seeds=(1,)), tmp_path, well)
    seeds = {
        (step.tags["model"], step.run.args[0].subject.training_seed)
        for trial in plan.evaluations
        for step in trial.steps
    }
    names = ("neural_solver", "ours", "tuned")
    assert seeds == {("persistence", 0), ("climatology", 0), ("autoencoder", 5)} | {
        ("autoencoded_persistence", 5), *((name, 1) for name in names)
    }  # fmt: skip


def test_an_emulator_starts_from_the_one_of_its_rate_and_seed(base, tmp_path, well):
    steps = trained(SweepPlan(base.replace(seeds=(2, 7)), tmp_path, well))
    for seed in (2, 7):
        stage, source = (steps[f"{name}-f8c4-seed{seed}"].stage for name in ("tuned", "ours"))
        assert stage.inputs["warm_start"] == source.fingerprint
    own = base.arms[0].training or base.emulator_training
    seeded = dataclasses.replace(base.arms[0], training=own.replace(seed=9))
    steps = trained(SweepPlan(base.replace(arms=(seeded, base.arms[1])), tmp_path, well))
    assert steps["tuned-f8c4"].stage.inputs["warm_start"] == steps["ours-f8c4"].stage.fingerprint


def test_a_kind_starts_from_an_arm_which_is_made_before_it(base, tmp_path, well):
    solver = base.neural_solver.replace(warm_start="ours")
    plan = SweepPlan(base.replace(neural_solver=solver, arms=base.arms[::-1]), tmp_path, well)
    made = set()
    for trial in plan.trials:
        assert {stage.fingerprint for stage in trial.needs} <= made
        made |= {step.stage.fingerprint for step in trial.steps}
    assert list(trained(plan.towards(plan.emulator(plan.planned("neural_solver", 4))))) == [
        "ours-f8c4",
        "neural_solver-f8c4",
    ]


def test_averaged_weights_solver_steps_contexts_and_guidance_are_of_arms_too(base, tmp_path, well):

    from lola.workflows import presets

    guided = guide.configure(presets.smoke)()
    training = base.emulator_training.replace(ema=0.9)
    few = arm(base, "few", "diffusion", masks="forward", training=training, latent_channels=(4,))
    config = base.replace(arms=(few,), contexts=(2,), observed=guided.observed, guidance=guided.guidance)
    plan = SweepPlan(config.replace(seeds=(0, 1)), tmp_path, well)
    names = [trial.name.removeprefix("evaluation ") for trial in plan.evaluations if "few" in trial.name]
    expected = [
        f"{name}-f8c4{seed}-s{steps}{context}"
        for context in ("", "-k2")
        for seed in ("", "-seed1")
        for name in ("few", "few_ema")
        for steps in base.solver_steps
    ]
    most = max(base.solver_steps)
    assert names == expected + [f"few-f8c4{seed}-s{most}-guided" for seed in ("", "-seed1")]


def test_pixel_space_has_arms(base, tmp_path, well):
    one = EmulatorArmConfig(name="fields", model=base.pixel.replace(loss_states="unknown"), pixel=True)
    two = one.replace(name="longer", model=base.pixel.replace(warm_start="fields"))
    three = one.replace(name="third", model=base.pixel.replace(warm_start="neural_solver"))
    steps = trained(SweepPlan(base.replace(arms=(two, one, three)), tmp_path, well))
    assert list(steps)[:4] == [f"{name}-pixel" for name in ("neural_solver", "fields", "longer", "third")]
    assert steps["longer-pixel"].stage.inputs["warm_start"] == steps["fields-pixel"].stage.fingerprint
    two = one.replace(model=base.pixel.replace(warm_start="crps_ensemble"))
    with pytest.raises(ConfigError, match="warm-start crps_ensemble: --pixel is no crps_ensemble"):
        base.replace(arms=(two,))
    with pytest.raises(ConfigError, match="the sweep has no emulator fields of pixel with seed 4"):
        SweepPlan(base.replace(arms=(one,)), tmp_path, well).planned("fields", None, 4)
    assert steps["third-pixel"].stage.inputs["warm_start"] == steps["neural_solver-pixel"].stage.fingerprint


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "with-dash"}, "--name must consist of letters, digits and _, and start with a letter"),
        ({"name": "neural_solver"}, "--name neural_solver stands for something else"),
        ({"name": "ours_ema"}, "--name ours_ema stands for something else"),
        ({"name": "Persistence"}, "--name Persistence stands for something else"),
        ({"name": "Tuned"}, "Tuned and tuned need names that differ in more than case"),
        ({"title": "CRPS ensemble (tuned)"}, r"the title CRPS ensemble \(tuned\) is of two"),
        ({"title": "Diffusion"}, "the title Diffusion is of two"),
        (
            {"latent_channels": (8,)},
            "--arms.0.latent-channels 8 of ours are not among --latent-channels 16 4",
        ),
        ({"latent_channels": (16,)}, "ours is not trained at 4 latent channels, and tuned is"),
        ({"pixel": True}, "--arms.1.model.warm-start ours: ours is of pixel space"),
        ({"pixel": True, "latent_channels": (4,)}, "ours is of pixel space, which has none"),
        (
            {"warm_start": "tuned", "latent_channels": (4,)},
            "--arms.1.model.warm-start ours: an emulator cannot start",
        ),
        ({"warm_start": "ours"}, "--arms.0.model.warm-start ours: an emulator cannot start from itself"),
        ({"warm_start": "diffusion"}, "warm-start diffusion needs diffusion among --emulators neural_solver"),
        ({"loss_states": "published"}, "ours is the same as neural_solver"),
    ],
)
def test_impossible_arms_are_refused(base, changes, message):
    model = {name: changes.pop(name) for name in ("warm_start", "loss_states") if name in changes}
    first, second = base.arms
    with pytest.raises(ConfigError, match=message):
        base.replace(arms=(first.replace(**changes, model=first.model.replace(**model)), second))


def test_the_command_line_has_the_seeds_and_the_arms_of_a_preset(base):
    preset = {"two": lambda: base}
    options = "--seeds 0 3 --seeds-at 4 --arms.0.latent-channels 4 --arms.1.model.network.blocks 2"
    config = parse(options.split(), "sweep_compression.py", "Sweep.", preset, "two")
    first, second = base.arms
    network = second.model.network.replace(blocks=2)
    arms = first.replace(latent_channels=(4,)), second.replace(model=second.model.replace(network=network))
    assert config == base.replace(seeds=(0, 3), seeds_at=(4,), arms=arms)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": (1, 1)}, "--seeds contains 1 more than once"),
        ({"seeds": (0, 1), "seeds_at": (8,)}, "--seeds-at 8 needs several --seeds, and 8 among"),
        ({"seeds": (0,), "seeds_at": (4,)}, "--seeds-at 4 needs several --seeds"),
    ],
)
def test_impossible_seeds_are_refused(base, changes, message):
    with pytest.raises(ConfigError, match=message):
        base.replace(**changes)


def test_an_arm_that_differs_in_its_seed_alone_is_the_same_where_seeds_are_given(base):
    training = base.emulator_training.replace(seed=3)
    other = EmulatorArmConfig(name="again", model=base.neural_solver, training=training)
    config = base.replace(arms=(other,))
    with pytest.raises(ConfigError, match="again is the same as neural_solver"):
        config.replace(seeds=(0, 1))


def test_a_network_that_does_not_fit_is_named_by_its_arm(base, tmp_path, well):
    network = base.neural_solver.network.replace(patch_size=(1, 3, 3))
    first = base.arms[0].replace(model=base.neural_solver.replace(network=network))
    with pytest.raises(ConfigError, match=r"--arms\.0\.model\.network"):
        SweepPlan(base.replace(arms=(first,)), tmp_path, well)
    order = base.emulator_training.order.replace(memory=1e-6)
    first = base.arms[0].replace(training=base.emulator_training.replace(order=order))
    with pytest.raises(ConfigError, match=r"--arms\.0\.training\.order\.memory"):
        SweepPlan(base.replace(arms=(first,)), tmp_path, well)


def test_a_forecast_has_the_stages_of_arms_and_seeds(base, tmp_path, well):
    plan = SweepPlan(base.replace(seeds=(0, 1)), tmp_path, well)
    found: Forecast = forecast(plan, base.cluster, 2, lambda line: None)
    assert {stage.name for stage in found.stages} == {step.title for step in plan.steps}
    assert {"ours-f8c4-seed1", "tuned-f8c4"} <= {model.name for model in found.models}


def test_a_study_of_samplers_has_the_evaluations_of_an_arm_with_a_seed(base, tmp_path, well):
    few = arm(base, "few", "diffusion", masks="forward", latent_channels=(16,))
    plan = SweepPlan(base.replace(arms=(few,), seeds=(0, 5)), tmp_path, well)
    one = plan.planned("few", 16, 5)
    runs = {step.stage.fingerprint: step.run.args[0] for step in plan.steps}
    for stage in (plan.autoencoder(16), plan.emulator(one)):
        model, made = stage.config.model, runs[stage.fingerprint]
        stage.folder.mkdir(parents=True)
        stage.commit(
            model={"type": type(model).__name__, **model.to_json()}, sizes=made.sizes, **made.details
        )
    for weights, name in (("raw", "few"), ("ema", "few_ema")):
        config = presets.samplers_smoke()
        config = config.replace(evaluation=config.evaluation.replace(weights=weights))
        study = SamplerPlan(config, tmp_path, well)
        (step,) = study._trial(study.models[0], "test", [SamplerConfig(steps=4)]).steps
        assert step.stage.folder == plan.evaluation(one, solver_steps=4, weights=weights).folder
        subject = step.run.args[0].subject
        assert (subject.model, subject.training_seed) == (name, 5)


def test_mlflow_has_the_options_of_arms_by_name(base):
    parameters = flatten(base.to_json())
    assert parameters["arms.1.name"] == "tuned"
    assert parameters["arms.0.model.loss_states"] == "unknown"
    assert parameters["latent_channels"] == [16, 4]


def test_another_seed_is_expected_to_take_as_long(tmp_path, monkeypatch):
    speeds = MeasuredSpeeds(tmp_path, "data")
    manifest = {"what": "ours-f8c4-seed1-s4", "seconds_per_state": 3.0, "inputs": {"dataset": "data"}}
    speeds.read["evaluations"] = [manifest]
    assert speeds.evaluation("ours-f8c4-s4") == speeds.evaluation("ours-f8c4-seed12-s4") == 3.0
    assert speeds.evaluation("ours-f8c4-s8") == 0


def test_what_arms_take_of_a_cluster_is_named(base, monkeypatch):
    training = base.emulator_training.replace(workers=3, precision="bfloat16")
    config = base.replace(arms=(base.arms[0].replace(training=training),))
    assert set(resource_requests.requests_by_option(config, [training])) == {"--arms.0.training"}
    monkeypatch.setattr(run, "emulates_bfloat16", lambda: True)
    assert run.emulated_options(config) == ["--arms.0.training.precision"]


def test_names_and_colours_of_arms_are_of_nothing_else():
    assert {name.removesuffix("_ema") for name in REFERENCES} <= TAKEN
    with shown_with([]):
        colours = {colour.light for colour in kind_colours().values()}
    assert not colours & {colour.light for colour in ARM_COLOURS}
    assert set(model_titles()) == {*REFERENCES, *KINDS, *(f"{name}_ema" for name in KINDS)}


@pytest.mark.slow
# heavyball warns of its own treatment of learning rates
@pytest.mark.filterwarnings("ignore:Learning rate changed")
def test_two_arms_with_two_seeds_are_trained_scored_and_reported(sweep, tmp_path, well, monkeypatch):
    run_inline(monkeypatch)
    config = plan_of(tmp_path, well).config
    config = config.replace(
        emulators=("neural_solver",),
        pixel=None,
        seeds=(0, 1),
        arms=(
            arm(sweep, "ours", loss_states="unknown", title="Neural solver, our recipe"),
            arm(sweep, "tuned", "crps_ensemble", warm_start="ours", title="Tuned ensemble"),
        ),
    )
    plan = SweepPlan(config, tmp_path, well)
    for step in plan.steps:
        if getattr(step.run, "func", None) is run_training:
            step = dataclasses.replace(step, run=functools.partial(train_here, *step.run.args))
        make(step)
    stage = trained(plan)["tuned-f8c16-seed1"].stage
    manifest = stage.manifest()
    assert manifest["arm"] == {"name": "tuned", "title": "Tuned ensemble"}
    assert manifest["warm_start"] == trained(plan)["ours-f8c16-seed1"].stage.name
    found = {}
    for trial in plan.evaluations:
        rows = read_table(trial.steps[0].stage.folder / "metrics.parquet").to_pandas()
        (key,) = set(zip(rows["model"], rows["training_seed"], strict=True))
        found[key] = rows["value"].sum()
    keys = {(name, seed) for name in ("neural_solver", "ours", "tuned") for seed in (0, 1)}
    assert keys < found.keys()
    assert found["ours", 0] != found["ours", 1] != found["tuned", 1]
    shown = sweep_conclusion.summarise_sweep(plan)
    assert {"Neural solver, our recipe", "Tuned ensemble"} <= set(shown.columns[0].cells)
    assert "means over training seeds" in shown.title
    report = sweep_report.report_sweep(plan)
    keep_results(plan, report.parent, tmp_path / "kept")
    kept = (tmp_path / "kept" / "README.md").read_text()
    assert kept == render(tmp_path / "kept", plan.system)
    for title in ("Findings", "CRPS", "CRPS in pairs", "Calibration", "VRMSE", "Cost", "How"):
        assert f"\n## {title}\n" in kept
    assert (tmp_path / "kept" / "crps.png").exists()
    page = report.read_text()
    for text in (
        "Tuned ensemble, mean",
        "Tuned ensemble against neural solver, CRPS",
        f"--c-tuned: {ARM_COLOURS[1].light}",
        "tuned, a CRPS ensemble: 2 steps, starts from ours",
        "0, 1; pictures and times are of 0",
    ):
        assert text in page
    renamed = config.replace(arms=(config.arms[0], config.arms[1].replace(title="Another title")))
    assert SweepPlan(renamed, tmp_path, well).fingerprint == plan.fingerprint
    other = sweep_report.sweep_report_stage(SweepPlan(renamed, tmp_path, well))
    assert other.fingerprint != sweep_report.sweep_report_stage(plan).fingerprint
