"""Still pictures hold the curves of the descriptions that the page's charts are drawn from."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pages import aggregates

from lola.evaluation.page.charts import Axis, Chart, Choice, Series
from lola.evaluation.page.stills import Stills, palette, vega_lite
from lola.evaluation.page.sweep_charts import lead_time_chart, spectrum_chart, steps_chart
from lola.evaluation.tables.derived import RATIO
from lola.evaluation.tables.lead_times import lead_time_table


def panels(chart):
    return [panel for row in vega_lite(chart)["vconcat"] for panel in row["hconcat"]]


def curves(panel, mark="line"):
    """Coordinates of the curves of a panel by name."""
    found = {}
    for layer in panel["layer"]:
        if isinstance(layer["mark"], dict) and layer["mark"]["type"] == mark:
            for row in layer["data"]["values"]:
                found.setdefault(row["curve"], []).append((row["x"], row["y"]))
    return found


def axis(panel, channel="y"):
    return panel["layer"][-1]["encoding"][channel]


def averaged(table, model):
    """The rows of a model as if of its averaged weights."""
    rows = table.filter(pc.equal(table["model"], model))
    name = pa.array([f"{model}_ema"] * len(rows)).cast(table.schema.field("model").type)
    return rows.set_column(table.column_names.index("model"), table.schema.field("model"), name)


def test_curves_are_the_tables_estimates(sweep, scores):
    (panel,) = panels(lead_time_chart(scores.curves, ["vrmse"]))
    drawn = curves(panel)
    assert set(drawn) == {
        "Persistence", "Autoencoder alone", "Neural solver in pixel space", "Neural solver", "Diffusion"
    }  # fmt: skip
    table = lead_time_table(sweep[0], "vrmse", [(8, 8)])
    finest = table[(table["model"] == "diffusion") & (table["solver_steps"] == 8)]["value"].item()
    assert [x for x, _ in drawn["Diffusion"]] == [4, 8, 24, 64]
    assert drawn["Diffusion"][1][1] == pytest.approx(finest, rel=1e-3)
    assert axis(panel)["scale"]["type"] == "log"


def test_panels_are_rows_of_metrics_and_columns_of_ranges(scores):
    survey = panels(lead_time_chart(scores.curves, ["vrmse", RATIO], "autoencoded", rows="metric"))
    assert [set(curves(panel)) for panel in survey] == [{"Diffusion"}, {"Diffusion"}]
    assert [axis(panel)["title"] for panel in survey] == ["VRMSE of the ensemble's mean", "spread / skill"]
    assert [axis(panel)["scale"].get("type") for panel in survey] == ["log", None]
    assert survey[1]["layer"][0]["encoding"]["y"]["datum"] == 1
    ranged = panels(steps_chart(scores.tables()))
    assert [panel["title"] for panel in ranged] == [
        f"lead times {span}" for span in ("1–20", "21–60", "61–end")
    ]
    assert [x for x, _ in curves(ranged[0])["Diffusion 16×"]] == [4, 8]


def test_spectra_have_the_truth_and_the_bands(scores):
    drawn = panels(spectrum_chart(scores.spectra, "density"))
    assert len(drawn) == 4
    assert {"Truth", "Autoencoder alone", "Diffusion", "Neural solver"} <= set(curves(drawn[0]))
    power = [y for _, y in curves(drawn[0])["Truth"]]
    assert np.mean(power) == pytest.approx(1, rel=0.2)  # white noise
    assert axis(drawn[0])["scale"]["domain"][0] < min(power) / 10
    names = [layer["mark"].get("text") for layer in drawn[0]["layer"] if isinstance(layer["mark"], dict)]
    assert names[:4] == ["low", "mid", "high", "tail"]


def test_averaged_weights_have_lines_of_their_own(sweep):
    metrics = pa.concat_tables([sweep[0], averaged(sweep[0], "diffusion")])
    (panel,) = panels(lead_time_chart(aggregates(metrics, sweep[1]).curves, ["vrmse"]))
    dashes = panel["layer"][-1]["encoding"] | panel["layer"][1]["encoding"]
    looks = dict(
        zip(dashes["strokeDash"]["scale"]["domain"], dashes["strokeDash"]["scale"]["range"], strict=True)
    )
    assert looks["Diffusion"] != looks["Diffusion (EMA)"]


def chart(*values, **changes):
    series = [Series(f"c{i}", "diffusion", {"kind": f"k{i}"}, np.arange(1.0, 1 + len(y)), np.array(y))
              for i, y in enumerate(values)]  # fmt: skip
    kinds = Choice("kind", "kind", [(f"k{i}", f"kind {i}") for i in range(len(values))], "k0")
    return Chart("about", Axis("x"), Axis("y", log=True), series, [kinds], **changes)


def test_an_unstable_method_breaks_off_and_a_lost_one_is_left_out():
    drawn = panels(chart([1.0, np.inf, 2.0], [np.nan] * 3, columns="kind"))
    assert [y for _, y in curves(drawn[0])["c0"]] == [1, None, 2]
    assert curves(drawn[1]) == {}
    assert axis(drawn[0])["scale"]["domain"] == pytest.approx([1 / 1.1, 2.2])


def test_choices_without_panels_keep_their_initial_value():
    (panel,) = panels(chart([1.0, 2.0], [3.0, 4.0]))
    assert set(curves(panel)) == {"c0"}


def test_columns_are_limited():
    assert len(panels(chart(*[[1.0, 2.0]] * 20, columns="kind"))) == 6


def save_still(shown, path):
    with Stills({path.name: shown}) as stills:
        return stills.save(path.name, path.parent)


def test_a_chart_that_cannot_be_drawn_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr("lola.evaluation.page.stills.vega_lite", lambda chart: {"vconcat": "none"})
    with pytest.raises(RuntimeError, match=r"charts cannot be drawn: Traceback[\s\S]*vegalite_to_svg"):
        save_still(chart([1.0, 2.0]), tmp_path / "bad")


def test_saving_leaves_two_pictures_in_the_pages_colours(tmp_path, scores):
    files = save_still(lead_time_chart(scores.curves, ["vrmse"]), tmp_path / "vrmse")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["vrmse.png", "vrmse.svg"]
    svg, png = (file.read_bytes() for file in files)
    assert png.startswith(b"\x89PNG")
    assert palette()["diffusion"].encode() in svg
    assert b"lead time (simulation steps)" in svg
    assert b"NaN" not in svg


def test_a_chart_without_numbers_has_no_picture(tmp_path):
    assert save_still(chart([np.nan, np.nan]), tmp_path / "none") == []
    assert list(tmp_path.iterdir()) == []


def test_a_panel_without_finite_values_next_to_others_says_so(tmp_path):
    """Such as the coherence of a field that is uniform at one lead time."""
    lost = [Series("Lost", "truth", {"k": key}, x=np.arange(2), y=y) for key, y in
            (("a", np.ones(2)), ("b", np.full(2, np.nan)))]  # fmt: skip
    choice = Choice("k", "lead time", (("a", "1"), ("b", "2")), "a")
    shown = Chart("a chart", Axis("x"), Axis("y"), lost, [choice], columns="k")
    assert [each.suffix for each in save_still(shown, tmp_path / "chart")] == [".svg", ".png"]
    assert "no finite value" in (tmp_path / "chart.svg").read_text()
