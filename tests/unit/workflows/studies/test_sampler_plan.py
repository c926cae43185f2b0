"""A study of samplers: its trials, its choice and its report, with tasks that run where they are called."""

import json

import numpy as np
import pandas as pd
import pytest
from inline import run_inline
from stages import finish_diffusion, small_sweep

from lola.core.errors import ConfigError, DataError
from lola.emulation.sampling_config import SamplerConfig
from lola.evaluation.studies.sampler_choice import ALL, COMMON, FINE, OWN, PRESENT
from lola.workflows import presets
from lola.workflows.forecast.estimates import forecast
from lola.workflows.plan import SweepPlan
from lola.workflows.studies.sampler_plan import SamplerPlan
from lola.workflows.studies.sampler_report import make_study, report_samplers

CONFIG = presets.samplers_smoke().replace(spacings=("time",))


def finish_models(root, well):
    return [finish_diffusion(root, well), finish_diffusion(root, well, channels=4)]


@pytest.fixture
def models(tmp_path, well):
    return finish_models(tmp_path, well)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, well):
    """A study whose trials are all finished, on two models, in as many rounds as it took."""
    root, rounds = tmp_path_factory.mktemp("study"), 0
    finish_models(root, well)
    plan = SamplerPlan(CONFIG, root, well)
    with pytest.MonkeyPatch.context() as patch:
        run_inline(patch)
        while not all(trial.finished for trial in plan.trials):
            rounds += 1
            for step in (step for trial in plan.trials for step in trial.steps if not step.stage.finished):
                step.run()
    assert rounds == 2
    return plan


def test_no_trial_is_of_the_test_split_before_the_choice(tmp_path, well, models):
    plan = SamplerPlan(CONFIG, tmp_path, well)
    assert {step.stage.config.split for trial in plan.trials for step in trial.steps} == {"valid"}
    assert len(plan.trials) == len({trial.name for trial in plan.trials}) == 2 * (2 + 1)


def test_evaluations_of_finished_models_are_priced(tmp_path, well, models):
    plan = SamplerPlan(CONFIG, tmp_path, well)
    found = forecast(plan, CONFIG.cluster, 2)
    seconds = {stage.name: stage.seconds for stage in found.stages}
    assert list(seconds) == [step.title for step in plan.steps]
    fine = [name for name in seconds if name.endswith("-s8")]
    for name in fine:
        assert seconds[name.replace("-s8", "-s4")] < seconds[name]
    assert not found.models


def test_the_choice_is_that_of_the_validation_split(finished):
    scores, chosen = finished.scores("valid"), finished.chosen.set_index(["emulator", "steps"])["sampler"]
    assert all("/valid/" in name for name in scores["trajectory"])
    assert all("/test/" in name for name in finished.scores("test")["trajectory"])
    for (name, steps), group in scores[scores["steps"] < 8].groupby(["emulator", "steps"]):
        vrmse = group[group["metric"] == "vrmse"].groupby(["sampler", "range"])["value"].mean()
        assert chosen[name, steps] == np.log(vrmse).groupby("sampler").mean().idxmin()
    assert set(finished.chosen["emulator"]) == {*(model.name for model in finished.models), COMMON}
    for model in finished.models:
        mine = {
            (s.config.sampler.title, s.config.sampler.steps) for m, s in finished.stages("test") if m == model
        }
        own = finished.chosen[finished.chosen["emulator"].isin([model.name, COMMON])]
        present = {("adams_bashforth", steps) for steps in (2, 4, 8)}
        assert mine == present | set(zip(own["sampler"], own["steps"], strict=True))


def test_a_second_study_reuses_what_exists_and_its_report(finished):
    page = report_samplers(finished)
    written = page.stat().st_mtime_ns
    again = SamplerPlan(CONFIG, finished.root, finished.datasets.root)
    assert all(trial.finished for trial in again.trials)
    assert report_samplers(again) == page
    assert page.stat().st_mtime_ns == written
    more = SamplerPlan(CONFIG.replace(steps=(2, 3, 4)), finished.root, finished.datasets.root)
    left = [step.stage for trial in more.trials for step in trial.steps if not step.stage.finished]
    assert {stage.config.sampler.steps for stage in left} == {3}
    rows = json.loads((page.parent / "manifest.json").read_text())["rows"]
    assert {name: len(pd.read_parquet(page.parent / f"{name}.parquet")) for name in rows} == rows
    for name in ("choices.md", "choices.csv", "choices.png", "candidates.svg", "levels.tex"):
        assert (page.parent / name).stat().st_size > 0
    assert "adams_bashforth with 8" in page.read_text("utf-8")


def test_ratios_are_those_of_the_evaluations(finished):
    name = finished.models[0].name
    plan = SamplerPlan(CONFIG.replace(emulators=(name,)), finished.root, finished.datasets.root)
    ratios, test = make_study(plan).ratios, plan.scores("test")
    assert COMMON not in set(ratios["emulator"])
    means = test[test["metric"] == "crps"].groupby(["sampler", "steps", "range"])["value"].mean()
    crps = ratios[(ratios["choice"] == OWN) & (ratios["metric"] == "crps") & (ratios["reference"] == FINE)]
    row = crps[(crps["steps"] == 2) & (crps["range"] == "1-20")].iloc[0]
    expected = means[row["sampler"], 2, "1-20"] / means["adams_bashforth", 8, "1-20"]
    assert row["ratio"] == pytest.approx(expected)
    unity = ratios[(ratios["choice"] == PRESENT) & (ratios["reference"] == PRESENT)]
    assert unity.loc[unity["range"] == ALL, "ratio"].to_numpy() == pytest.approx(1)


def test_only_states_of_the_test_split_are_kept(finished):
    for split in ("valid", "test"):
        for _, stage in finished.stages(split):
            assert (stage.folder / "example.npy").exists() == (split == "test")
            assert any(key.startswith(f"{split}/vrmse/") for key in stage.manifest()["metrics"])


def test_evaluations_are_those_of_a_sweep(tmp_path, well, models):
    sweep = small_sweep()
    swept = SweepPlan(sweep, tmp_path, well)
    known = swept.evaluation(swept.planned("diffusion", 16), solver_steps=4)
    plan = SamplerPlan(CONFIG.replace(emulators=(models[0].name,)), tmp_path, well)
    trial = plan._trial(plan.models[0], "test", [SamplerConfig(steps=4)])
    stage = trial.steps[0].stage
    assert stage.fingerprint == known.fingerprint
    assert stage.folder == known.folder


def test_models_that_do_not_fit_are_refused(tmp_path, well, models):
    def build(**changes):
        SamplerPlan(CONFIG.replace(**changes), tmp_path, well)

    with pytest.raises(ConfigError, match="trained at a stride of 4, not 2"):
        build(evaluation=CONFIG.evaluation.replace(stride=2))
    with pytest.raises(ConfigError, match="context must be 1 to 4 states"):
        build(evaluation=CONFIG.evaluation.replace(context=5))
    with pytest.raises(ConfigError, match=r"emulators .* contains duplicates"):
        build(emulators=(models[0].name, str(models[0].folder)))
    with pytest.raises(DataError, match="is one of autoencoders, not an emulator"):
        build(
            emulators=(
                str(
                    tmp_path / "autoencoders" / SweepPlan(small_sweep(), tmp_path, well).autoencoder(16).name
                ),
            )
        )
    manifest = json.loads((models[0].folder / "manifest.json").read_text())
    for change, message in (
        ({"inputs": manifest["inputs"] | {"dataset": "f" * 64}}, "trained on other data .ffffffff."),
        ({"model": {"type": "NeuralSolverConfig"}}, "is no diffusion model"),
        ({"system": "rayleigh_benard"}, "is of rayleigh_benard, not of euler"),
        ({"sizes": manifest["sizes"] | {"parameters": 9}}, "takes 9 parameters"),
    ):
        (models[0].folder / "manifest.json").write_text(json.dumps(manifest | change))
        with pytest.raises(ConfigError, match=message):
            build(emulators=(str(models[0].folder),))
    other = manifest | {"inputs": manifest["inputs"] | {"dataset": "f" * 64}}
    (models[0].folder / "manifest.json").write_text(json.dumps(other))
    assert [model.name for model in SamplerPlan(CONFIG, tmp_path, well).models] == [models[1].name]


def test_a_storage_without_models_is_refused(tmp_path, well):
    with pytest.raises(ConfigError, match="has no diffusion model"):
        SamplerPlan(CONFIG, tmp_path, well)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samplers": ("magic",)}, "no sampler is called 'magic'"),
        ({"samplers": ("euler-order2",)}, "takes no --order"),
        ({"samplers": ("euler", "euler")}, "--samplers contains euler more than once"),
        ({"samplers": ()}, "--samplers must name at least one"),
        ({"spacings": ("linear",)}, "no option 'linear'"),
        ({"spacings": ("power-x",)}, "'x' is no number"),
        ({"steps": (4, 2)}, "must rise"),
        ({"steps": (4,)}, "fewer steps to compare with"),
        ({"steps": (2, 8)}, "fine reference needs more steps than 8"),
        ({"samplers": ("heun",), "steps": (2, 3)}, "heun evaluates the network 2 times"),
        ({"tolerance": 0.0}, "--tolerance must be in"),
    ],
)
def test_impossible_studies_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        CONFIG.replace(**changes)


def test_the_evaluation_is_without_guidance_on_the_test_split():
    with pytest.raises(ConfigError, match="chooses on the validation split"):
        CONFIG.replace(evaluation=CONFIG.evaluation.replace(split="valid"))
    with pytest.raises(ConfigError, match="without guidance"):
        CONFIG.replace(evaluation=CONFIG.evaluation.replace(subject="persistence"))


def test_samplers_of_presets_are_complete():
    for preset in presets.SAMPLERS.values():
        config = preset("rayleigh_benard")
        assert type(config).from_json(config.to_json()).to_json() == config.to_json()
        assert len(config.candidates()) == len(config.samplers) * len(config.spacings)


def test_the_sampler_in_use_is_a_candidate_and_comes_first():
    lines = CONFIG.replace(samplers=("heun",), spacings=("angle", "power")).candidates()
    assert list(lines.items()) == [
        ("adams_bashforth", ("adams_bashforth", "time")),
        ("heun-angle", ("heun", "angle")),
        ("heun-power-7", ("heun", "power-7")),
    ]
