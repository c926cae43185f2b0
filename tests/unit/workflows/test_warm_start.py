"""Emulators that start from the weights of others."""

import dataclasses
import functools

import pytest
import torch
from small_run import plan_of, train_here
from stages import finish_diffusion

from lola.core.errors import ConfigError
from lola.distributed.jobs.train import run_training
from lola.distributed.trials import make
from lola.storage.event_log import read_events
from lola.storage.stages import WEIGHTS
from lola.training.checkpoint import load_weights
from lola.workflows.plan import SweepPlan

KINDS = ("neural_solver", "crps_ensemble")


@pytest.fixture
def warm(sweep):
    """A sweep whose ensemble starts from the solver of its rate."""
    ensemble = sweep.crps_ensemble.replace(warm_start="neural_solver")
    return sweep.replace(emulators=KINDS, crps_ensemble=ensemble, pixel=None)


def emulators(plan):
    return {step.tags["model"]: step.stage for step in plan.steps if step.stage.kind == "emulators"}


def test_the_stage_that_an_emulator_starts_from_is_an_input(warm, tmp_path, well):
    scratch = warm.replace(crps_ensemble=warm.crps_ensemble.replace(warm_start=None))
    cold, hot = (emulators(SweepPlan(config, tmp_path, well)) for config in (scratch, warm))
    assert cold["neural_solver"].fingerprint == hot["neural_solver"].fingerprint
    assert cold["crps_ensemble"].fingerprint != hot["crps_ensemble"].fingerprint
    assert hot["crps_ensemble"].inputs["warm_start"] == hot["neural_solver"].fingerprint
    other = warm.replace(
        neural_solver=warm.neural_solver.replace(network=warm.diffusion.network.replace(qk_norm=False))
    )
    other = emulators(SweepPlan(other, tmp_path, well))
    assert other["crps_ensemble"].fingerprint != hot["crps_ensemble"].fingerprint


def test_what_an_emulator_starts_from_is_made_before_it(warm, tmp_path, well):
    plan = SweepPlan(warm, tmp_path, well)
    made = set()
    for trial in plan.trials:
        assert {stage.fingerprint for stage in trial.needs} <= made
        made |= {step.stage.fingerprint for step in trial.steps}
    part = plan.towards(emulators(plan)["crps_ensemble"])
    assert set(emulators(part)) == set(KINDS)
    turned = warm.replace(
        neural_solver=warm.neural_solver.replace(warm_start="crps_ensemble"),
        crps_ensemble=warm.crps_ensemble.replace(warm_start=None),
    )
    assert list(emulators(SweepPlan(turned, tmp_path, well))) == ["crps_ensemble", "neural_solver"]


def test_a_finished_emulator_is_named_by_its_folder_name_or_fingerprint(sweep, tmp_path, well):
    stage = finish_diffusion(tmp_path, well)
    names = (str(stage.folder), stage.name, stage.fingerprint[:12])
    plans = [
        emulators(
            SweepPlan(sweep.replace(diffusion=sweep.diffusion.replace(warm_start=name)), tmp_path, well)
        )
        for name in names
    ]
    assert len({plan["diffusion"].fingerprint for plan in plans}) == 1
    assert plans[0]["diffusion"].inputs["warm_start"] == stage.fingerprint


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ({"crps_ensemble": "crps_ensemble"}, "--crps-ensemble.warm-start crps_ensemble: an emulator cannot"),
        ({"crps_ensemble": "diffusion"}, "--crps-ensemble.warm-start diffusion needs diffusion among"),
        ({"crps_ensemble": "neural_solver", "neural_solver": "crps_ensemble"}, "cannot start from itself"),
        ({"pixel": "neural_solver"}, "--pixel.warm-start must name a finished stage"),
    ],
)
def test_what_cannot_be_started_from_is_refused(sweep, sources, message):
    parts = {name: getattr(sweep, name).replace(warm_start=source) for name, source in sources.items()}
    with pytest.raises(ConfigError, match=message):
        sweep.replace(emulators=KINDS, **parts)


def test_another_network_is_refused_before_anything_runs(warm, tmp_path, well):
    network = warm.crps_ensemble.network
    wider = warm.crps_ensemble.replace(network=network.replace(features=2 * network.features))
    message = (
        "--crps-ensemble.warm-start euler-neural_solver-f8c16-.* is of another network: network.project_in"
    )
    with pytest.raises(ConfigError, match=message):
        SweepPlan(warm.replace(crps_ensemble=wider), tmp_path, well).trials  # noqa: B018


# heavyball warns of its own treatment of learning rates
@pytest.mark.filterwarnings("ignore:Learning rate changed")
def test_an_ensemble_starts_with_the_weights_of_the_solver(warm, tmp_path, well):
    small = plan_of(tmp_path, well).config
    names = ("autoencoder_training", "emulator_training", "evaluation")
    plan = SweepPlan(warm.replace(**{name: getattr(small, name) for name in names}), tmp_path, well)
    for step in plan.towards(emulators(plan)["crps_ensemble"]).steps:
        training = getattr(step.run, "func", None) is run_training
        run = functools.partial(train_here, *step.run.args) if training else step.run
        if step.tags["model"] == "crps_ensemble":
            setup = step.run.args[0].setup()
        make(dataclasses.replace(step, run=run))
    solver = warm.neural_solver.build(**step.run.args[0].sizes)
    stages = emulators(plan)
    load_weights(stages["neural_solver"].folder / WEIGHTS, solver)
    own = setup.model.state_dict()
    for name, value in solver.state_dict().items():
        assert torch.equal(own[name], value)
    stage = stages["crps_ensemble"]
    assert stage.manifest()["warm_start"] == stages["neural_solver"].name
    assert stage.manifest()["model"]["type"] == "CRPSEnsembleConfig"
    lines = [event.get("text", "") for _, event in read_events(stage.folder)]
    (line,) = (line for line in lines if "starts from" in line)
    assert f"parameters of {stages['neural_solver'].name}; 4 new (embed_noise.0.weight" in line
