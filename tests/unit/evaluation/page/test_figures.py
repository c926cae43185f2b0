import matplotlib
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from lola.evaluation.page.figures import (
    Example,
    accuracy_over_steps,
    error_over_lead_time,
    example_states,
    save,
    spectra_at,
    spread_skill_over_lead_time,
)
from lola.evaluation.tables.curves import curves
from lola.evaluation.tables.lead_times import lead_time_table
from lola.evaluation.tables.mean_spectra import mean_spectra

RANGES = ((1, 20), (21, None))


def lines(axes):
    return {line.get_label(): line for line in axes.get_lines()}


def unstable(table):
    """The table with latent neural solvers gone astray."""
    lost = pc.and_(pc.equal(table["model"], "neural_solver"), pc.equal(table["space"], "latent"))
    name = table.column_names[-1]
    return table.set_column(len(table.column_names) - 1, name, pc.if_else(lost, None, table[name]))


def averaged(table, model):
    """The rows of a model as if of its averaged weights."""
    rows = table.filter(pc.equal(table["model"], model))
    name = pa.array([f"{model}_ema"] * len(rows)).cast(table.schema.field("model").type)
    return rows.set_column(table.column_names.index("model"), table.schema.field("model"), name)


def test_curves_are_the_tables_estimates(sweep, scores):
    figure = error_over_lead_time(scores.curves)
    (axes,) = figure.axes
    drawn = lines(axes)
    assert set(drawn) == {
        "Persistence", "Autoencoder alone", "Neural solver in pixel space", "Neural solver", "Diffusion"
    }  # fmt: skip
    table = lead_time_table(sweep[0], "vrmse", [(8, 8)])
    finest = table[(table["model"] == "diffusion") & (table["solver_steps"] == 8)]["value"].item()
    assert list(drawn["Diffusion"].get_xdata()) == [4, 8, 24, 64]
    assert drawn["Diffusion"].get_ydata()[1] == pytest.approx(finest)


def test_ratio_and_steps_have_their_lines(sweep, scores):
    (axes,) = spread_skill_over_lead_time(scores.curves).axes
    assert "Diffusion 16×" in lines(axes)
    panels = accuracy_over_steps(lead_time_table(sweep[0], "vrmse", RANGES)).axes
    assert len(panels) == 2
    assert list(lines(panels[0])["Diffusion 16×"].get_xdata()) == [4, 8]


def test_spectra_draw_truth_and_methods(sweep):
    figure = spectra_at(mean_spectra(sweep[1]), "density", (4, 64))
    assert len(figure.axes) == 2
    drawn = lines(figure.axes[0])
    assert {"Truth", "Autoencoder alone", "Diffusion", "Neural solver"} <= set(drawn)
    assert drawn["Truth"].get_ydata().mean() == pytest.approx(1, rel=0.2)  # white noise


def test_averaged_weights_have_lines_of_their_own(sweep):
    metrics, spectra = (
        pa.concat_tables([table, averaged(table, "diffusion"), averaged(table, "neural_solver")])
        for table in sweep
    )
    (axes,) = error_over_lead_time(curves(metrics, "vrmse")).axes
    drawn = lines(axes)
    assert {"Diffusion", "Diffusion (EMA)", "Neural solver (EMA)"} <= set(drawn)
    assert drawn["Diffusion"].get_linewidth() > drawn["Diffusion (EMA)"].get_linewidth()
    spectra_at(mean_spectra(spectra), "density", (4,)).canvas.draw()


def test_unstable_methods_break_off(sweep):
    lost = unstable(sweep[0]), unstable(sweep[1])
    (axes,) = error_over_lead_time(curves(lost[0], "vrmse")).axes
    assert "Neural solver" not in lines(axes)
    accuracy_over_steps(lead_time_table(lost[0], "vrmse", RANGES)).canvas.draw()
    spectra_at(mean_spectra(lost[1]), "density", (4,)).canvas.draw()


def test_pictures_share_the_truths_scale(tmp_path):
    truth = np.linspace(0, 1, 3 * 8 * 12).reshape(3, 8, 12)
    example = Example("one", [("truth", truth), ("wrong", truth + 10)], [4, 8, 12])
    figure = example_states(example)
    images = [axes.images[0] for axes in figure.axes if axes.images]
    assert len(images) == 6
    assert len({image.get_clim() for image in images}) == 1
    assert images[0].get_clim()[1] < 1.01
    # x runs to the right and y upwards
    np.testing.assert_array_equal(images[0].get_array(), truth[0].T)
    assert images[0].origin == "lower"


def test_saving_leaves_one_png_and_no_trace(tmp_path, scores):
    before = dict(matplotlib.rcParams)
    path = save(error_over_lead_time(scores.curves), tmp_path / "figure.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [file.name for file in tmp_path.iterdir()] == ["figure.png"]
    assert dict(matplotlib.rcParams) == before
