"""A page: one self-contained HTML file, with its pictures and tables as files beside it."""

import base64
import dataclasses
import importlib.resources
from collections.abc import Sequence
from pathlib import Path

import jinja2
import pandas as pd
from matplotlib.figure import Figure

from lola.data.systems import System
from lola.evaluation.figures import save
from lola.evaluation.tables import Layout, heading, layout, markdown
from lola.storage import atomic_path


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the page.

    Arguments:
        name: The anchor, and the stem of the files that are written beside the page.
        title: The heading.
        text: What it shows.
        figure: A picture.
        table: Rows of a `lead_time_table`, which are laid out by method.
        plain: A table that is shown as it is.
    """

    name: str
    title: str
    text: str
    figure: Figure | None = None
    table: pd.DataFrame | None = None
    plain: pd.DataFrame | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Page:
    """What a page shows.

    Arguments:
        title: The headline.
        system: The physical system.
        findings: What the numbers say, in sentences.
        sections: Its parts.
        timings: Rows of the table of speeds.
        settings: Names and values of what was run.
        limits: What the numbers cannot show, a sentence or two each.
        links: Names and addresses of related pages.
    """

    title: str
    system: System
    findings: Sequence[str]
    sections: Sequence[Section]
    timings: Sequence[dict[str, str]] = ()
    settings: Sequence[tuple[str, str]] = ()
    limits: Sequence[str] = ()
    links: Sequence[tuple[str, str]] = ()


def write_page(folder: Path, page: Page) -> Path:
    """Write `report.html` and beside it a PNG of every figure, and a CSV and a Markdown file of every table.

    Returns:
        The path of the page, which needs no other file and no network.

    Raises:
        StorageError: The folder cannot be written.
    """
    parts = []
    for section in page.sections:
        image = ""
        if section.figure is not None:
            png = save(section.figure, folder / f"{section.name}.png").read_bytes()
            image = "data:image/png;base64," + base64.b64encode(png).decode()
        if section.table is not None:
            _write_text(folder / f"{section.name}.csv", section.table.to_csv(index=False))
            _write_text(folder / f"{section.name}.md", markdown(section.table))
        if section.plain is not None:
            _write_text(folder / f"{section.name}.csv", section.plain.to_csv(index=False))
            _write_text(folder / f"{section.name}.md", _plain_markdown(section.plain))
        shown = None if section.table is None else layout(section.table)
        parts.append({"section": section, "image": image, "table": shown, "groups": _groups(shown)})
    source = importlib.resources.files("lola.evaluation").joinpath("assets/page.html.j2").read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    html = environment.from_string(source).render(
        page=page, system=page.system.name.replace("_", " "), parts=parts, heading=heading
    )
    return _write_text(folder / "report.html", html)


def _write_text(path: Path, text: str) -> Path:
    with atomic_path(path) as aside:
        aside.write_text(text, "utf-8")
    return path


def _groups(table: Layout | None) -> list[tuple[str, int]]:
    """Headings over the columns of each metric with their spans, where there are several metrics."""
    metrics = [metric for metric, _ in table.columns] if table else []
    names = list(dict.fromkeys(metrics))
    spans = [(name.removeprefix("spectrum_rmse_"), metrics.count(name)) for name in names]
    return spans if len(names) > 1 else []


def _plain_markdown(table: pd.DataFrame) -> str:
    lines = [list(table.columns), ["---"] * len(table.columns), *table.itertuples(index=False)]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines) + "\n"
