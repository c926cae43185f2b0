"""Emulators that start from the weights of others."""

import dataclasses
import functools
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from small_run import plan_of, train_here
from stages import finish_autoencoder, finish_diffusion

from lola.core.errors import ConfigError, DataError
from lola.data.state import Batch
from lola.distributed.jobs.train import run_training
from lola.distributed.trials import make
from lola.storage.event_log import read_events
from lola.storage.stages import WEIGHTS
from lola.training.checkpoint import copy_weights, load_weights, save_weights
from lola.workflows import presets, setups, warm_start
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


def test_the_newest_model_of_a_name_is_refused(sweep, tmp_path, well, monkeypatch):
    """The emulator would start from itself when it is planned again."""
    stage = finish_diffusion(tmp_path, well)
    monkeypatch.setattr(warm_start, "find_stage", lambda *_: stage.folder)
    config = sweep.replace(diffusion=sweep.diffusion.replace(warm_start="euler-diffusion-f8c16"))
    message = f"--diffusion.warm-start euler-diffusion-f8c16 is the newest .*; name {stage.name}$"
    with pytest.raises(ConfigError, match=message):
        SweepPlan(config, tmp_path, well).trials  # noqa: B018
    for name in ("models:/euler-diffusion-f8c16/2", "runs:/0123abcd"):
        diffusion = sweep.diffusion.replace(warm_start=name)
        plan = SweepPlan(sweep.replace(diffusion=diffusion), tmp_path, well)
        assert emulators(plan)["diffusion"].inputs["warm_start"] == stage.fingerprint


def test_a_stage_of_another_kind_of_model_is_refused(sweep, tmp_path, well):
    stage = finish_autoencoder(tmp_path, well)
    config = sweep.replace(diffusion=sweep.diffusion.replace(warm_start=str(stage.folder)))
    with pytest.raises(DataError, match=f"{stage.name} is one of autoencoders, not an emulator"):
        SweepPlan(config, tmp_path, well).trials  # noqa: B018


def test_autoencoders_of_all_rates_start_from_a_finished_one(sweep, tmp_path, well):
    stage = finish_autoencoder(tmp_path, well)
    scratch = sweep.replace(latent_channels=(16, 8))
    config = scratch.replace(autoencoder=sweep.autoencoder.replace(warm_start=stage.name))
    cold, hot = (SweepPlan(each, tmp_path, well) for each in (scratch, config))
    trained = {step.stage.fingerprint: step for step in hot.steps if step.tags["stage"] == "autoencoder"}
    weights = load_file(stage.folder / WEIGHTS)
    for n, misshapen in ((16, False), (8, True)):
        assert hot.autoencoder(n).fingerprint != cold.autoencoder(n).fingerprint
        assert hot.autoencoder(n).inputs["warm_start"] == stage.fingerprint
        run = trained[hot.autoencoder(n).fingerprint].run.args[0]
        assert run.details["warm_start"] == stage.name
        setup = run.setup()
        own = setup.model.state_dict()
        same = [name for name, value in own.items() if value.shape == weights[name].shape]
        assert all(torch.equal(own[name], weights[name]) for name in same)
        assert (len(same) < len(own)) == misshapen
        (line,) = setup.notices
        assert line.startswith(f"starts from {len(same)} parameters of {stage.name}")
        assert ("of another shape there" in line) == misshapen
    other = sweep.autoencoder.replace(warm_start=stage.name, channels=(16, 32))
    with pytest.raises(ConfigError, match=f"--autoencoder.warm-start {stage.name} is of another network"):
        SweepPlan(sweep.replace(autoencoder=other), tmp_path, well).trials  # noqa: B018


def test_a_study_of_optimisers_starts_from_nothing():
    study = next(iter(presets.STUDIES.values()))()
    with pytest.raises(ConfigError, match="a study of optimisers"):
        study.replace(autoencoder=study.autoencoder.replace(warm_start="euler-autoencoder-f8c16"))


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


@pytest.mark.parametrize(
    ("source", "kind"),
    [("neural_solver", "diffusion"), ("diffusion", "crps_ensemble"), ("neural_solver", "shortcut")],
)
def test_kinds_with_another_objective_start_from_the_same_network(sweep, source, kind, tmp_path, well):
    """Only what embeds noise, or a length of steps, is new."""
    networks = {
        name: getattr(sweep, name).replace(network=sweep.diffusion.network) for name in (source, kind)
    }
    networks[kind] = networks[kind].replace(warm_start=source)
    SweepPlan(sweep.replace(emulators=(source, kind), pixel=None, **networks), tmp_path, well).trials  # noqa: B018
    sizes = {"channels": 4, "parameters": 5, "spatial": 2, "window": 5}
    torch.manual_seed(0)
    start, model = (networks[name].build(**sizes) for name in (source, kind))
    for parameter in start.parameters():
        torch.nn.init.normal_(parameter)
    save_weights(tmp_path / "start.safetensors", start)
    transfer = copy_weights(tmp_path / "start.safetensors", model)
    assert transfer.copied
    assert not transfer.misshapen
    assert all("embed_noise" in name or "embed_step" in name for name in (*transfer.new, *transfer.unused))
    theirs = {name.removeprefix("denoiser.backbone."): value for name, value in start.state_dict().items()}
    for name in transfer.copied:
        assert torch.equal(model.state_dict()[name], theirs[name.removeprefix("denoiser.backbone.")])
    assert len(transfer.copied) > len(transfer.new) + len(transfer.unused)


@pytest.mark.parametrize("channels", [4, 3])
def test_the_scale_of_changes_is_that_of_the_weights_or_is_found_anew(sweep, tmp_path, channels, monkeypatch):
    """It is of the same channels, else it would stay 1."""
    model = sweep.neural_solver.replace(predicts="change")
    sizes = {"parameters": 5, "spatial": 2, "window": 5}
    start = model.build(channels=4, **sizes)
    start.change.scale.fill_(7.0)
    (tmp_path / "start").mkdir()
    save_weights(tmp_path / "start" / WEIGHTS, start)
    states = torch.randn(8, channels, 5, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.1
    recipe = SimpleNamespace(model=model, training=sweep.emulator_training, window=5)
    batches = [(Batch(states=states, parameters=torch.zeros(8, 5)), None)]
    monkeypatch.setattr(setups, "fixed_batches", lambda *_, **__: iter(batches))
    made = setups._setup(recipe, {"channels": channels, **sizes}, None, None, tmp_path / "start")
    scale = made.model.change.scale
    assert (scale == 7.0).all() == (channels == 4)
    assert not (scale == 1.0).any()


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
    ensemble = warm.crps_ensemble.replace(rollout_windows=2, masks="forward", energy=0.5)
    message = r"--crps-ensemble.rollout-windows 2 of a --window of 5 .* spans 33 steps; .* have 21"
    with pytest.raises(ConfigError, match=message):
        SweepPlan(warm.replace(crps_ensemble=ensemble), tmp_path, well)
    warm = warm.replace(crps_ensemble=ensemble, window=3)
    names = ("autoencoder_training", "emulator_training", "evaluation")
    plan = SweepPlan(warm.replace(**{name: getattr(small, name) for name in names}), tmp_path, well)
    for step in plan.towards(emulators(plan)["crps_ensemble"]).steps:
        training = getattr(step.run, "func", None) is run_training
        run = functools.partial(train_here, *step.run.args) if training else step.run
        if step.tags["model"] == "crps_ensemble":
            setup = step.run.args[0].setup()
        make(dataclasses.replace(step, run=run))
    assert setup.training.length == setup.validation.length == 2 * warm.window - 1
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


def test_changes_and_states_do_not_start_from_each_other(warm, tmp_path, well):
    changes = warm.replace(crps_ensemble=warm.crps_ensemble.replace(predicts="change"))
    with pytest.raises(ConfigError, match="predicts the state, and its weights make no change; choose the"):
        SweepPlan(changes, tmp_path, well).trials  # noqa: B018
