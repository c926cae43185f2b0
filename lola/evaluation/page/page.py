"""A page: one self-contained HTML file, and its pictures and tables as files in the same folder."""

import base64
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from matplotlib.figure import Figure

from lola.data.systems import System
from lola.evaluation.page.charts import Chart, charts_json, script_json
from lola.evaluation.page.figures import save_figure
from lola.evaluation.page.film_player import Film, pack
from lola.evaluation.page.stills import ASSETS, Stills
from lola.evaluation.tables.formats import latex, markdown, plain_latex, plain_markdown
from lola.evaluation.tables.lead_times import SPECTRUM, Layout, heading, layout, name_metric
from lola.models.kinds import kind_colours
from lola.storage.stages import atomic_path


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the page.

    Arguments:
        name: The anchor, and the stem of the files that are written next to the page.
        title: The heading; a part without one belongs to the part before.
        table: Rows of a `lead_time_table`, which are laid out by method.
        plain: A table that is shown as it is.
        chart: A chart to explore; if folded away, its still picture.
        printed: A name and the paper's own table, which is folded away.
        folded: Whether the picture is folded away.
        note: An explanation of the tables, below them.
    """

    name: str
    title: str
    text: str
    figure: Figure | None = None
    table: pd.DataFrame | None = None
    plain: pd.DataFrame | None = None
    chart: Chart | None = None
    film: Film | None = None
    printed: tuple[str, pd.DataFrame] | None = None
    folded: bool = False
    note: str = ""

    @property
    def is_interactive(self) -> bool:
        """Whether the page shows a chart whose curves can be chosen."""
        return self.chart is not None and not self.folded


@dataclasses.dataclass(frozen=True, kw_only=True)
class Page:
    """What a page shows.

    Arguments:
        title: The headline.
        findings: What the numbers say, in sentences.
        missing: Names of what the paper shows and this page lacks, each with what would produce it.
        settings: Names and values of what was run.
        limits: Sentences on what the numbers cannot show.
    """

    title: str
    system: System
    findings: Sequence[str]
    sections: Sequence[Section]
    missing: Sequence[tuple[str, str]] = ()
    settings: Sequence[tuple[str, str]] = ()
    limits: Sequence[str] = ()


def write_page(folder: Path, page: Page) -> Path:
    """Write `report.html`, and next to it every picture (PNG, SVG) and table (CSV, Markdown, LaTeX).

    Returns:
        The path of the page, which needs no other file and no network.

    Raises:
        StorageError: The folder cannot be written.
    """
    charts = {each.name: each.chart for each in page.sections if each.figure is None and each.chart}
    films = [section.film for section in page.sections if section.film is not None]
    shown = {each.name: each.chart for each in page.sections if each.chart and not each.folded}
    with Stills(charts) as stills:  # which are drawn meanwhile, until one is saved
        figures = {
            each.name: [save_figure(each.figure, folder / f"{each.name}.{end}") for end in ("png", "svg")]
            for each in page.sections
            if each.figure is not None
        }
        film = pack(films[0]) if films else None
        charts_data, film_data = charts_json(shown), script_json(film)
        tables = [_write_tables(folder, each) for each in page.sections]
        parts = [
            _part(each, figures.get(each.name) or stills.save(each.name, folder), *written)
            for each, written in zip(page.sections, tables, strict=True)
        ]
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    html = environment.from_string(_asset("page.html.j2")).render(
        page=page,
        system=page.system.name.replace("_", " "),
        parts=parts,
        heading=heading,
        explained=any(section.name == "terms" for section in page.sections),
        style=_asset("style.css"),
        colours=kind_colours(),
        scripts=[_asset("charts.js"), _asset("film.js")],
        charts=charts_data,
        film=film,
        film_data=film_data,
    )
    return _write_text(folder / "report.html", html)


def _part(
    section: Section, pictures: Sequence[Path], table: Layout | None, tables: Sequence[Path]
) -> dict[str, Any]:
    """What the template shows of a section, whose pictures and tables are written."""
    files = [path.name for path in (*pictures, *tables)]
    image = ""
    if pictures and not section.is_interactive:
        kind = {".svg": "svg+xml", ".png": "png"}[pictures[0].suffix]
        image = f"data:image/{kind};base64," + base64.b64encode(pictures[0].read_bytes()).decode()
    return {"section": section, "image": image, "table": table, "groups": _groups(table), "files": files}


def _write_tables(folder: Path, section: Section) -> tuple[Layout | None, list[Path]]:
    """Write the files of a section's table; returns its layout, if it has one, and their paths."""
    texts, shown = {}, None
    if section.table is not None:
        shown = layout(section.table)
        texts = {"csv": section.table.to_csv(index=False), "md": markdown(shown), "tex": latex(shown)}
    elif section.plain is not None:
        plain = section.plain
        texts = {"csv": plain.to_csv(index=False), "md": plain_markdown(plain), "tex": plain_latex(plain)}
    return shown, [_write_text(folder / f"{section.name}.{end}", text) for end, text in texts.items()]


def _asset(name: str) -> str:
    return (ASSETS / name).read_text("utf-8")


def _write_text(path: Path, text: str) -> Path:
    with atomic_path(path, durable=False) as tmp_path:  # who commits the report syncs its folder once
        tmp_path.write_text(text, "utf-8")
    return path


def _groups(table: Layout | None) -> list[tuple[str, int]]:
    """Headings of metrics, each with its number of columns; none for a single metric."""
    metrics = [metric for metric, _ in table.columns] if table else []
    names = list(dict.fromkeys(metrics))
    titles = {name: name.removeprefix("spectrum_rmse_") for name in SPECTRUM}
    spans = [(titles.get(name, name_metric(name)), metrics.count(name)) for name in names]
    return spans if len(names) > 1 else []
