"""The stages of all presets keep their fingerprints, or finished results are not found again.

The data are made up: what fingerprints depend on, and nothing else. Where a fingerprint changes on purpose,
`LOLA_UPDATE_GOLDENS=1 python -m pytest tests/regression/test_fingerprints.py` writes the file again; say in
CHANGELOG.md which stages are made again, and why.
"""

import json
import os
from pathlib import Path

import guide
import numpy as np
import pytest

from lola.core.config import Config, fingerprint
from lola.data.description import SYSTEMS, described_systems, get_system
from lola.data.well.datasets import Datasets
from lola.data.well.splits import TrajectoryRef, WellSplit
from lola.workflows import presets
from lola.workflows.plan import SweepPlan
from lola.workflows.studies.optimizer_plan import OptimizerPlan
from lola.workflows.studies.sampler_plan import SamplerPlan

GOLDENS = Path(__file__).with_name("fingerprints.json")
WELL = "well"


def made_up(system, split, grid):
    """A split of two trajectories whose fingerprint says what it is."""
    trajectories = tuple(
        TrajectoryRef(
            id=f"{system.datasets[0]}/{split}/a.hdf5#{index}",
            file=Path("a.hdf5"),
            index=index,
            steps=200,
            scalars=np.ones(1),
            boundary=np.full((system.dimensions, 2), 2),
        )
        for index in range(2)
    )
    return WellSplit(
        system=system,
        grid=grid,
        coordinates=tuple(np.arange(size, dtype=np.float64) for size in grid),
        constants=("constant",),
        trajectories=trajectories,
        fingerprint=fingerprint("made up", system.name, split),
    )


@pytest.fixture
def data_of(monkeypatch):
    """A function that makes all data those of a configuration's grid."""

    def use(config):
        grid = config.simulation.grid if config.simulation else SYSTEMS[config.system].published.grid
        monkeypatch.setattr(
            Datasets, "open", lambda _, system, split, faults=None: made_up(system, split, grid)
        )

    return use


def found_by(plan):
    """The fingerprint of every stage of a plan, by its kind and name."""
    stages = [step.stage for trial in plan.trials for step in trial.steps]
    return {f"{stage.kind}/{stage.what}": stage.fingerprint for stage in stages}


def check(name: str, found: dict[str, str]) -> None:
    """Compare with the goldens, or write them where the environment asks for it."""
    goldens = json.loads(GOLDENS.read_text()) if GOLDENS.exists() else {}
    if os.environ.get("LOLA_UPDATE_GOLDENS"):
        goldens[name] = found
        GOLDENS.write_text(json.dumps(goldens, indent=1, sort_keys=True) + "\n")
    assert found == goldens[name]


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("preset", ["mini", "smoke", "paper"])  # others have minutes, not steps
def test_sweeps(preset, system, tmp_path, data_of):
    config = presets.SWEEPS[preset](system)
    data_of(config)
    check(f"sweep {preset} {system}", found_by(SweepPlan(config, tmp_path, WELL)))


def test_described_systems():
    """What their data's fingerprints take of the descriptions that come with this package."""
    described = {name: get_system(name) for name in described_systems() if name not in SYSTEMS}
    check("identities of described systems", {name: each.identity for name, each in described.items()})
    check("scoring of described systems", {name: each.scoring["scoring"] for name, each in described.items()})


def test_options_that_add_stages(tmp_path, data_of):
    """Computed statistics, averages of weights, further contexts, and observations."""
    config = guide.configure(presets.smoke)()
    averaged = {
        name: getattr(config, name).replace(ema=0.99)
        for name in ("autoencoder_training", "emulator_training", "pixel_training")
    }
    config = config.replace(statistics="computed", contexts=(2,), **averaged)
    data_of(config)
    check("sweep smoke euler, with all options", found_by(SweepPlan(config, tmp_path, WELL)))


@pytest.mark.parametrize("preset", presets.STUDIES)
def test_studies_of_optimisers(preset, tmp_path, data_of):
    config = presets.STUDIES[preset]()
    data_of(config)
    check(f"study of optimisers {preset}", found_by(OptimizerPlan(config, tmp_path, WELL)))


@pytest.mark.parametrize("preset", presets.SAMPLERS)
def test_studies_of_samplers(preset, tmp_path, data_of):
    """One fingerprint of all numbers of steps of a candidate."""
    sweep = presets.SWEEPS[preset]()
    data_of(sweep)
    plan = SweepPlan(sweep, tmp_path, WELL)
    rate = sweep.latent_channels[0]
    emulator, autoencoder = plan.emulator(plan.planned("diffusion", rate)), plan.autoencoder(rate)
    codec = autoencoder.config.model
    autoencoder.commit(model=as_json(codec), sizes={"channels": 5, "spatial": 2})
    emulator.commit(
        model=as_json(sweep.diffusion),
        sizes={"channels": rate, "spatial": 2, "parameters": 5, "window": sweep.window},
        autoencoder=autoencoder.name,
    )
    study = SamplerPlan(presets.SAMPLERS[preset](), tmp_path, WELL)
    check(
        f"study of samplers {preset}",
        {
            trial.name.split(": ")[1]: fingerprint(*(step.stage.fingerprint for step in trial.steps))
            for trial in study.validation
        },
    )


def as_json(config: Config) -> dict:
    return {"type": type(config).__name__, **config.to_json()}
