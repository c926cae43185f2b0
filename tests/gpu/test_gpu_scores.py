"""Every metric on the GPU against the CPU, and whole evaluations where pyarrow is installed."""

import dataclasses

import pytest
import torch
from cases import ADAMS, emulator
from lane import CPU
from torch import Tensor

from lola.core.seeding import SampleGenerator
from lola.data.description import EULER, TURBULENCE_GRAVITY_COOLING
from lola.data.transforms import Standardisation
from lola.evaluation.scores.conservation import drift
from lola.evaluation.scores.ensemble import score_ensemble
from lola.evaluation.scores.quadrature import GridAxis

TOLERANCE = 1e-4
GRIDS = {2: (32, 24), 3: (12, 16, 8)}


def ensemble(spatial: int, members: int) -> tuple[Tensor, Tensor]:
    """A truth `(C, L, *grid)` and members around it, which equal it here and there."""
    shape = (2, 3, *GRIDS[spatial])
    truth, noise = SampleGenerator([("truth",)]).normal(*shape)[0], SampleGenerator([("noise",)])
    truth = truth.cumsum(-1) / 4
    drawn = truth + 0.3 * noise.normal(members, *shape)[0]
    drawn[0, 0, 0, :2] = truth[0, 0, :2]
    return truth, drawn


@pytest.mark.parametrize("spatial", GRIDS)
@pytest.mark.parametrize("members", [1, 2, 5])
@pytest.mark.parametrize("broken", [False, True], ids=["finite", "broken"])
@pytest.mark.parametrize("even", [True, False], ids=["even", "uneven"])
def test_scores_are_those_of_the_cpu(device, record, spatial, members, broken, even):
    truth, drawn = ensemble(spatial, members)
    size = GRIDS[spatial][1]
    weights = tuple((1 + i) / (size * (size + 1) / 2) for i in range(size))
    axes = () if even else (GridAxis("cosine"), GridAxis("none", weights), GridAxis())[:spatial]
    if broken:
        drawn[0, 1, 2] = torch.nan
        drawn[-1, 1, 1] = torch.inf
    targets = {"truth": truth, "other": truth.flip(0)}
    wanted, own = score_ensemble(targets, drawn, spatial=spatial, axes=axes)
    moved = {name: target.to(device) for name, target in targets.items()}
    found, alone = score_ensemble(moved, drawn.to(device), spatial=spatial, axes=axes)
    assert found.keys() == wanted.keys()
    for target, scores in wanted.items():
        for kind in ("metrics", "spectra"):
            ours, theirs = getattr(found[target], kind), getattr(scores, kind)
            assert ours.keys() == theirs.keys()
            for name, value in theirs.items():
                assert ours[name].device.type == device.type
                record.near(f"score {name}", ours[name], value, TOLERANCE)
        record.near("score edges of bins", found[target].edges, scores.edges, TOLERANCE)
    for field in dataclasses.fields(own):
        record.near(f"members' {field.name}", getattr(alone, field.name), getattr(own, field.name), TOLERANCE)


def test_the_drift_of_what_is_conserved_is_that_of_the_cpu(device, record):
    truth, drawn = ensemble(2, 3)
    known, means = truth[:, 0], drawn.mean((-1, -2), dtype=torch.float64)
    found = drift(known.to(device), means.to(device), spatial=2)
    record.near("drift", found, drift(known, means, spatial=2), TOLERANCE)


@pytest.mark.parametrize("system", [EULER, TURBULENCE_GRAVITY_COOLING], ids=lambda system: system.name)
def test_standardisation_is_that_of_the_cpu(device, record, system):
    standardise = Standardisation(system)
    shape = (len(system.channels), 2, *GRIDS[system.dimensions])
    x = 1e-2 + SampleGenerator([("x",)]).uniform(*shape)
    y = standardise.forward(x)
    record.near(f"standardisation {system.name}", standardise.forward(x.to(device)), y, TOLERANCE)
    record.near(f"its inverse {system.name}", standardise.inverse(y.to(device)), x, TOLERANCE)


@pytest.mark.parametrize("guided", [False, True], ids=["plain", "guided"])
@pytest.mark.parametrize("subject", ["emulator", "autoencoder", "persistence"])
def test_evaluations_are_those_of_the_cpu(well, device, record, subject, guided):
    """From files: read, encoded, emulated, decoded and scored; the tables have the same rows."""
    pytest.importorskip("pyarrow")  # which the tables are of, and which is large to carry
    if guided and subject != "emulator":
        pytest.skip("only emulators are guided")
    from lola.data.well.splits import open_split
    from lola.emulation.guidance_config import GuidanceConfig
    from lola.emulation.observation_config import ObservationConfig
    from lola.evaluation.evaluation_config import EvaluationConfig
    from lola.evaluation.scores.rows import Subject
    from lola.evaluation.trajectory import evaluate_trajectory

    split = open_split(well, EULER, "test")
    config = EvaluationConfig(subject=subject, trajectories=1, members=3, sampler=ADAMS, chunk=8)
    if guided:
        observed = ObservationConfig(operator="subsample", factor=4, every=2, noise=0.2)
        config = config.replace(observed=observed, guidance=GuidanceConfig())
    key = Subject(system="euler", dataset="d", fingerprint="f", model="m", space="latent", compression=20.0)

    def tables(device: torch.device) -> list:
        whole = emulator("diffusion", device, parameters=split.parameter_count)
        models = {"autoencoder": whole.autoencoder, "emulator": whole if subject == "emulator" else None}
        if subject == "persistence":
            models = {"autoencoder": None, "emulator": None}
        done = evaluate_trajectory(config, key, split, 0, 0, **models)
        return [done.metrics, done.spectra, done.example, done.moments]

    found, wanted = tables(device), tables(CPU)
    what = f"evaluation of {subject}{' guided' if guided else ''}"
    for ours, theirs, column in zip(found[:2], wanted[:2], ("value", "values"), strict=True):
        names = theirs["metric"].to_pylist()
        assert names == ours["metric"].to_pylist()
        for name in dict.fromkeys(names):
            rows = [i for i, each in enumerate(names) if each == name]
            values = [table[column].take(rows).to_pylist() for table in (ours, theirs)]
            record.near(f"{what}: {name}", *values, 5e-2)
    record.near(f"{what}: states", found[2], wanted[2], 2e-2)
