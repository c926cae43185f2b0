import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pages import aggregates
from tidy_tables import curves, tidy

from lola.evaluation.page.sections import accuracy, conditioning, missing
from lola.evaluation.page.sweep_charts import AXES, count_seeds, lead_time_chart, rate_chart
from lola.evaluation.tables.lead_times import layout, lead_time_table
from lola.evaluation.tables.shown_metrics import CHARTED, KNOWN, metric_names


def value(metrics, **keys):
    """The value of a chart's curve with some keys and label, at the first lead time."""
    label = keys.pop("label")
    found = [one for one in metrics if one.label == label and keys.items() <= one.keys.items()]
    assert len(found) == 1
    return found[0].y[0]


@pytest.fixture
def metrics():
    return pa.concat_tables(
        [
            tidy([[level] * 3] * 2, model=model, context=context, guidance=guidance, compression=rate)
            for model, context, guidance, rate, level in (
                ("diffusion", 1, "", 80.0, 0.4), ("diffusion", 1, "", 320.0, 0.6),
                ("diffusion", 2, "", 80.0, 0.3), ("diffusion", 1, "mmps", 80.0, 0.1),
                ("neural_solver", 1, "", 80.0, 0.5),
            )
        ]
    )  # fmt: skip


def test_metrics_that_tables_know_have_axes_and_come_first():
    assert list(AXES) == list(CHARTED)
    assert [name for name in KNOWN if name in CHARTED] == list(CHARTED)
    assert metric_names({"crps", "rmse", "drift_mass", "vrmse", "skill"}) == ["vrmse", "crps", "drift_mass"]


def test_contexts_and_guidance_have_parts_of_their_own(metrics, sweep):
    scores = aggregates(metrics, sweep[1])
    contexts, guidance = conditioning(scores)
    errors = contexts.plain.set_index(["method", "context"])["1–20"].str[:5].to_dict()
    assert errors == {
        ("Neural solver", "1"): "0.500",
        ("Diffusion", "1"): "0.500",
        ("Diffusion", "2"): "0.300",
    }
    assert value(guidance.chart.series, label="Diffusion, guided by mmps", field="density") == pytest.approx(
        0.1
    )
    assert value(guidance.chart.series, label="Diffusion", field="density", context="1") == pytest.approx(0.4)
    assert not {"Contexts (Table 7)", "Guidance (Figure 6)"} & {
        name for name, _ in missing(scores, True, [3])
    }


def test_the_main_part_has_neither(metrics, sweep):
    main = aggregates(metrics, sweep[1]).main
    for frame in (main.estimates, main.errors, pd.DataFrame([curve.method for curve in main.curves])):
        assert set(frame["context"]) == {1}
        assert set(frame["guidance"]) == {""}
    assert list(conditioning(main)) == []
    lacks = dict(missing(main, False, [3]))
    assert {"Contexts (Table 7)", "Guidance (Figure 6)", "The simulator's time (Table 1)"} <= lacks.keys()
    assert "with --contexts 3;" in lacks["Contexts (Table 7)"]
    assert "Contexts (Table 7)" not in dict(missing(main, False, []))


def test_rates_stand_beside_the_papers(metrics):
    table = lead_time_table(metrics, "vrmse", [(1, 20)]).assign(target="truth")
    chart = rate_chart(table[table["guidance"] == ""], "euler")
    own = next(one for one in chart.series if one.label == "Diffusion" and one.keys["context"] == "1")
    np.testing.assert_allclose([own.x, own.y], [[80, 320], [0.4, 0.6]])
    paper = next(one for one in chart.series if one.label == "Paper: diffusion")
    np.testing.assert_allclose([paper.x, paper.y], [[80, 320, 1280], [0.075, 0.070, 0.093]])
    assert paper.points


def test_choices_are_what_curves_differ_in(metrics):
    chart = lead_time_chart(list(curves(metrics, "vrmse")), ["vrmse"])
    offered = {one.key: [value for value, _ in one.options] for one in chart.choices}
    assert offered["rate"] == ["80", "320"]
    assert offered["context"] == ["1", "2"]
    assert "solver_steps" not in offered


def test_valid_times_have_a_part(sweep):
    parts = [tidy([[1, 1, 0], [1, 0, 0]], metric="valid", training_seed=seed) for seed in (0, 1)]
    parts.append(tidy([[0.5] * 3] * 2))
    (part,) = [one for one in accuracy(aggregates(pa.concat_tables(parts), sweep[1].slice(0, 0)))
               if one.name == "valid_time"]  # fmt: skip
    assert part.plain.to_dict("records") == [
        {"method": "Neural solver", "rate": "16", "steps": "–", "members": "1", "seeds": "2",
         "valid time": "12.0 (4.0–20.0)", "valid at the end": "0%"}
    ]  # fmt: skip


def test_labels_say_how_many_seeds_a_curve_is_the_mean_of():
    rows = [tidy([[level] * 3] * 2, training_seed=seed) for seed, level in enumerate((0.2, 0.4, 0.6))]
    rows = pa.concat_tables([*rows, tidy([[0.5] * 3] * 2, model="diffusion", solver_steps=8)])
    chart = lead_time_chart(list(curves(rows, "vrmse")), ["vrmse"])
    assert {one.label for one in chart.series} == {"Neural solver, 3 seeds", "Diffusion"}
    assert value(chart.series, label="Neural solver, 3 seeds", field="density") == pytest.approx(0.4)
    table = lead_time_table(rows, "vrmse", [(1, 20)]).assign(target="truth")
    assert {one.label for one in rate_chart(table, "unknown").series} == {
        "Neural solver, 3 seeds",
        "Diffusion",
    }
    assert [row[3] for row in layout(table).rows] == ["3", "1"]
    assert count_seeds([1, 3, 3]) == ", 1 to 3 seeds"
