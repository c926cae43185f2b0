"""Writing arrays as a dataset in The Well's format: `lola.write_well`.

What is written follows from the shapes of a trajectory's arrays, on `d` grid axes:

    ()                          a constant of the simulation
    (L,)                        a scalar that varies in time
    (L, *grid[, d[, d]])        a scalar, vector or tensor field

Arrays are read in blocks of states and trajectories one after another, so that memory does not grow with the
number of trajectories, and not with their length where the arrays are lazy (memory-mapped, or of HDF5).
"""

import contextlib
import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from lola.core.config import require
from lola.core.filesystem import expand
from lola.core.waiting import Log, describe_progress, progress_reminder
from lola.data.well.given import (
    assign_splits,
    boundary_codes,
    check_coordinates,
    check_scalar,
    checked_values,
)
from lola.data.well.new_dataset import new_dataset
from lola.data.well.writer import (
    BLOCK_STATES,
    create_constant_field,
    create_fields,
    create_varying_scalars,
    write_layout,
    write_statistics,
    writing,
)
from lola.storage.remote import is_url

FILE_BYTES = 2**31  # of the fields in a file; a file is what is encoded, and resumed, at once


@dataclasses.dataclass(frozen=True)
class _Dataset:
    """All but the trajectories."""

    name: str
    count: int
    times: np.ndarray | None
    axes: Mapping[str, np.ndarray]
    boundary: np.ndarray
    scalars: Mapping[str, float | np.ndarray]
    constants: Mapping[str, Any]

    @property
    def grid(self) -> tuple[int, ...]:
        return tuple(map(len, self.axes.values()))

    def order(self, shape: Sequence[int]) -> int | None:
        """The tensor order of an array of cells; None if it does not have the grid's shape."""
        d = len(self.grid)
        tensor = tuple(shape[d:])
        return len(tensor) if tuple(shape[:d]) == self.grid and tensor in ((), (d,), (d, d)) else None

    def is_shared(self, name: str) -> bool:
        """Whether a constant field is the same in all trajectories."""
        return self.order(np.shape(self.constants[name])) is not None


@dataclasses.dataclass(frozen=True)
class _Layout:
    """What all trajectories have: `steps` states, fields by tensor order, scalars by whether they vary."""

    steps: int
    fields: Mapping[str, int]
    varying: tuple[str, ...]
    scalars: tuple[str, ...]

    def __str__(self) -> str:
        kinds = (
            *(
                f"the {('scalar', 'vector', 'tensor')[order]} field {name}"
                for name, order in self.fields.items()
            ),
            *(f"the scalar {name} in time" for name in self.varying),
            *(f"the constant {name}" for name in self.scalars),
        )
        return f"{self.steps} states of {', '.join(kinds)}"


def write_well(
    folder: str | Path,
    name: str,
    trajectories: Mapping[str, Any] | Iterable[Mapping[str, Any]],
    *,
    axes: Mapping[str, Any],
    boundaries: Mapping[str, Any] | str,
    times: Any = None,
    scalars: Mapping[str, Any] | None = None,
    constants: Mapping[str, Any] | None = None,
    splits: Sequence[Any] = (0.8, 0.1, 0.1),
    seed: int = 0,
    count: int | None = None,
    overwrite: bool = False,
    log: Log | None = None,
) -> Path:
    """Write simulations as a dataset in The Well's format, `<folder>/<name>/data/{train,valid,test}/*.hdf5`.

    The dataset appears when it is complete, with its `stats.yaml`. Values are stored as float32. Trajectories
    are read one after another, in blocks of states: arrays may be memory-mapped, or of HDF5.

    Arguments:
        folder: The folder of datasets.
        name: The name of the dataset.
        trajectories: Arrays by name, `(N, L, *grid)` for scalar fields, `(N, L, *grid, d)` for vectors and
            `(N, L, *grid, d, d)` for tensors; `(N,)` for constants of the simulation and `(N, L)` for scalars
            that vary in time. Or an iterator of the same, trajectory by trajectory, without the first axis.
        axes: The coordinates along each of the `d` grid axes, by name, in order.
        boundaries: `wall`, `open` or `periodic`, or a pair of these for both ends, by axis; or one for all.
        times: The times of the `L` states, 0, 1, ... by default.
        scalars: Constants of the simulations by name: a number for all trajectories, or `N` of them.
        constants: Fields that do not vary in time, `(*grid[, d[, d]])`, with an axis `N` before if they are
            not the same for all trajectories.
        splits: The shares of train, valid and test, or the split of each of the `N` trajectories.
        seed: Of the random assignment by shares.
        count: The number `N` of trajectories, if they come from an iterator without a length.
        overwrite: Whether a dataset of this name is replaced, its description kept.
        log: Takes lines about the progress.

    Returns:
        The folder of the dataset, which `--system` and `lola.open_well` take.

    Raises:
        ConfigError: A shape, a name or a share does not fit.
        DataError: A value is not finite, or the dataset exists.
        StorageError: The storage is full or read-only.

    Example:
        >>> x, generator = np.linspace(0, 1, 32, endpoint=False), np.random.default_rng(0)
        >>> runs = ({"u": generator.normal(size=(20, 32, 32)), "nu": 0.1 * (i + 1)} for i in range(10))
        >>> path = lola.write_well(
        ...     "datasets", "my_flow", runs, count=10, axes={"x": x, "y": x}, boundaries="periodic"
        ... )
        >>> split = lola.open_well("datasets", "my_flow", "train")
        >>> len(split.trajectories), split.system.channels, split.constants
        (8, ('u',), ('nu',))
    """
    stream, count = _stream(trajectories, count)
    dataset = _check_dataset(name, count, times, axes, boundaries, scalars or {}, constants or {})
    require(
        not is_url(folder), f"datasets are written to a folder of this machine, not {folder}; copy it later"
    )
    path = expand(str(folder)) / name
    assigned = assign_splits(count, splits, seed)
    with new_dataset(path, overwrite) as tmp_path:
        _write_files(tmp_path / "data", dataset, stream, assigned, log or (lambda _: None))
        write_statistics(tmp_path)
    return path


def _check_dataset(
    name: str,
    count: int,
    times: Any,
    axes: Mapping[str, Any],
    boundaries: Mapping[str, Any] | str,
    scalars: Mapping[str, Any],
    constants: Mapping[str, Any],
) -> _Dataset:
    """What all trajectories have in common, as `write_well` takes it."""
    named = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name)
    require(bool(named), f"the name of the dataset is {name!r}; use letters, digits, points, - and _")
    grid = {str(axis): check_coordinates(axis, values) for axis, values in axes.items()}
    require(1 <= len(grid) <= 3, f"axes must name 1 to 3 grid axes with their coordinates, not {len(grid)}")
    dataset = _Dataset(
        name,
        count,
        None if times is None else check_coordinates("time", times),
        grid,
        boundary_codes(boundaries, tuple(grid)),
        {key: check_scalar(key, value, count) for key, value in scalars.items()},
        {key: value if hasattr(value, "shape") else np.asarray(value) for key, value in constants.items()},
    )
    for key, value in dataset.constants.items():
        by_trajectory = value.shape[:1] == (count,) and dataset.order(value.shape[1:]) is not None
        require(
            by_trajectory or dataset.order(value.shape) is not None,
            f"the constant field {key} has shape {value.shape}; {_expected(dataset, ('', 'N, '))}",
        )
    return dataset


def _stream(trajectories: Any, count: int | None) -> tuple[Iterator[Mapping[str, Any]], int]:
    """The trajectories one by one, and their number."""
    if not isinstance(trajectories, Mapping):
        count = len(trajectories) if count is None and isinstance(trajectories, Sequence) else count
        require(
            count is not None and count > 0,
            "trajectories are an iterator, whose length is unknown; give count=, the number of them"
            if count is None
            else f"there must be at least one trajectory, not {count}",
        )
        return iter(trajectories), cast(int, count)
    arrays = {
        key: value if hasattr(value, "shape") else np.asarray(value) for key, value in trajectories.items()
    }
    lengths = {key: value.shape[0] if value.shape else 0 for key, value in arrays.items()}
    require(bool(lengths), "trajectories has no arrays; give fields by name")
    number = next(iter(lengths.values()))
    for key, length in lengths.items():
        require(
            length == number > 0,
            f"{key} has shape {arrays[key].shape}, and {next(iter(arrays))} has "
            f"{next(iter(arrays.values())).shape}; the first axis of all arrays counts the trajectories",
        )
    require(count in (None, number), f"count is {count} for {number} trajectories; leave it out")
    return ({key: _TrajectoryArray(value, i) for key, value in arrays.items()} for i in range(number)), number


class _TrajectoryArray:
    """A trajectory of an array of trajectories, `array[index]`, read when states of it are asked for."""

    def __init__(self, array: Any, index: int) -> None:
        self.array, self.index, self.shape = array, index, array.shape[1:]

    def __getitem__(self, states: Any) -> Any:
        return self.array[(self.index, states)] if self.shape else self.array[self.index]


def _expected(dataset: _Dataset, leads: Sequence[str]) -> str:
    """The shapes that a field may have, for errors."""
    cells, d = ", ".join(map(str, dataset.grid)), len(dataset.grid)
    shapes = [f"({lead}{cells}{end})" for lead in leads for end in ("", f", {d}", f", {d}, {d}")]
    return f"a field on the axes {', '.join(dataset.axes)} has shape {', '.join(shapes[:-1])} or {shapes[-1]}"


def _layout(dataset: _Dataset, fields: Mapping[str, Any]) -> _Layout:
    """What a trajectory consists of.

    Raises:
        ConfigError: A shape does not fit, or there is no field.
    """
    shapes = {key: tuple(np.shape(value)) for key, value in fields.items()}
    deep = [shape[0] for shape in shapes.values() if len(shape) > len(dataset.grid)]
    require(bool(deep), "a trajectory has no field; give arrays (L, *grid)")
    steps = deep[0] if dataset.times is None else len(dataset.times)
    orders = {}
    for key, shape in shapes.items():
        require(bool(key) and not set(key) & set("/#. "), f"{key!r} is no name of a field; use letters and _")
        if shape not in ((), (steps,)):
            order = dataset.order(shape[1:]) if shape[0] == steps else None
            require(
                order is not None,
                f"{key} has shape {shape} in a trajectory of {steps} states; {_expected(dataset, ['L, '])}",
            )
            orders[key] = cast(int, order)
    names = Counter([*shapes, *dataset.scalars, *dataset.constants, *dataset.axes, "time"])
    twice = [key for key, number in names.items() if number > 1]
    require(not twice, f"{', '.join(twice)} is the name of more than one thing; rename one")
    varying = tuple(key for key, shape in shapes.items() if shape == (steps,))
    return _Layout(steps, orders, varying, tuple(key for key, shape in shapes.items() if shape == ()))


def _write_files(
    folder: Path, dataset: _Dataset, stream: Iterator[Mapping[str, Any]], assigned: Sequence[str], log: Log
) -> None:
    """Write every trajectory into a file of its split."""
    left = Counter(assigned)
    files: dict[str, _File] = {}
    layout: _Layout | None = None
    index = -1
    reminder = progress_reminder(
        lambda: f"writing {describe_progress(index, dataset.count, 'trajectories', reminder.elapsed)}", log
    )
    with contextlib.ExitStack() as stack:
        for index, fields in enumerate(stream):
            require(index < dataset.count, f"count is {dataset.count}, and there are more trajectories")
            require(isinstance(fields, Mapping), f"trajectory {index} is no mapping of names to arrays")
            found = _layout(dataset, fields)
            layout = layout or found
            require(found == layout, f"trajectory {index} has {found}, and the first has {layout}")
            split = assigned[index]
            file = files.get(split)
            if file is None or file.full:
                if file is not None:
                    file.close()
                number = file.number + 1 if file else 0
                inner = stack.enter_context(contextlib.ExitStack())
                files[split] = file = _File(inner, folder / split, number, dataset, layout, left[split])
            file.write(index, fields)
            left[split] -= 1
            reminder.poll()
    require(index + 1 == dataset.count, f"count is {dataset.count}, and there are {index + 1} trajectories")


class _File:
    """A file that is being written: `<dataset>-<number>.hdf5` with as many trajectories as fit in it."""

    def __init__(
        self,
        stack: contextlib.ExitStack,
        folder: Path,
        number: int,
        dataset: _Dataset,
        layout: _Layout,
        left: int,
    ) -> None:
        d = len(dataset.grid)
        values = layout.steps * math.prod(dataset.grid) * sum(d**order for order in layout.fields.values())
        self.count = min(left, max(1, FILE_BYTES // (4 * values)))
        self.number, self.dataset, self.layout, self.row = number, dataset, layout, 0
        self.close = stack.close
        folder.mkdir(parents=True, exist_ok=True)
        self.file = stack.enter_context(writing(folder / f"{dataset.name}-{number:03d}.hdf5", "w"))
        constants = {
            key: np.zeros(self.count) if np.ndim(value) else value for key, value in dataset.scalars.items()
        }
        constants |= {key: np.zeros(self.count) for key in layout.scalars}
        times = np.arange(layout.steps) if dataset.times is None else dataset.times
        write_layout(self.file, dataset.name, self.count, times, dataset.axes, constants, dataset.boundary)
        create_fields(self.file, self.count, layout.fields, (layout.steps, *dataset.grid))
        for key in dataset.constants:
            self._create_constant(key)
        create_varying_scalars(self.file, (self.count, layout.steps), layout.varying)

    @property
    def full(self) -> bool:
        return self.row == self.count

    def _create_constant(self, name: str) -> None:
        values = self.dataset.constants[name]
        sample = not self.dataset.is_shared(name)
        order = cast(int, self.dataset.order(values.shape[sample:]))
        shape = (self.count,) * sample + values.shape[sample:]
        array = create_constant_field(self.file, name, order, shape, len(self.dataset.grid), sample)
        if not sample:
            array[...] = checked_values(values[...], np.float32, name, "")

    def write(self, index: int, fields: Mapping[str, Any]) -> None:
        """Write the next trajectory, number `index` of all."""
        where = f" of trajectory {index}"
        for key, order in self.layout.fields.items():
            array = self.file[f"t{order}_fields"][key]
            values = fields[key] if hasattr(fields[key], "shape") else np.asarray(fields[key])
            for start in range(0, self.layout.steps, BLOCK_STATES):
                block = slice(start, min(start + BLOCK_STATES, self.layout.steps))
                place = f"{where}, states {start} to {block.stop - 1}"
                array[self.row, block] = checked_values(values[block], np.float32, key, place)
        for key in (*self.layout.varying, *self.layout.scalars):
            value = fields[key][...] if hasattr(fields[key], "shape") else fields[key]
            self.file["scalars"][key][self.row] = checked_values(value, np.float64, key, where)
        for key, value in self.dataset.scalars.items():
            if isinstance(value, np.ndarray):
                self.file["scalars"][key][self.row] = value[index]
        for key, value in self.dataset.constants.items():
            if not self.dataset.is_shared(key):
                group = self.file[f"t{self.dataset.order(value.shape[1:])}_fields"]
                group[key][self.row] = checked_values(value[index], np.float32, key, where)
        self.row += 1
