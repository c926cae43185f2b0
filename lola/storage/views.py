"""What a tracking server shows of a sweep besides its runs: views of them, and a conclusion."""

import dataclasses
from collections.abc import Mapping
from typing import Any

Axis = tuple[str, str]
"""What an axis or a column shows: `params` or `metrics`, and the name."""


@dataclasses.dataclass(frozen=True)
class View:
    """A way to look at the runs of a sweep.

    Arguments:
        name: For people.
        condition: Which runs it lists, in MLflow's language; of the sweep alone.
        order: The metric that runs are sorted by, the least first.
        columns: What the table shows, in order.
        points: Charts of a point per run: what is across and what is up.
        curves: Charts of metrics over the training step.
    """

    name: str
    condition: str
    order: str
    columns: tuple[Axis, ...]
    points: tuple[tuple[Axis, Axis], ...] = ()
    curves: tuple[str, ...] = ()

    @property
    def content(self) -> dict[str, Any]:
        """The view as JSON."""
        return {key: value for key, value in dataclasses.asdict(self).items() if key != "name"}

    @classmethod
    def of(cls, name: str, content: Mapping[str, Any]) -> "View":
        """The view of what JSON holds.

        Raises:
            KeyError, TypeError, ValueError: It holds something else.
        """
        return cls(
            name=name,
            condition=content["condition"],
            order=content["order"],
            columns=tuple((kind, key) for kind, key in content["columns"]),
            points=tuple(((*across,), (*up,)) for across, up in content["points"]),  # type: ignore[misc]
            curves=tuple(content["curves"]),
        )


@dataclasses.dataclass(frozen=True)
class Conclusion:
    """What came out of a sweep.

    Arguments:
        text: Markdown.
        metrics: Headline figures by name.
    """

    text: str
    metrics: Mapping[str, float]
