"""A whole sweep of every data set of The Well, on small made-up files in its layout, without a cluster."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from wells import LAYOUTS, SPLITS, write_well
from whole import brief_sweep, sweep_here

from lola.workflows.plan import SweepPlan

QUICK = ("acoustic_scattering_maze", "MHD_64", "planetswe")
"""Constant fields in 2d, 3d, and a sphere."""


def _parameter(name: str):
    marks = [pytest.mark.slow]
    marks += [pytest.mark.long] if name not in QUICK else []
    return pytest.param(name, marks=marks)


@pytest.mark.parametrize("name", [_parameter(name) for name in LAYOUTS])
def test_a_sweep_ends_with_a_report(name, tmp_path, monkeypatch):
    folder = write_well(tmp_path / "well", name)
    _sweep(folder, tmp_path, monkeypatch, stills=name not in QUICK)


@pytest.mark.slow
@pytest.mark.long
def test_simulations_on_a_line(tmp_path, monkeypatch):
    """Without a description."""
    line = {"axes": ("x",), "grid": (64,), "kinds": ("PERIODIC",), "fields": (("u", "h"), (), ())}
    folder = write_well(tmp_path / "well", "planetswe", grid_type="cartesian", **line)
    plan = _sweep(folder.rename(folder.with_name("line")), tmp_path, monkeypatch, stills=False)
    assert plan.system.dimensions == 1


@pytest.mark.slow
@pytest.mark.long
def test_the_dummy_data_of_the_well(tmp_path, monkeypatch):
    """A constant field, a scalar that varies in time and two constants, without a description."""
    dummy = pytest.importorskip("the_well.utils.dummy_data")
    np.random.seed(0)
    folder = tmp_path / "well" / "dummy_dataset"
    for split in SPLITS:
        (folder / "data" / split).mkdir(parents=True)
        dummy.write_dummy_data(str(folder / "data" / split / "dummy.hdf5"))
    plan = _sweep(folder, tmp_path, monkeypatch, stills=False)
    assert [field.role for field in plan.system.fields] == ["state", "constant", "scalar"]


def _sweep(folder, tmp_path, monkeypatch, stills) -> SweepPlan:
    plan = SweepPlan(brief_sweep(folder, tmp_path), tmp_path / "root", folder.parent)
    page = sweep_here(plan, monkeypatch, stills)
    assert plan.system.name in page.read_text().replace(" ", "_")
    evolving = {plan.system.channels[number] for number in plan.system.evolving}
    for trial in plan.evaluations:
        rows = pq.read_table(trial.steps[0].stage.folder / "metrics.parquet").to_pandas()
        assert {*rows["field"]} >= evolving
        given = {*plan.system.channels} - evolving
        assert not given & {*rows["field"]}
        values = rows.loc[rows["metric"] == "vrmse", "value"]
        assert len(values)
        assert np.isfinite(values).all()
    return plan
