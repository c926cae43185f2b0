import numpy as np
import pytest
from tidy_tables import tidy

from lola.data.description import SYSTEMS
from lola.evaluation.tables.formats import markdown
from lola.evaluation.tables.lead_times import layout, lead_time_table
from lola.evaluation.tables.paper import paper_ranges, printed, printed_table, printed_values


def figure(system, model, compression, metric, first):
    rows = printed(system)
    rows = rows[rows["context"].isna() & (rows["model"] == model) & (rows["compression"] == compression)]
    return rows[(rows["metric"] == metric) & (rows["first"] == first)]["value"].item()


def test_all_figures_are_read():
    assert sum(len(printed(name)) for name in SYSTEMS) == 402
    assert figure("euler", "diffusion", 320, "vrmse", 61) == 0.371
    assert figure("rayleigh_benard", "neural_solver", 1, "spectrum_rmse_low", 1) == 4.143
    assert figure("turbulence_gravity_cooling", "diffusion", 768, "spectrum_rmse_mid", 31) == 0.360
    assert len(printed("else")) == 0


def test_misprints_are_read_as_what_was_meant():
    assert figure("euler", "autoencoder", 80, "spectrum_rmse_high", 61) == 0.098
    assert figure("rayleigh_benard", "autoencoder", 64, "spectrum_rmse_high", 1) == 0.099
    assert figure("euler", "neural_solver", 1, "spectrum_rmse_high", 21) == 0.984


@pytest.mark.parametrize("system", SYSTEMS.values(), ids=SYSTEMS)
@pytest.mark.parametrize("metric", ["vrmse", "spectrum_rmse_mid"])
def test_every_range_has_figures(system, metric):
    rows = printed(system.name)
    firsts = {first for first, _ in paper_ranges(system, metric)}
    assert set(rows.loc[rows["metric"] == metric, "first"]) == firsts


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ({"model": "diffusion", "compression": 80.0}, (0.075, 0.199)),
        ({"model": "neural_solver", "compression": 1.0, "space": "pixel"}, (0.138, 0.397)),
        ({"model": "diffusion", "compression": 81.0}, (np.nan, np.nan)),
        ({"model": "diffusion", "compression": 80.0, "guidance": "mmps"}, (np.nan, np.nan)),
        ({"model": "diffusion_ema", "compression": 80.0}, (np.nan, np.nan)),
    ],
)
def test_figures_stand_beside_equal_models_rates_and_ranges(keys, found):
    table = lead_time_table(tidy([[1, 2, 3]], **keys), "vrmse", [(1, 20), (21, 60)])
    np.testing.assert_array_equal(printed_values(table, "euler"), found)
    assert printed_values(table, "else").isna().all()


def test_tables_show_the_figures():
    table = lead_time_table(tidy([[1, 2, 3]], model="diffusion", compression=80.0), "vrmse", [(1, 20)])
    assert "**1.500** (paper 0.075)" in markdown(layout(table.assign(paper=printed_values(table, "euler"))))


def test_the_papers_own_table():
    table = printed_table("turbulence_gravity_cooling", ["vrmse"])
    assert list(table.columns) == ["method", "rate", "1–10", "11–20", "21–50"]
    assert len(table) == 9
    assert list(table.iloc[0]) == ["autoencoder", "48", "0.151", "0.116", "0.129"]
    spectra = printed_table("euler", ["spectrum_rmse_low", "spectrum_rmse_mid", "spectrum_rmse_high"])
    assert spectra.shape == (10, 11)
    assert (
        spectra.set_index(["method", "rate"]).loc[("neural solver, pixel space", "1"), "high 61–100"]
        == "2.666"
    )
