"""Figures with their goals, as JSON values and as a Markdown table."""

import dataclasses
from collections.abc import Iterator
from typing import Any


@dataclasses.dataclass(frozen=True)
class Figure:
    """A number that was measured.

    Arguments:
        name: What it is.
        value: The number.
        unit: Its unit; `%` shows a share as such.
        most, least: The goal, if there is one.
        note: What it is compared with, if anything.
    """

    name: str
    value: float
    unit: str = ""
    most: float | None = None
    least: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether it reaches its goal; None without one."""
        if self.most is None and self.least is None:
            return None
        return (self.most is None or self.value <= self.most) and (
            self.least is None or self.value >= self.least
        )

    def to_json(self) -> dict[str, Any]:
        """Its fields that are set, and `met`."""
        values = {**dataclasses.asdict(self), "met": self.met}
        return {name: value for name, value in values.items() if value not in (None, "")}

    @property
    def shown(self) -> tuple[str, str, str]:
        """The value, the goal and whether it is met, as text."""
        goals = [f"{sign} {self._text(goal)}" for sign, goal in (("≤", self.most), ("≥", self.least)) if goal]
        verdict = {None: "", True: "met", False: "missed"}[self.met]
        return self._text(self.value), " and ".join(goals), verdict

    def _text(self, value: float) -> str:
        return f"{100 * value:.3g} %" if self.unit == "%" else f"{value:,.4g} {self.unit}".rstrip()


@dataclasses.dataclass
class Outcome:
    """What a case gave.

    Arguments:
        name: The case.
        seconds: How long it took.
        figures: What it measured.
        error: Why it failed, in one line, if it did.
    """

    name: str
    seconds: float
    figures: list[Figure] = dataclasses.field(default_factory=list)
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        figures = {figure.name: figure.to_json() for figure in self.figures}
        values = {"name": self.name, "seconds": round(self.seconds, 2), "figures": figures}
        return values | ({"error": self.error} if self.error else {})

    def rows(self) -> Iterator[tuple[str, ...]]:
        """The rows of a table: case, figure, value, goal, whether it is met, note."""
        if self.error:
            yield (self.name, "failed", "", "", "", self.error)
        for figure in self.figures:
            yield (self.name, figure.name, *figure.shown, figure.note)


def table(outcomes: list[Outcome]) -> str:
    """Every figure beside its goal."""
    lines = ["| case | figure | value | goal | | |", "| --- | --- | ---: | ---: | --- | --- |"]
    lines += [f"| {' | '.join(row)} |" for outcome in outcomes for row in outcome.rows()]
    return "\n".join(lines)
