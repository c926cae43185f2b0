"""A kind of emulator is a class of configurations and an entry of the table: sweeps take it from there."""

import dataclasses
import functools

import pytest
import torch
from inline import run_inline
from small_run import plan_of, train_here

from lola.core.errors import ConfigError
from lola.distributed.jobs.train import run_training
from lola.distributed.trials import make
from lola.evaluation.page.stills import palette
from lola.evaluation.tables.stored import read_table
from lola.models import kinds
from lola.models.kinds import KINDS, Colour, EmulatorKind
from lola.models.neural_solver import NeuralSolver
from lola.models.neural_solver_config import NeuralSolverConfig
from lola.workflows import sweep_conclusion, sweep_report
from lola.workflows.plan import SweepPlan


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoisySolverConfig(NeuralSolverConfig):
    def build(self, channels, parameters, spatial, window):
        return NoisySolver(self, channels, parameters, spatial, window)


class NoisySolver(NeuralSolver):
    def predict(self, known, mask, parameters, generator, bound=None):
        window = super().predict(known, mask, parameters, generator, bound)
        return torch.where(mask, window, window + generator.normal(*window.shape[1:]))


@pytest.fixture
def noisy(monkeypatch):
    """A kind of emulator in the table."""
    kind = EmulatorKind(
        name="noisy_solver",
        title="Noisy solver",
        config=NoisySolverConfig,
        stochastic=True,
        sampler_steps=False,
        colour=Colour("#112233", "#445566"),
        pixel_colour=Colour("#112244", "#445577"),
    )
    monkeypatch.setitem(KINDS, kind.name, kind)
    return kind


def test_the_plan_of_a_sweep_has_the_stages_of_every_chosen_kind(sweep, tmp_path, well, noisy):
    before = SweepPlan(sweep, tmp_path, well)
    after = SweepPlan(sweep.replace(emulators=(*sweep.emulators, noisy.name)), tmp_path, well)
    names = [{trial.name for trial in plan.trials} for plan in (before, after)]
    assert names[1] - names[0] == {"noisy_solver f8c16", "evaluation noisy_solver-f8c16"}
    assert names[0] < names[1]
    stages = [{step.stage.fingerprint for step in plan.steps} for plan in (before, after)]
    assert stages[0] < stages[1]
    assert before.fingerprint != after.fingerprint
    alone = SweepPlan(sweep.replace(emulators=(noisy.name,), pixel=None), tmp_path, well)
    found = {step.tags["model"] for step in alone.steps}
    references = {"climatology", "persistence", "autoencoded_persistence", "autoencoder"}
    assert found == references | {"noisy_solver"}


def test_options_of_a_kind_that_is_not_chosen_change_no_fingerprint(sweep, tmp_path, well):
    assert sweep.crps_ensemble is not None
    bare = SweepPlan(sweep.replace(crps_ensemble=None), tmp_path, well)
    assert SweepPlan(sweep, tmp_path, well).fingerprint == bare.fingerprint
    chosen = sweep.replace(emulators=("crps_ensemble",))
    other = chosen.replace(crps_ensemble=sweep.crps_ensemble.replace(members=2))
    plans = [SweepPlan(config, tmp_path, well) for config in (chosen, other)]
    assert plans[0].fingerprint != plans[1].fingerprint


def test_an_unknown_kind_is_refused(sweep):
    with pytest.raises(
        ConfigError, match="--emulators: unknown kind 'oracle'; choose from neural_solver, diff"
    ):
        sweep.replace(emulators=("oracle",))


@pytest.mark.slow
# heavyball warns of its own treatment of learning rates
@pytest.mark.filterwarnings("ignore:Learning rate changed")
def test_a_kind_of_ten_lines_is_trained_scored_and_reported(tmp_path, well, noisy, monkeypatch):
    run_inline(monkeypatch)
    config = plan_of(tmp_path, well).config
    config = config.replace(emulators=("neural_solver", noisy.name), pixel=None)
    plan = SweepPlan(config, tmp_path, well)
    for step in plan.steps:
        if getattr(step.run, "func", None) is run_training:
            step = dataclasses.replace(step, run=functools.partial(train_here, *step.run.args))
        make(step)
    (stage,) = (trial.steps[0].stage for trial in plan.evaluations if "noisy" in trial.name)
    metrics = read_table(stage.folder / "metrics.parquet").to_pandas()
    assert set(metrics["model"]) == {"noisy_solver"}
    spread = metrics[(metrics["metric"] == "spread") & (metrics["target"] == "truth")]["value"]
    assert (spread > 0).all()
    shown = sweep_conclusion.summarise_sweep(plan)
    assert "Noisy solver" in list(shown.columns[0].cells)
    page = sweep_report.report_sweep(plan).read_text()
    for text in ("Noisy solver, mean", "Noisy solver against neural solver", "--c-noisy_solver: #112233"):
        assert text in page
    assert palette()["noisy_solver-pixel"] == "#112244"


def test_no_kind_shares_its_colours_or_its_name():
    colours = [colour.light for colour in kinds.kind_colours().values()]
    assert len(set(colours)) == len(colours) == 2 * len(KINDS)
    for name in KINDS:
        assert not [other for other in KINDS if other != name and other.startswith(name)]
