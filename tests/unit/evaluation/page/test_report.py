import base64
import csv
import json
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pages import report

from lola.data.description import EULER
from lola.evaluation.page.findings import findings
from lola.evaluation.page.page import write_page
from lola.evaluation.page.sweep_page import make_page
from lola.evaluation.tables.lead_times import lead_time_table

VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """Elements with their attributes, the text, and whether every element is closed."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def only(table, **keys):
    for column, wanted in keys.items():
        table = table.filter(pc.equal(table[column], wanted))
    return table


def test_page_is_whole_and_needs_nothing_else(written):
    page = Page(written.read_text("utf-8"))
    assert page.open == []
    assert not {"iframe"} & {tag for tag, _ in page.elements}
    assert not [tag for tag, attributes in page.elements if tag == "script" and "src" in attributes]
    assert [attributes["href"] for tag, attributes in page.elements if tag == "link"] == ["data:,"]
    sources = [attributes["src"] for tag, attributes in page.elements if tag == "img"]
    assert len(sources) == 4
    starts = {"data:image/png;base64": b"\x89PNG", "data:image/svg+xml;base64": b"<svg"}
    for source in sources:
        head, data = source.split(",", 1)
        assert base64.b64decode(data).startswith(starts[head])
    style = written.read_text("utf-8").split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    anchors = {attributes["href"] for tag, attributes in page.elements if tag == "a"}
    places = {"#" + attributes["id"] for _, attributes in page.elements if "id" in attributes}
    assert {anchor for anchor in anchors if anchor.startswith("#")} <= places


def test_page_escapes_what_it_is_given(written):
    text = written.read_text("utf-8")
    assert "Rates &lt;b&gt;&amp;&lt;/b&gt; models" in text
    assert "Rates <b>" not in text


def test_data_of_charts_and_film_are_json_without_markup(written):
    text = written.read_text("utf-8")
    for name in ("charts", "film-data"):
        data = text.split(f'id="{name}">')[1].split("</script>")[0]
        assert "<" not in data
        assert json.loads(data)
    charts = json.loads(text.split('id="charts">')[1].split("</script>")[0])
    shown = {"vrmse", "spread_skill", "rates", "reconstruction", "spectra", "coherence", "ranks", "crps"}
    assert set(charts) == shown | {"solver_steps", "cost", "cost_training"}


def test_page_holds_the_tables_numbers_and_flags(written, sweep):
    page = Page(written.read_text("utf-8"))
    words = " ".join(page.words)
    for value in lead_time_table(sweep[0], "vrmse", EULER.ranges)["value"]:
        assert f"{value:.3f}" in words
    lost = [attributes for tag, attributes in page.elements if attributes.get("class") == "lost"]
    assert len(lost) == 2 * 3  # the pixel-space solver at every range, in two tables
    assert "16 ms" in words  # of a member
    assert "64 ms" in words  # of four
    assert "31.2×" in words
    assert "1,280 training trajectories on a grid of 16 × 16" in words
    assert "3,000 optimiser steps" in words


def test_files_lie_beside_the_page(written, sweep):
    names = {file.name for file in written.parent.iterdir()}
    stems = ("vrmse", "spectra", "spread_skill")
    assert {f"{stem}.{end}" for stem in stems for end in ("png", "svg", "csv", "md", "tex")} <= names
    assert {"significance.csv", "significance.tex", "speed.csv", "rates.png", "survey.svg"} <= names
    assert {
        "report.html",
        "states.png",
        "simulation_euler.svg",
        "solver_steps.png",
        "vrmse_autoencoded.csv",
    } <= names
    assert not [name for name in names if name.startswith(".")]
    with (written.parent / "vrmse.csv").open() as file:
        rows = list(csv.DictReader(file))
    table = lead_time_table(sweep[0], "vrmse", EULER.ranges)
    assert [float(row["value"]) for row in rows] == pytest.approx(list(table["value"]))


def test_findings_are_honest(sweep):
    sentences = findings(report(sweep)["scores"])
    lost = "In 3 of 12 table entries, marked ▲, an emulator is no better than persistence."
    assert any("diffusion at 16×, 8 solver steps is best" in sentence for sentence in sentences)
    assert sentences[0].startswith("In 3 of 12 table entries, over lead times ")
    assert "an emulator is no better than a constant field" in sentences[0]
    assert sentences[1] == lost
    good = pa.concat_tables([only(sweep[0], model="persistence"), only(sweep[0], model="diffusion")])
    first = findings(report((good, sweep[1]))["scores"])[0]
    few = "3 trajectories are too few for 3 tests, whose corrected p is 0.75 or more"
    for score in ("VRMSE", "CRPS"):
        paired = f"Diffusion against neural solver, {score} over all lead times: {few}"
        assert any(sentence.startswith(paired) for sentence in sentences)
    assert first == "Every emulator beats persistence at all ranges of lead times (6 of 6)."


@pytest.mark.long
def test_guided_models_have_a_section_of_their_own(sweep, tmp_path):
    def guided(table):
        chosen = pc.and_(pc.equal(table["model"], "diffusion"), pc.equal(table["solver_steps"], 8))
        rows = table.filter(chosen)
        names = pa.array(["mmps subsample8"] * len(rows)).dictionary_encode()
        return rows.set_column(rows.schema.get_field_index("guidance"), rows.schema.field("guidance"), names)

    both = [pa.concat_tables([table, guided(table)]) for table in sweep]
    with_observations = report(both)
    folder = tmp_path / "guided"
    text = write_page(folder, make_page(**with_observations)).read_text()
    assert "Emulation with observations" in text
    assert "With observations (mmps subsample8) the VRMSE of diffusion at 16" in text
    assert (folder / "guidance.png").exists()
    # Elsewhere the page is that of the same sweep without
    plain = write_page(tmp_path / "plain", make_page(**report(sweep))).read_text()
    assert "observations" not in plain
    for name in ("vrmse.csv", "spread_skill.csv", "spectra.csv"):
        assert (folder / name).read_text() == (tmp_path / "plain" / name).read_text()


def test_a_sweep_without_diffusion_or_with_lost_rollouts(sweep, tmp_path):
    metrics, spectra = (
        pa.concat_tables([only(table, model=model) for model in ("persistence", "neural_solver")])
        for table in sweep
    )
    column = metrics.column_names.index("value")
    metrics = metrics.set_column(
        column, "value", pc.if_else(pc.equal(metrics["space"], "latent"), pa.scalar(np.nan), metrics["value"])
    )
    bare = {"film": None, "examples": (), "timings": (), "limits": ()}
    path = write_page(tmp_path, make_page(**report((metrics, spectra), **bare)))
    words = " ".join(Page(path.read_text("utf-8")).words)
    assert "In 3 table entries, marked unstable, some rollouts became infinite or NaN" in words
    assert "unstable 3/3" in words
    assert not (tmp_path / "spread_skill.csv").exists()
    assert "cannot show" not in words
