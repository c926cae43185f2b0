"""Files of arrays to a dataset in The Well's format, of which a block of states is held at a time."""

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lola.core.config import require
from lola.core.errors import DataError
from lola.core.filesystem import expand
from lola.core.waiting import Log
from lola.data.array_sources import COMPONENTS, Source, Variable, open_source
from lola.data.import_config import ImportConfig
from lola.data.well.dataset_writer import write_well
from lola.data.well.fields import NUMBERS


@dataclasses.dataclass(frozen=True)
class Content:
    """What of a source's variables is what.

    Arguments:
        space: The grid axes.
        fields: The variables of each field: one, or those of a vector's components.
        constants: The fields that are constant in time.
        scalars: The constants of the simulation that are variables or attributes.
        ignored: The other variables.
    """

    space: tuple[str, ...]
    fields: Mapping[str, tuple[str, ...]]
    constants: tuple[str, ...]
    scalars: tuple[str, ...]
    ignored: tuple[str, ...]


def import_data(config: ImportConfig, log: Log) -> Path:
    """Write the dataset of a configuration; returns its folder.

    Raises:
        LolaError: A file is missing, corrupt or unlike the first; options do not fit; the dataset exists.
    """
    target = (expand(config.output) / config.name).resolve()
    inside = [each for each in config.inputs if expand(each).resolve().is_relative_to(target)]
    require(
        not inside,
        f"{', '.join(inside)}: imported files are in {target}, which is replaced; give another --output",
    )
    with contextlib.ExitStack() as stack:
        inputs = _Inputs(config, stack)
        source = inputs.source(0)
        content = find_content(source, config)
        counts = inputs.check_alike(content)
        sizes = source.variables[next(iter(content.fields.values()))[0]].sizes
        grid = ", ".join(f"{axis} {sizes[axis]}" for axis in content.space)
        log(
            f"{sum(counts)} trajectories of {sizes[config.time]} states, grid {grid}; "
            f"fields {', '.join(content.fields)}"
            + (f"; constant fields {', '.join(content.constants)}" if content.constants else "")
            + (f"; constants {', '.join(content.scalars)}" if content.scalars else "")
        )
        if content.ignored:
            log(
                f"left out: {', '.join(content.ignored)} (--fields, --constants and --scalars name variables)"
            )
        source = inputs.source(0)  # checking the others has closed it
        places = [(number, index) for number, count in enumerate(counts) for index in range(count)]
        return write_well(
            config.output,
            config.name,
            (inputs.trajectory(content, *place) for place in places),
            count=len(places),
            times=_coordinates(source, config, config.time, sizes[config.time]),
            axes={axis: _coordinates(source, config, axis, sizes[axis]) for axis in content.space},
            boundaries=config.ends(),
            scalars=config.given_scalars(),
            constants={name: _ConstantField(inputs, content, name, places) for name in content.constants},
            splits=config.shares,
            seed=config.seed,
            overwrite=config.overwrite,
            log=log,
        )


def _coordinates(source: Source, config: ImportConfig, axis: str, size: int) -> np.ndarray:
    """Those that a source has of an axis, which all trajectories share; else 0, 1, ...

    Raises:
        DataError: A variable of the axis's name has other axes, or differs among trajectories.
    """
    variable = source.variables.get(axis)
    if variable is None:
        return np.arange(float(size))
    if variable.dims == (axis,):
        return variable.read({})
    if variable.dims != (config.trajectory, axis):
        raise DataError(
            f"{axis} in {source.name} has the axes {', '.join(variable.dims) or 'none'}, and coordinates "
            f"have {axis} alone; rename it, or store those of one trajectory"
        )
    rows = variable.read({})
    if not all(_is_alike(row, rows[0]) for row in rows):
        raise DataError(
            f"{axis} in {source.name} differs among trajectories, which all have the same in a dataset; "
            "interpolate to one, or import trajectories with others as another dataset"
        )
    return np.asarray(rows[0])


def _is_alike(one: Any, other: Any) -> bool:
    """Whether two values are equal; of coordinates, whether steps between them are, but for rounding."""
    if not isinstance(one, np.ndarray):
        return bool(one == other)
    one, other = (values.astype(np.float64) - values[0] for values in (one, other))
    return bool(np.allclose(one, other, rtol=0, atol=1e-6 * float(np.ptp(other) or 1.0)))


def find_content(source: Source, config: ImportConfig) -> Content:
    """What the variables of a source are, by their axes and the options.

    Raises:
        ConfigError, DataError: An option names what does not exist, or no variable is a field.
    """
    variables, extra = source.variables, {config.trajectory, config.time, config.component, *COMPONENTS}
    vectors = config.compositions()
    _check_names(source, config)
    evolving = [
        name
        for name, variable in variables.items()
        if config.time in variable.dims and set(variable.dims) - extra and variable.dtype.kind in NUMBERS
    ]
    chosen = [*config.fields, *(each for parts in vectors.values() for each in parts)] or evolving
    listed = ", ".join(f"{name} ({', '.join(variable.dims)})" for name, variable in variables.items())
    require(
        bool(chosen),
        f"{source.name} has no field: no variable has the axis {config.time} and grid axes; it has {listed}. "
        "--time and --trajectory name axes",
    )
    space = config.space or tuple(dim for dim in variables[chosen[0]].dims if dim not in extra)
    for name in [*chosen, *config.constants]:
        others = set(variables[name].dims) - extra
        require(
            others == set(space) and (name in config.constants or config.time in variables[name].dims),
            f"{name} has the axes {', '.join(variables[name].dims)}, not {config.time} and "
            f"{', '.join(space)}; choose variables with --fields, or axes with --space, --time, --trajectory",
        )
    single = [name for name in config.fields or evolving if name not in config.constants]
    parts = {each for names in vectors.values() for each in names}
    fields = {name: (name,) for name in single if name not in parts} | vectors
    scalars = [
        name
        for name, variable in variables.items()
        if set(variable.dims) <= {config.trajectory} and name != config.trajectory
    ]
    scalars = [name for name in scalars if variables[name].dtype.kind in NUMBERS]
    named = [name for name in config.scalars if "=" not in name]
    used = {*chosen, *config.constants, *(named or scalars), *extra, *space}
    return Content(
        space=tuple(space),
        fields=fields,
        constants=config.constants,
        scalars=tuple(named or scalars),
        ignored=tuple(name for name in variables if name not in used),
    )


def _check_names(source: Source, config: ImportConfig) -> None:
    """Raise `ConfigError` unless the options name what there is."""
    components = {f"vectors {name}": parts for name, parts in config.compositions().items()}
    for option, names in {"fields": config.fields, "constants": config.constants, **components}.items():
        for name in names:
            require(
                name in source.variables,
                f"--{option} names {name}; {source.name} has {', '.join(source.variables)}",
            )
    for name in config.scalars:
        known = {**source.variables, **source.attributes}
        require(
            "=" in name or name in known,
            f"--scalars names {name}; {source.name} has {', '.join(known)}; NAME=VALUE gives one",
        )
    axes = {dim for variable in source.variables.values() for dim in variable.dims}
    for axis in config.space:
        require(axis in axes, f"--space names {axis}; {source.name} has the axes {', '.join(sorted(axes))}")


class _Inputs:
    """The files, of which one is open at a time."""

    def __init__(self, config: ImportConfig, stack: contextlib.ExitStack) -> None:
        paths = [expand(each) for each in config.inputs]
        arrays = [path for path in paths if path.suffix == ".npy"]
        require(
            len(arrays) in (0, len(paths)),
            f"{arrays[0].name if arrays else ''} is one field and {paths[-1].name} is a whole file; import "
            "files of one kind",
        )
        self.groups = [paths] if arrays else [[path] for path in paths]
        self.config, self.stack = config, stack.enter_context(contextlib.ExitStack())
        self.number = -1

    def source(self, number: int) -> Source:
        """The source of a number; others are closed."""
        if number != self.number:
            self.stack.close()
            self.number = -1
            self.opened = self.stack.enter_context(open_source(self.groups[number], self.config.dimensions))
            self.number = number
        return self.opened

    def variable(self, number: int, name: str) -> Variable:
        """A variable of a source."""
        return self.source(number).variables[name]

    def check_alike(self, content: Content) -> list[int]:
        """The number of trajectories of each source.

        Raises:
            DataError: A source lacks a variable of the first one, or has another grid or other times.
        """
        names = [*(name for parts in content.fields.values() for name in parts), *content.constants]
        counts: list[int] = []
        first: dict[str, Any] = {}
        for number in range(len(self.groups)):
            source = self.source(number)
            if missing := [name for name in names if name not in source.variables]:
                raise DataError(f"{source.name} has no {missing[0]}; it has {', '.join(source.variables)}")
            sizes = [source.variables[name].sizes for name in names]
            self._check_sizes(source, [*names, *content.scalars])
            counts.append(sizes[0].get(self.config.trajectory, 1))
            seen: dict[str, Any] = {
                "shapes": [
                    {dim: n for dim, n in each.items() if dim != self.config.trajectory} for each in sizes
                ],
                **{
                    f"coordinates of {axis}": _coordinates(source, self.config, axis, sizes[0][axis])
                    for axis in (self.config.time, *content.space)
                },
            }
            first = first or seen
            for key, value in seen.items():
                if not _is_alike(value, first[key]):
                    raise DataError(
                        f"{source.name} has other {key} than {self.groups[0][0].name}; import files of one "
                        "length, times and grid"
                    )
        return counts

    def _check_sizes(self, source: Source, names: Sequence[str]) -> None:
        """Raise `DataError` unless axes of the same name have the same length in some variables."""
        first: dict[str, tuple[str, int]] = {}
        for name in names:
            variable = source.variables.get(name)  # else an attribute
            for axis, size in variable.sizes.items() if variable else ():
                other, expected = first.setdefault(axis, (name, size))
                if size != expected and axis not in (self.config.component, *COMPONENTS):
                    raise DataError(
                        f"{name} in {source.name} has {size} along {axis}, and {other} {expected}; save the "
                        "same trajectories, times and cells of all variables"
                    )

    def trajectory(self, content: Content, number: int, index: int) -> dict[str, Any]:
        """The fields and the constants of a trajectory; fields are read when states of them are asked for."""
        found: dict[str, Any] = {
            name: _Field(self, content, number, index, parts) for name, parts in content.fields.items()
        }
        source = self.source(number)
        for name in content.scalars:
            if name in source.variables:
                value = source.variables[name].read(self.at(source.variables[name], index)).reshape(-1)
            else:
                value = np.asarray(source.attributes[name]).reshape(-1)
            if value.size != 1 or value.dtype.kind not in NUMBERS:
                raise DataError(f"{name} in {source.name} is no single number; leave it out of --scalars")
            found[name] = float(value[0])
        return found

    def at(self, variable: Variable, index: int) -> dict[str, int | slice]:
        """The selection of a trajectory."""
        return {self.config.trajectory: index} if self.config.trajectory in variable.dims else {}

    def order(self, content: Content, dims: Sequence[str]) -> list[int]:
        """The permutation of axes that are left of a variable to time, grid and components."""
        first = [dim for dim in (self.config.time, *content.space) if dim in dims]
        return [dims.index(dim) for dim in (*first, *(dim for dim in dims if dim not in first))]


class _Field:
    """A field of a trajectory, `(L, *grid[, d[, d]])`, of which states are read on demand."""

    def __init__(
        self, inputs: _Inputs, content: Content, number: int, index: int, parts: tuple[str, ...]
    ) -> None:
        self.inputs, self.content, self.number, self.index, self.parts = inputs, content, number, index, parts
        variable = inputs.variable(number, parts[0])
        self.dims = [dim for dim in variable.dims if dim != inputs.config.trajectory]
        shape = tuple(variable.sizes[self.dims[k]] for k in inputs.order(content, self.dims))
        self.shape = shape if len(parts) == 1 else (*shape, len(parts))

    def __getitem__(self, states: slice) -> np.ndarray:
        values = []
        for name in self.parts:
            variable = self.inputs.variable(self.number, name)
            dims = [dim for dim in variable.dims if dim != self.inputs.config.trajectory]
            selection = self.inputs.at(variable, self.index) | {self.inputs.config.time: states}
            values.append(variable.read(selection).transpose(self.inputs.order(self.content, dims)))
        return values[0] if len(values) == 1 else np.stack(values, -1)


class _ConstantField:
    """A field that is constant in time, of all trajectories or, `(N, *grid, ...)`, by trajectory."""

    def __init__(
        self, inputs: _Inputs, content: Content, name: str, places: Sequence[tuple[int, int]]
    ) -> None:
        self.inputs, self.content, self.name, self.places = inputs, content, name, places
        self.shared = (
            len(inputs.groups) == 1 and inputs.config.trajectory not in inputs.variable(0, name).dims
        )
        cells = self._read(0, 0).shape
        self.shape = cells if self.shared else (len(places), *cells)

    def __getitem__(self, index: Any) -> np.ndarray:
        return self._read(0, 0) if self.shared else self._read(*self.places[index])

    def _read(self, number: int, index: int) -> np.ndarray:
        variable = self.inputs.variable(number, self.name)
        dims = [dim for dim in variable.dims if dim != self.inputs.config.trajectory]
        return variable.read(self.inputs.at(variable, index)).transpose(self.inputs.order(self.content, dims))
