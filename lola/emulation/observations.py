r"""Partial, noisy observations of states, and the operators that make them.

    y^i = A(x^i) + s eps,  eps ~ N(0, I)

with `x^i` the state at step `i` of a rollout in physical units, all fields of one time, and `A` one of

    subsample     every `factor`-th point along each axis
    block_mean    means of blocks of `factor` points along each axis
    sensors       `count` points, the same for all fields, drawn once
    mask          a share `1 / factor` of the points along each axis, drawn once, as a block somewhere

or any function of states that works row by row.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from lola.core.config import Config, Count, DistinctOrNone, Place, Size, Within, require
from lola.core.errors import ConfigError, DataError
from lola.core.seeding import SampleGenerator, numpy_generator

Operator = Callable[[Tensor], Tensor]
OperatorName = Literal["subsample", "block_mean", "sensors", "mask"]


def subsample(factor: int) -> Operator:
    """Of states `(B, C, *grid)` every `factor`-th point along each axis."""

    def operate(x: Tensor) -> Tensor:
        for axis in range(2, x.ndim):
            x = x[(*[slice(None)] * axis, slice(None, None, factor))]
        return x

    return operate


def block_mean(factor: int) -> Operator:
    """Of states `(B, C, *grid)` the means of blocks of `factor` points along each axis, which they divide."""

    def operate(x: Tensor) -> Tensor:
        grid = x.shape[2:]
        if any(size % factor for size in grid):
            raise DataError(f"blocks of {factor} do not divide a grid of {tuple(grid)}")
        pool = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[len(grid)]
        return pool(x, factor)

    return operate


def sensors(points: Tensor) -> Operator:
    """Of states `(B, C, *grid)` the values `(B, C, n)` at points, integers of shape `(n, axes)`."""

    def operate(x: Tensor) -> Tensor:
        places: Any = (..., *points.to(x.device).unbind(-1))
        return x[places]

    return operate


def masked(mask: Tensor) -> Operator:
    """Of states `(B, C, *grid)` the values `(B, n)` where a mask, which expands to `(C, *grid)`, is True."""
    return lambda x: x[:, mask.to(x.device).expand(x.shape[1:])]


def of_fields(operator: Operator, channels: Sequence[int]) -> Operator:
    """An operator that sees some of the channels only."""
    return lambda x: operator(x[:, list(channels)])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Observations:
    """What is observed of a rollout.

    Arguments:
        operator: `A`, from physical states `(n, C, *grid)` to observations `(n, ...)`, row by row.
        values: The observations `y` by the number of the emulated state, 1 the first after the context; each
            with shape `(B, ...)` for the rows of the rollout, or `(1, ...)` for all of them.
        noise: The deviation `s`, positive; a number, or a tensor that broadcasts with the values.
    """

    operator: Operator
    values: dict[int, Tensor]
    noise: float | Tensor

    def __post_init__(self) -> None:
        require(all(i >= 1 for i in self.values), "observed states count from 1, the first after the context")
        positive = bool((torch.as_tensor(self.noise) > 0).all())
        require(positive, "the noise of observations must be positive")

    def within(self, first: int, count: int) -> list[int]:
        """The numbers of those observed among `count` states from the `first`."""
        return [i for i in range(first, first + count) if i in self.values]

    def whiten(self, y: Tensor) -> Tensor:
        """Observations in units of their noise, with the shape of `y` and on its device."""
        return y / (self.noise.to(y.device) if isinstance(self.noise, Tensor) else self.noise)

    def rows(self, part: slice) -> "Observations":
        """The observations of some rows of the rollout."""
        values = {i: y if len(y) == 1 else y[part] for i, y in self.values.items()}
        return dataclasses.replace(self, values=values)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Observed:
    """What is observed of a window.

    Arguments:
        observations: The observations of the rollout.
        numbers: The numbers of the observed states.
        places: Their places in the window.
    """

    observations: Observations
    numbers: Sequence[int]
    places: Sequence[int]

    def whitened(self, rows: int) -> Tensor:
        """Observations in units of their noise, with shape `(rows, D)`."""
        values = [self.observations.whiten(self.observations.values[i]) for i in self.numbers]
        return torch.stack([y.expand(rows, *y.shape[1:]) for y in values], dim=1).flatten(1)

    def of_window(self, window: Tensor, physical: Operator) -> Tensor:
        """The same of windows `(B, C, L, *grid)`, whose states `(n, C, *grid)` a function makes physical."""
        states = window[:, :, list(self.places)].transpose(1, 2)
        y = self.observations.whiten(self.observations.operator(physical(states.flatten(0, 1))))
        return y.unflatten(0, states.shape[:2]).flatten(1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ObservationConfig(Config):
    """What a test trajectory is observed by.

    Arguments:
        operator: The operator.
        factor: Of subsample, the distance between points; of block_mean, the size of blocks; of mask, the
            grid's size over the window's.
        count: The number of sensors.
        fields: The channels observed, by name; with none, all.
        every: Every so many emulated states one is observed.
        until: The last emulated state that may be observed; 0 for the end.
        noise: Deviation of the noise, relative to that of each observed field over the trajectory.
        seed: Seeds the places of sensors and masks, and the noise.
    """

    operator: OperatorName = "subsample"
    factor: Size = 8
    count: Count = 16
    fields: DistinctOrNone[str] = ()
    every: Count = 1
    until: Place = 0
    noise: Annotated[float, Within("(0, 1e6]")] = 0.05
    seed: int = 0

    def validate(self) -> None:
        require(self.operator in get_args(OperatorName), f"no operator is called {self.operator!r}")

    @property
    def title(self) -> str:
        """The operator and its size, in one word."""
        size = self.count if self.operator == "sensors" else self.factor
        rest = (f"-every{self.every}" if self.every > 1 else "") + (
            f"-until{self.until}" if self.until else ""
        )
        return f"{self.operator}{size}{rest}"

    def build(self, channels: Sequence[str], grid: Sequence[int]) -> Operator:
        """The operator on states of these channels on a grid."""
        unknown = [name for name in self.fields if name not in channels]
        require(
            not unknown,
            f"--fields: there is no field {', '.join(unknown)} to observe; there are {', '.join(channels)}",
        )
        operator = self._operator(tuple(grid))
        if not self.fields:
            return operator
        return of_fields(operator, [channels.index(name) for name in self.fields])

    def check(self, channels: Sequence[str], grid: Sequence[int], states: int) -> None:
        """Raise `ConfigError` unless some of `states` emulated states of these channels can be observed."""
        operator = self.build(channels, grid)
        try:
            operator(torch.zeros(1, len(channels), *grid))
        except DataError as error:
            raise ConfigError(f"--factor {self.factor}: {error}") from error
        for axis in grid if self.operator != "sensors" else ():
            require(
                self.factor <= axis,
                f"--factor {self.factor} exceeds a grid axis of {axis} cells; choose a smaller one",
            )
        last = min(self.until or states, states)
        require(
            self.every <= last,
            f"--every {self.every}: none of the {last} states that may be observed is; choose a smaller one",
        )

    def _operator(self, grid: tuple[int, ...]) -> Operator:
        places = numpy_generator("places", self.seed)
        match self.operator:
            case "subsample":
                return subsample(self.factor)
            case "block_mean":
                return block_mean(self.factor)
            case "sensors":
                points = math.prod(grid)
                require(
                    self.count <= points,
                    f"--count {self.count} sensors do not fit on {points} points",
                )
                chosen = torch.from_numpy(places.permutation(points)[: self.count])
                return sensors(torch.stack(torch.unravel_index(chosen, grid), dim=-1))
            case "mask":
                mask = torch.ones(grid, dtype=torch.bool)
                for axis, size in enumerate(grid):
                    width = max(1, size // self.factor)
                    start = int(places.integers(size - width + 1))
                    inside = torch.arange(size).sub(start).remainder(size) < width
                    mask &= inside.reshape(-1, *[1] * (len(grid) - axis - 1))
                return masked(mask)

    def observe(self, truth: Tensor, channels: Sequence[str], trajectory: str) -> Observations:
        """Observe a trajectory.

        Arguments:
            truth: The states after the context in physical units, with shape `(C, L, *grid)`.
            channels: The names of the fields.
            trajectory: Names the noise.
        """
        operator = self.build(channels, truth.shape[2:])
        states = truth.transpose(0, 1)
        # The scale of each field, put where its observations are
        deviation = truth.flatten(1).std(dim=1).clamp_min(1e-6).reshape(1, -1, *[1] * (states.ndim - 2))
        noise = self.noise * operator(deviation.expand(1, *states.shape[1:]))
        last = min(self.until or len(states), len(states))
        values = {}
        for i in range(self.every, last + 1, self.every):
            y = operator(states[i - 1 : i])
            generator = SampleGenerator([("observation", self.seed, trajectory, i)])
            values[i] = y + noise * generator.normal(*y.shape[1:]).to(y)
        return Observations(operator=operator, values=values, noise=noise)
