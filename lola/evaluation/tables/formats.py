"""Tables as Markdown and LaTeX.

The best emulator of a column is bold, one that does not beat persistence has a `*`. An estimate is followed
by its interval and, if there is one, the number in the paper.
"""

import re
from collections.abc import Callable, Mapping

import pandas as pd

from lola.evaluation.tables.lead_times import UNTRAINED, Cell, Layout, heading, name_method

SPECIAL = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"–": "--", "×": r"$\times$", "±": r"$\pm$", "<": r"$<$", ">": r"$>$"},
}


def markdown(table: Layout) -> str:
    """The `layout` of one or several concatenated `lead_time_table`s in Markdown."""
    return plain_markdown(_strings(table, _markdown_cell))


def latex(table: Layout) -> str:
    """The same as a LaTeX `tabular`, which needs the package booktabs."""
    return _latex(_strings(table, _latex_cell))


def plain_markdown(table: pd.DataFrame) -> str:
    """A table of strings in Markdown, as it is."""
    rule = ["---", *["---:"] * (len(table.columns) - 1)]
    lines = [table.columns, rule, *table.itertuples(index=False, name=None)]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def scores_by_range(summary: Mapping[str, float], split: str) -> pd.DataFrame:
    """What `summarise` returns against the truth, as strings: metrics down, ranges of lead times across."""
    cells: dict[str, dict[str, str]] = {}
    for name, value in summary.items():
        prefix, metric, lead_times = name.split("/")
        if prefix == split:
            cells.setdefault(metric, {})[lead_times] = f"{value:.4g}"
    table = pd.DataFrame.from_dict(cells, orient="index").fillna("")
    return table.rename_axis("metric").reset_index()


def plain_latex(table: pd.DataFrame) -> str:
    """A table of strings as a LaTeX `tabular`, as it is."""
    return _latex(table.astype(str).map(escape))


def name_columns(table: pd.DataFrame) -> dict[str, list[str]]:
    """The first columns of a table of strings: method, rate, solver steps, members and seeds."""
    rows = [row for _, row in table.iterrows()]
    return {
        "method": [name_method(row) for row in rows],
        "rate": [f"{row['compression']:.4g}" if row["space"] == "latent" else "–" for row in rows],
        "steps": [str(row["solver_steps"] or "–") for row in rows],
        "members": [str(row["members"]) for row in rows],
        "seeds": ["–" if row["model"] in UNTRAINED else str(row["seeds"]) for row in rows],
    }


def escape(text: str) -> str:
    return re.sub("|".join(map(re.escape, SPECIAL)), lambda match: SPECIAL[match.group()], text)


def _strings(table: Layout, write: Callable[[Cell], str]) -> pd.DataFrame:
    """A table to print, with every cell written."""
    rows = [[*map(write, (*map(Cell, words), *cells))] for *words, cells in table.rows]
    return pd.DataFrame(rows, columns=["method", "rate", "steps", "seeds", *map(heading, table.columns)])


def _latex(table: pd.DataFrame) -> str:
    """A table of LaTeX texts, whose headings are escaped; Pandas' own writer takes ten times as long."""
    lines = [map(escape, table.columns), *table.itertuples(index=False, name=None)]
    head, *rows = [" & ".join(line) + r" \\" for line in lines]
    begin = rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}"
    return "\n".join([begin, r"\toprule", head, r"\midrule", *rows, r"\bottomrule", r"\end{tabular}", ""])


def _markdown_cell(cell: Cell) -> str:
    text = f"**{cell.text}**" if cell.best else cell.text
    notes = [cell.interval, f"paper {cell.paper}" if cell.paper else ""]
    note = "; ".join(filter(None, notes))
    return text + (" *" if cell.flagged else "") + (f" ({note})" if note else "")


def _latex_cell(cell: Cell) -> str:
    text = escape(cell.text)
    text = rf"\textbf{{{text}}}" if cell.best else text
    text += "$^*$" if cell.flagged else ""
    notes = filter(None, [cell.interval, f"paper {cell.paper}" if cell.paper else ""])
    note = "; ".join(map(escape, notes))
    return text + (rf" {{\scriptsize ({note})}}" if note else "")
