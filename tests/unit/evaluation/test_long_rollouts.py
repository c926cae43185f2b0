"""Rollouts beyond the stored truth: of an emulator that replays it, and of ones that are wrong."""

import json
import runpy
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from stages import ROOT
from wells import write_well

from lola.core.errors import ConfigError
from lola.core.strict_json import dumps
from lola.data.description import SYSTEMS
from lola.data.well.splits import open_well_file
from lola.emulation.ensembles import Ensemble
from lola.evaluation import long_rollouts
from lola.evaluation.long_rollout_config import LongRolloutConfig
from lola.evaluation.long_rollouts import compare_long_rollouts, describe
from lola.simulate.rayleigh_benard import chebyshev_points

FIRST, STRIDE = 25, 4
STATES = len(range(FIRST, 49, STRIDE))
CHANNELS = ("buoyancy", "pressure", "velocity_x", "velocity_y")


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
    root = write_well(tmp_path_factory.mktemp("flow"), "rayleigh_benard", count=4)
    (path,) = (root / "data" / "test").glob("*.hdf5")
    with h5py.File(path, "r+") as file:
        file["dimensions/y"][...] = chebyshev_points(8)
    return path


class Replay(Ensemble):
    """Emulates trajectory `r` by its own stationary states, again and again; `change` makes them wrong."""

    change = staticmethod(lambda states, row, place: states)

    def emulate(self):
        yield 0, 0, torch.zeros(len(self.config.trajectories), 4, 1, 32, 8)
        for place in range(1, 1 + self.states):
            step = FIRST + STRIDE * (place % STATES)
            for row, index in enumerate(self.config.trajectories):
                states = self.split.read(index, step, step + 1)[None]
                yield row, place, type(self).change(states, row, place)


@pytest.fixture
def compare(flow, monkeypatch):
    def compare(change=None, **options):
        def opened(config):
            split = open_well_file(flow, SYSTEMS["rayleigh_benard"])
            scalars = np.stack([split.trajectories[i].scalars for i in config.trajectories])
            emulator = SimpleNamespace(device="cpu")
            kind = type("Changed", (Replay,), {"change": staticmethod(change)} if change else {})
            return kind(config, emulator, split, 1, STRIDE, config.states, scalars)

        monkeypatch.setattr(long_rollouts, "open_ensemble", opened)
        options = {"stationary": FIRST, "start": FIRST, "flux": ("buoyancy", "velocity_y")} | options
        options["trajectories"] = (0, 1, 2, 3)
        return compare_long_rollouts(LongRolloutConfig(emulator="e", initial=str(flow), **options))

    return compare


def test_a_perfect_emulator_has_the_distributions_of_the_truth(compare, flow):
    found = compare(horizon=6.0)
    assert len(found["segments"]) == 6
    assert [each["lead_times"] for each in found["segments"][:2]] == [[1, 49], [50, 98]]
    for segment in found["segments"]:  # two replays are 48 steps: of 13 states, one is seen once more
        assert segment["stable"] == 1
        assert tuple(segment["wasserstein"]) == CHANNELS
        assert max(segment["wasserstein"].values()) < 0.2 * max(found["truth"]["wasserstein"].values())
        if segment["states"] == 48:
            assert max(segment["wasserstein"].values()) < 1e-9
            assert segment["flux"] == pytest.approx(found["truth"]["flux"], rel=1e-6)
    split = open_well_file(flow, SYSTEMS["rayleigh_benard"])
    z = chebyshev_points(8)
    weights = np.linalg.solve(np.vander(z, increasing=True).T, 1 / np.arange(1, 9))
    x = np.stack([split.read(i, FIRST, 49, STRIDE).double().numpy() for i in range(4)])
    expected = 1 + (x[:, 0] * x[:, 3]).mean((0, 1, 2)) @ weights * (1e6 * 0.1) ** 0.5
    assert found["truth"]["flux"] == pytest.approx(expected, rel=1e-6)
    assert found["flux"] == "nusselt"
    assert found["truth"]["states"] == 4 * STATES
    assert json.loads(dumps(found)) == found
    table = describe(found)
    assert table["stable"].tolist() == ["1.00"] * 6 + [""]
    assert table.columns[-1] == "nusselt"


def test_rollouts_that_blow_up_are_counted_until_then(compare):
    def change(states, row, place):
        late = place > 14
        return states * torch.nan if late and row == 0 else states + 1e6 * (late and row == 1 and place < 20)

    found = compare(change, states=30, flux=None)
    assert [each["stable"] for each in found["segments"]] == [1.0, 0.5, 0.5]
    assert [each["states"] for each in found["segments"]] == [48, 2 * 12 + 2 * 2, 2 * 6]
    assert max(found["segments"][2]["wasserstein"].values()) < 0.5
    everything = compare(lambda states, row, place: states * torch.nan, states=12, flux=None)
    assert everything["segments"][0]["stable"] == 0
    assert everything["segments"][0]["wasserstein"] == dict.fromkeys(CHANNELS)
    assert describe(everything)["wasserstein"].tolist()[0] == ""
    dumps(everything)


def test_a_drift_of_the_mean_is_its_distance(compare):
    def change(states, row, place):
        states[:, 0] += 0.01 * place
        return states

    found = [each["wasserstein"]["buoyancy"] for each in compare(change, states=36)["segments"]]
    steps = np.diff(found)
    assert (steps > 0).all()
    assert steps[0] == pytest.approx(steps[1], rel=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stationary": 49}, "--stationary 49 must be less than the 49 states"),
        ({"flux": ("buoyancy", "heat")}, "--flux: there is no heat; channels are buoyancy, pressure"),
        ({"backward": True}, "forward in time"),
    ],
)
def test_impossible_comparisons(compare, options, message):
    with pytest.raises(ConfigError, match=message):
        compare(**options)


def test_files_that_are_read_are_never_replaced(flow, monkeypatch):
    program = runpy.run_path(str(ROOT / "experiments" / "long_rollouts.py"))["main"]
    before = flow.read_bytes()
    for role in ("initial", "truth"):
        files = {"initial": "other.hdf5"} | {role: str(flow)}
        config = LongRolloutConfig(emulator="e", output=str(flow), overwrite=True, **files)
        with pytest.raises(ConfigError, match="is a file that is read, which would be lost"):
            program(config)
    assert flow.read_bytes() == before
