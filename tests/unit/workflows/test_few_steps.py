"""Few-step diffusion and predicted changes in sweeps."""

import dataclasses
import functools

import numpy as np
import pytest
import torch
from inline import run_inline
from small_run import plan_of, train_here

from lola.distributed.jobs.train import run_training
from lola.distributed.trials import make
from lola.emulation.emulator import load_emulator
from lola.emulation.sampling_config import SamplerConfig
from lola.evaluation.evaluation_config import EvaluationConfig
from lola.evaluation.tables.stored import read_table
from lola.training.checkpoint import save_weights
from lola.workflows.plan import SweepPlan
from lola.workflows.setups import field_setup


@pytest.fixture
def few(sweep):
    student = sweep.shortcut.replace(warm_start="diffusion")
    return sweep.replace(emulators=("diffusion", "shortcut"), shortcut=student, pixel=None)


def samplers(plan):
    """The samplers of each kind's evaluations, in order."""
    found = {}
    for trial in plan.evaluations:
        (step,) = trial.steps
        assert isinstance(step.stage.config, EvaluationConfig)
        if step.stage.config.sampler is not None:
            found.setdefault(step.tags["model"], []).append(step.stage.config.sampler)
    return found


def test_few_step_diffusion_is_evaluated_by_its_own_steps(few, tmp_path, well):
    found = samplers(SweepPlan(few, tmp_path, well))
    assert found["shortcut"] == [SamplerConfig(name="euler", steps=steps) for steps in few.solver_steps]
    assert found["diffusion"] == [few.evaluation.sampler.replace(steps=steps) for steps in few.solver_steps]


def test_few_step_diffusion_starts_from_the_diffusion_model_of_its_rate(few, tmp_path, well):
    plan = SweepPlan(few, tmp_path, well)
    stages = {step.tags["model"]: step.stage for step in plan.steps if step.stage.kind == "emulators"}
    assert list(stages) == ["diffusion", "shortcut"]
    assert stages["shortcut"].inputs["warm_start"] == stages["diffusion"].fingerprint
    bare = SweepPlan(few.replace(emulators=("diffusion",), shortcut=None), tmp_path, well)
    (alone,) = (step.stage for step in bare.steps if step.stage.kind == "emulators")
    assert alone.fingerprint == stages["diffusion"].fingerprint


def test_the_size_of_changes_is_that_of_the_training_set(sweep, tmp_path, well):
    """In every worker, before anything is trained; a warm start brings the size that its weights know."""
    config = sweep.replace(pixel=sweep.pixel.replace(predicts="change"))
    plan = SweepPlan(config, tmp_path, well)
    stage, other = (
        each.emulator(each.planned("neural_solver", None))
        for each in (plan, SweepPlan(sweep, tmp_path, well))
    )
    assert stage.fingerprint != other.fingerprint
    (run,) = (step.run.args[0] for step in plan.steps if step.stage.fingerprint == stage.fingerprint)
    setup = run.setup()
    windows = [setup.training.read(i, (0, i))[0].numpy() for i in range(len(setup.training))]
    changes = np.stack([window[:, 1:] - window[:, :1] for window in windows])
    expected = np.sqrt(np.square(changes).mean(axis=(0, 2, 3, 4)))
    np.testing.assert_allclose(setup.model.change.scale, np.where(expected > 0, expected, 1), rtol=0.1)
    assert torch.equal(run.setup().model.change.scale, setup.model.change.scale)
    setup.model.change.scale.fill_(3.0)
    tmp_path.joinpath("other").mkdir()
    save_weights(tmp_path / "other" / "model.safetensors", setup.model)
    started = field_setup(stage.config, plan.datasets, plan.system, run.sizes, tmp_path / "other")
    assert torch.equal(started.model.change.scale, setup.model.change.scale)


@pytest.mark.slow
# heavyball warns of its own treatment of learning rates
@pytest.mark.filterwarnings("ignore:Learning rate changed")
def test_few_step_diffusion_is_trained_and_scored(few, tmp_path, well, monkeypatch):
    """With changes predicted from noisy contexts, from a teacher whose contexts have no noise."""
    run_inline(monkeypatch)
    plan = plan_of(tmp_path, well)
    student = few.shortcut.replace(predicts="change", context_noise=0.1, rollout_noise=0.05, consistency=0.5)
    options = {"emulators": few.emulators, "shortcut": student, "pixel": None, "solver_steps": (2,)}
    options |= {"diffusion": plan.config.diffusion.replace(predicts="change")}
    plan = SweepPlan(plan.config.replace(**options), tmp_path, well)
    (stage,) = (trial.steps[0].stage for trial in plan.evaluations if "shortcut" in trial.name)
    for step in plan.towards(stage).steps:
        if getattr(step.run, "func", None) is run_training:
            step = dataclasses.replace(step, run=functools.partial(train_here, *step.run.args))
        make(step)
    metrics = read_table(stage.folder / "metrics.parquet").to_pandas()
    assert set(metrics["model"]) == {"shortcut"}
    assert set(metrics["sampler"]) == {"euler"}
    assert set(metrics["solver_steps"]) == {2}
    spread = metrics[(metrics["metric"] == "spread") & (metrics["target"] == "truth")]["value"]
    assert (spread > 0).all()
    trained = {step.tags["model"]: step.stage for step in plan.steps if step.stage.kind == "emulators"}
    drawn_by = {name: load_emulator(each.folder).sampler.name for name, each in trained.items()}
    assert drawn_by == {"diffusion": "adams_bashforth", "shortcut": "euler"}
