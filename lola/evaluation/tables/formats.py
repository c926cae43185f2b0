"""Tables as Markdown and LaTeX.

The best emulator of a column is bold, one that does not beat persistence has a `*`. An estimate is followed
by its interval and, if there is one, the number in the paper.
"""

import re

import pandas as pd

from lola.evaluation.tables.lead_times import Cell, heading, layout

SPECIAL = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"–": "--", "×": r"$\times$", "±": r"$\pm$", "<": r"$<$", ">": r"$>$"},
}


def markdown(table: pd.DataFrame) -> str:
    """One or several concatenated `lead_time_table`s in Markdown."""
    shown = layout(table)
    head = ["method", "rate", "steps", *map(heading, shown.columns)]
    rows = [[name, rate, steps, *map(_markdown_cell, cells)] for name, rate, steps, cells in shown.rows]
    return _markdown([head, ["---"] * 3 + ["---:"] * len(shown.columns), *rows])


def latex(table: pd.DataFrame) -> str:
    """The same as a LaTeX `tabular`, which needs the package booktabs."""
    shown = layout(table)
    head = ["method", "rate", "steps", *map(heading, shown.columns)]
    rows = [
        [*map(escape, (name, rate, steps)), *map(_latex_cell, cells)]
        for name, rate, steps, cells in shown.rows
    ]
    return _latex([*map(escape, head)], rows, "l" + "r" * (2 + len(shown.columns)))


def plain_markdown(table: pd.DataFrame) -> str:
    """A table of strings in Markdown, as it is."""
    return _markdown([list(table.columns), ["---"] * len(table.columns), *table.itertuples(index=False)])


def plain_latex(table: pd.DataFrame) -> str:
    """A table of strings as a LaTeX `tabular`, as it is."""
    rows = [[escape(str(value)) for value in row] for row in table.itertuples(index=False)]
    return _latex([escape(str(name)) for name in table.columns], rows, "l" + "r" * (len(table.columns) - 1))


def escape(text: str) -> str:
    """A text with LaTeX's special characters escaped."""
    return re.sub("|".join(map(re.escape, SPECIAL)), lambda match: SPECIAL[match.group()], text)


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


def _markdown(lines: list) -> str:
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines) + "\n"


def _latex(head: list[str], rows: list[list[str]], columns: str) -> str:
    lines = [rf"{' & '.join(line)} \\" for line in (head, *rows)]
    body = "\n".join([r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"])
    return f"\\begin{{tabular}}{{{columns}}}\n{body}\n\\end{{tabular}}\n"
