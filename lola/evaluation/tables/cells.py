r"""Rows of the metrics table as arrays: of every method, target and metric the values

    x_stfl = mean over starts,

of training seed s, trajectory t, field f and lead time l: seeds and trajectories are what is drawn
independently. A value that is not finite, or null, is infinite; a cell without a row is NaN.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from lola.evaluation.tables.derived import DERIVED, SQUARED, Derived

METHOD = [
    "model", "space", "compression", "sampler", "solver_steps", "members", "context", "overlap", "guidance"
]  # fmt: skip
PLACE = ["training_seed", "trajectory", "field", "lead_time"]


@dataclasses.dataclass(frozen=True)
class Cells:
    """The values of one method, target and metric.

    Arguments:
        method: The values of the columns `METHOD`.
        seeds, trajectories, fields, lead_times: What the axes are; fields in order of appearance, others
            sorted.
        values: With shape `(P, S, T, F, L)`: `P` is 1, or the number of statistics of a derived metric.
    """

    method: tuple
    seeds: list[int]
    trajectories: list[str]
    fields: list[str]
    lead_times: np.ndarray
    values: np.ndarray


class CellTable:
    """All cells of some rows of the metrics table, by metric and target.

    Arguments:
        metrics: Rows of one system; all rows of every method that they are of.
    """

    def __init__(self, metrics: pa.Table) -> None:
        self.found: dict[tuple[str, str], list[Cells]] = {}
        squares: dict[tuple[str, str], list[Cells]] = {}
        metrics = metrics.unify_dictionaries()
        values = np.asarray(metrics["value"].to_numpy(), np.float64)  # squares of float32 may overflow
        values = np.where(np.isfinite(values), values, np.inf)
        place = [encode_column(metrics, name) for name in PLACE]
        for (target, metric, *key), rows in group_rows(metrics, ["target", "metric", *METHOD]):
            method = tuple(key)
            axes = [(numbers[rows], names) for numbers, names in place]
            self.found.setdefault((metric, target), []).append(_cells(method, axes, values[rows]))
            if metric in SQUARED:
                part = _cells(method, axes, values[rows] ** 2)
                squares.setdefault((metric, target), []).append(part)
        self.parts = self.found | squares
        for target in dict.fromkeys(target for _, target in self.found):
            for metric, derived in DERIVED.items():
                self._derive(metric, derived, target)

    def _derive(self, metric: str, derived: Derived, target: str) -> None:
        """Add the cells of a derived metric of the methods that have all its parts."""
        found = [self.parts.get((name, target), []) for name in derived.parts]
        parts = [{cells.method: cells for cells in part} for part in found]
        for method, first in parts[0].items():
            members = method[METHOD.index("members")]
            if all(method in part for part in parts) and (members > 1 or not derived.ensemble):
                values = [part[method].values for part in parts]
                lost = np.any([np.isinf(value) for value in values], axis=0)
                statistics = [np.where(lost, np.inf, each) for each in derived.statistics(values, members)]
                cells = dataclasses.replace(first, values=np.concatenate(statistics))
                self.found.setdefault((metric, target), []).append(cells)

    def of(self, metric: str, target: str = "truth") -> list[Cells]:
        """The cells of every method that has a metric, or a derived one, in order of the methods."""
        return self.found.get((metric, target), [])

    def metrics(self, target: str) -> list[str]:
        """The metrics against a target, sorted, with derived ones last."""
        found = [metric for metric, other in self.found if other == target]
        return sorted(found, key=lambda metric: (metric in DERIVED, metric))


def encode_column(table: pa.Table, name: str) -> tuple[np.ndarray, list]:
    """The distinct values of a column in order of appearance, and the number of that of each row.

    Arguments:
        table: Rows; columns of strings are dictionaries that all chunks share.
    """
    column = table[name].combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # without any chunk
        return np.zeros(0, int), []
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    present, numbers = _renumbered(column.indices.to_numpy())
    return numbers, column.dictionary.take(pa.array(present)).to_pylist()


def _renumbered(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct ones of small whole numbers, and the place of each number among them."""
    present = np.bincount(numbers) > 0
    return np.flatnonzero(present), (np.cumsum(present) - 1)[numbers]


def group_rows(table: pa.Table, names: Sequence[str]) -> list[tuple[tuple, np.ndarray]]:
    """The distinct values of several columns, sorted, each with the numbers of its rows in order."""
    if not len(table):
        return []
    group = np.zeros(len(table), np.int64)
    columns = [encode_column(table, name) for name in names]
    for numbers, values in columns:
        if len(values) > 1:
            group = group * len(values) + numbers
    _, first, group = np.unique(group, return_index=True, return_inverse=True)
    keys = [tuple(values[numbers[row]] for numbers, values in columns) for row in first]
    rows = np.split(np.argsort(group, kind="stable"), np.cumsum(np.bincount(group))[:-1])
    return sorted(zip(keys, rows, strict=True), key=lambda pair: pair[0])


def _cells(method: tuple, axes: Sequence[tuple[np.ndarray, list]], values: np.ndarray) -> Cells:
    """The means of rows with numbers along the axes `PLACE`, of which only what has rows is kept."""
    names, places = [], []
    for axis, (numbers, known) in zip(PLACE, axes, strict=True):
        present, place = _renumbered(numbers)
        own = [known[number] for number in present]
        if axis != "field":  # fields stay in order of appearance
            order = sorted(range(len(own)), key=own.__getitem__)
            place = np.argsort(order)[place]
            own = [own[j] for j in order]
        names.append(own)
        places.append(place)
    shape = tuple(map(len, names))
    flat = np.ravel_multi_index(places, shape)
    count = np.bincount(flat, minlength=np.prod(shape))
    with np.errstate(invalid="ignore"):
        means = np.bincount(flat, values, minlength=len(count)) / count
    seeds, trajectories, fields, lead_times = names
    return Cells(method, seeds, trajectories, fields, np.array(lead_times), means.reshape(1, *shape))
