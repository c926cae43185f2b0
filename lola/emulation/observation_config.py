"""Configurations of observations, whose operators `lola.emulation.observations` holds."""

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from lola.core.config import Config, Count, DistinctOrNone, NonNegativeInt, Size, Within, require
from lola.core.errors import ConfigError, DataError
from lola.core.keys import numpy_generator

if TYPE_CHECKING:
    from torch import Tensor

    from lola.emulation.observations import Observations, Operator

OperatorName = Literal["subsample", "block_mean", "sensors", "mask"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ObservationConfig(Config):
    """How a test trajectory is observed.

    Arguments:
        operator: The operator.
        factor: Of subsample, the distance between points; of block_mean, the size of blocks; of mask, the
            grid's size over the window's.
        count: The number of sensors.
        fields: The channels observed, by name; with none, all that evolve.
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
    until: NonNegativeInt = 0
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

    def build(
        self,
        channels: Sequence[str],
        grid: Sequence[int],
        given: Sequence[str] = (),
        valid: "Tensor | None" = None,
    ) -> "Operator":
        """The operator on states of these channels on a grid.

        Arguments:
            given: The channels that are given and not emulated, which cannot be observed.
            valid: True in the cells of the domain, with shape `(*grid)`; all are by default.

        Raises:
            ConfigError: There is no such field, or there are too few cells.
        """
        from lola.emulation.observations import of_domain, of_fields

        unknown = [name for name in self.fields if name not in channels]
        require(
            not unknown,
            f"--fields: there is no field {', '.join(unknown)} to observe; there are {', '.join(channels)}",
        )
        constant = [name for name in self.fields if name in given]
        require(not constant, f"--fields: {', '.join(constant)} is given and not emulated; leave it out")
        operator = self._operator(tuple(grid), valid)
        fields = self.fields or [name for name in channels if name not in given]
        if len(fields) < len(channels) or self.fields:
            operator = of_fields(operator, [channels.index(name) for name in fields])
        return operator if valid is None else of_domain(operator, valid, len(channels))

    def check(
        self, channels: Sequence[str], grid: Sequence[int], states: int, given: Sequence[str] = ()
    ) -> None:
        """Raise `ConfigError` unless some of `states` emulated states of these channels can be observed."""
        import torch

        operator = self.build(channels, grid, given)
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

    def _operator(self, grid: tuple[int, ...], valid: "Tensor | None") -> "Operator":
        import torch

        from lola.emulation.observations import block_mean, masked, sensors, subsample

        places = numpy_generator("places", self.seed)
        match self.operator:
            case "subsample":
                return subsample(self.factor)
            case "block_mean":
                return block_mean(self.factor)
            case "sensors":
                points = torch.from_numpy(places.permutation(math.prod(grid)))
                points = points if valid is None else points[valid.cpu().flatten()[points]]
                require(
                    self.count <= len(points),
                    f"--count {self.count} sensors do not fit on {len(points)} points",
                )
                chosen = points[: self.count]
                return sensors(torch.stack(torch.unravel_index(chosen, grid), dim=-1))
            case "mask":
                mask = torch.ones(grid, dtype=torch.bool)
                for axis, size in enumerate(grid):
                    width = max(1, size // self.factor)
                    start = int(places.integers(size - width + 1))
                    inside = torch.arange(size).sub(start).remainder(size) < width
                    mask &= inside.reshape(-1, *[1] * (len(grid) - axis - 1))
                return masked(mask)

    def observe(
        self,
        truth: "Tensor",
        channels: Sequence[str],
        trajectory: str,
        given: Sequence[str] = (),
        valid: "Tensor | None" = None,
    ) -> "Observations":
        """Observe a trajectory.

        Arguments:
            truth: The states after the context in physical units, with shape `(C, L, *grid)`.
            trajectory: Names the noise.
            given, valid: As for `build`.
        """
        from lola.core.seeding import SampleGenerator
        from lola.emulation.observations import Observations

        operator = self.build(channels, truth.shape[2:], given, valid)
        states = truth.transpose(0, 1)
        # The scale of each field, put where its observations are
        deviation = (truth if valid is None else truth[..., valid]).flatten(1).std(dim=1)
        deviation = deviation.clamp_min(1e-6).reshape(1, -1, *[1] * (states.ndim - 2))
        noise = self.noise * operator(deviation.expand(1, *states.shape[1:]))
        last = min(self.until or len(states), len(states))
        values = {}
        for i in range(self.every, last + 1, self.every):
            y = operator(states[i - 1 : i])
            generator = SampleGenerator([("observation", self.seed, trajectory, i)])
            values[i] = y + noise * generator.normal(*y.shape[1:]).to(y)
        return Observations(operator=operator, values=values, noise=noise)
