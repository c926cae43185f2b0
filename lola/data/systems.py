"""Physical systems: their fields, parameters, boundaries, symmetries, time strides and statistics.

A system is data: `lola.data.description` reads it from YAML files and from the headers of simulations.
"""

import dataclasses
import enum
import itertools
from typing import Any, Literal, Self

import numpy as np
import pydantic

from lola.core.config import fingerprint
from lola.data.geometry import AxisKind

Transform = Literal["identity", "log", "log1p", "log_eps", "arcsinh"]
Symmetries = Literal["plain", "full", "published"]
Role = Literal["state", "constant", "scalar"]
SPLITS = ("train", "valid", "test")
"""The parts of a dataset: a folder each."""
SCORED = ("ranges", "spectrum_ranges", "conserved", "bounds", "geometry")
"""What of a system changes scores, and nothing that is trained."""
REPORTED = ("shown", "seconds_per_state")
"""What of a system changes reports alone."""
UNTRAINED = (
    *("mean", "std", "starts", "stride", "published", "axes", "constants"),
    *SCORED,
    *REPORTED,
)
"""What of a system no data and no training depend on, but by configurations or by stages of their own."""


class Boundary(enum.IntEnum):
    """The Well's codes of boundary conditions, one for each end of a grid axis."""

    WALL = 0
    OPEN = 1
    PERIODIC = 2


@dataclasses.dataclass(frozen=True)
class Field:
    """A physical field as The Well stores it."""

    name: str  # its name in the HDF5 files
    order: int = 0  # its tensor order: 0 for a scalar, 1 for a vector, 2 for a matrix
    transform: Transform = "identity"  # what is applied before standardising
    role: Role = "state"  # networks see fields of every role, scores are of states alone


@dataclasses.dataclass(frozen=True)
class EnsembleSize:
    """The size of a published ensemble of simulations, over all splits (Appendix B)."""

    grid: tuple[int, ...]  # cells along each axis
    trajectories: int
    steps: int  # states of each trajectory
    constants: int  # scalars of each trajectory

    @property
    def parameter_count(self) -> int:
        """The length `P` of a trajectory's parameters: constants, and a code per end of each axis."""
        return self.constants + 2 * len(self.grid)


@dataclasses.dataclass(frozen=True)
class Reflection:
    """The reversal of a grid axis that is a symmetry only if scalar fields change as well."""

    axis: int  # the grid axis, with coordinate z
    complements: tuple[tuple[str, float], ...] = ()  # pairs (channel, c): x becomes c - x
    # pairs (channel, c): x becomes x + c (z - z_0), with z_0 the middle of the axis
    tilts: tuple[tuple[str, float], ...] = ()


@dataclasses.dataclass(frozen=True)
class Invariant:
    """A conserved quantity.

    Arguments:
        name: Its name in tables, after `drift_`.
        channels: The channels that are its density, or the components of it.
        boundaries: Those that let nothing of it through.
    """

    name: str
    channels: tuple[str, ...]
    boundaries: tuple[Boundary, ...]


@dataclasses.dataclass(frozen=True)
class Bounds:
    """The lowest and the highest physical value of a channel, None where there is no bound."""

    channel: str
    low: float | None
    high: float | None

    @property
    def limits(self) -> str:
        return f"[{self.low}, {self.high}]".replace("None", "-")

    def contain(self, low: Any, high: Any) -> Any:
        """Whether values from `low` to `high`, numbers or arrays, are within the bounds, up to rounding."""
        rounding = 1e-6 * np.maximum(np.abs(low), np.abs(high))
        inside = np.isfinite(low) & np.isfinite(high)
        if self.low is not None:
            inside &= low >= self.low - rounding
        if self.high is not None:
            inside &= high <= self.high + rounding
        return inside


@dataclasses.dataclass(frozen=True)
class Mask:
    """Which cells are outside of the domain.

    Arguments:
        field: A scalar field that is constant in time.
        outside: The value that it has outside.
    """

    field: str
    outside: float


@dataclasses.dataclass(frozen=True)
class System:
    """A physical system.

    Arguments:
        name: Its name in options, folders and tables.
        datasets: The Well's datasets that hold it.
        dimensions: The number of grid axes.
        fields: The fields in channel order.
        mean, std: Statistics of each channel after its transform; empty if they are yet to be computed.
        log_parameters: Scalar parameters that enter networks as natural logarithms.
        flips: Grid axes whose reversal is a symmetry.
        permute: Whether grid axes may be exchanged.
        roll: Whether periodic axes may be rolled.
        reflections: Axes whose reversal is a symmetry only if scalar fields change as well.
        stride: Simulation steps between the states of a window.
        starts: Start states of the evaluation.
        ranges: Lead-time ranges of the evaluation, inclusive, in simulation steps; None is the end.
        spectrum_ranges: Those of power spectra, if they differ.
        shown: The channel that pictures show.
        published: The size of The Well's ensemble, if it is one of the paper's.
        conserved: What the physics conserves.
        bounds: The physical values of channels that have bounds.
        mask: Which cells are outside of the domain, if any.
        geometry: The kinds of grid axes by name (`lola.data.geometry`), as files or a description say.
        axes, constants: The names of the grid axes and of the constants of simulations, as files say.
        seconds_per_state: Seconds that the simulator takes for a step between stored states, if known.
        described: Whether the description is part of the data's fingerprint. That of the paper's systems is
            not: their names stand for them.
    """

    name: str
    datasets: tuple[str, ...]
    dimensions: int
    fields: tuple[Field, ...]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    log_parameters: tuple[str, ...] = ()
    flips: tuple[int, ...] = ()
    permute: bool = False
    roll: bool = False
    reflections: tuple[Reflection, ...] = ()
    stride: int = 1
    starts: tuple[int, ...] = (0,)
    ranges: tuple[tuple[int, int | None], ...] = ()
    spectrum_ranges: tuple[tuple[int, int | None], ...] = ()
    shown: str = ""
    published: EnsembleSize | None = None
    conserved: tuple[Invariant, ...] = ()
    bounds: tuple[Bounds, ...] = ()
    seconds_per_state: float | None = None
    described: bool = False
    mask: Mask | None = None
    geometry: tuple[tuple[str, AxisKind], ...] = ()
    axes: tuple[str, ...] = ()
    constants: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Rebuild a system from what `dataclasses.asdict` gives, as JSON."""
        return pydantic.TypeAdapter(cls).validate_python(values)

    def to_json(self) -> dict[str, Any]:
        """What `from_json` takes."""
        return dict(pydantic.TypeAdapter(type(self)).dump_python(self, mode="json"))

    @property
    def identity(self) -> str:
        """A fingerprint of what trainings depend on; empty if the name stands for it."""
        values = {key: value for key, value in self.to_json().items() if key not in UNTRAINED}
        return fingerprint(values) if self.described else ""

    @property
    def scoring(self) -> dict[str, str]:
        """The fingerprint of what scores alone depend on, as an input of stages; the paper's have none."""
        return self._input("scoring", SCORED)

    @property
    def reporting(self) -> dict[str, str]:
        """Likewise of what reports alone depend on."""
        return self._input("reporting", REPORTED)

    def _input(self, name: str, keys: tuple[str, ...]) -> dict[str, str]:
        values = self.to_json()
        return {name: fingerprint({key: values[key] for key in keys})} if self.described else {}

    def scored_as(self, other: Self) -> Self:
        """This system, scored and shown as another description of it says."""
        return dataclasses.replace(self, **{key: getattr(other, key) for key in (*SCORED, *REPORTED)})

    @property
    def evolving(self) -> tuple[int, ...]:
        """The numbers of the channels that evolve."""
        return self.channels_of("state")

    def channels_of(self, role: Role) -> tuple[int, ...]:
        """The numbers of the channels of fields of a role."""
        return tuple(number for field, own in self._numbers() for number in own if field.role == role)

    @property
    def given(self) -> tuple[str, ...]:
        """The names of the channels that do not evolve."""
        return tuple(name for n, name in enumerate(self.channels) if n not in self.evolving)

    @property
    def filled(self) -> tuple[bool, ...]:
        """Which channels have no values outside of the domain of a mask: all but the mask and scalars."""
        mask = self.mask.field if self.mask else ""
        return tuple(
            field.role != "scalar" and field.name != mask for field, own in self._numbers() for _ in own
        )

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of channels of each field: one per component, row by row."""
        return tuple(self.dimensions**field.order for field in self.fields)

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels: scalar fields, and others by component (`momentum_x`, `stress_xy`)."""
        return tuple(
            "_".join(filter(None, [field.name, "".join(axes)]))
            for field in self.fields
            for axes in itertools.product("xyz"[: self.dimensions], repeat=field.order)
        )

    @property
    def transforms(self) -> tuple[Transform, ...]:
        return tuple(field.transform for field, channels in self._numbers() for _ in channels)

    @property
    def vectors(self) -> tuple[tuple[int, ...], ...]:
        """Channel numbers of each vector field's components, in the order of the grid axes."""
        return tuple(tuple(channels) for field, channels in self._numbers() if field.order == 1)

    @property
    def tensors(self) -> tuple[tuple[int, ...], ...]:
        """Channel numbers of each second-order field's components, row by row."""
        return tuple(tuple(channels) for field, channels in self._numbers() if field.order == 2)

    def _numbers(self) -> list[tuple[Field, range]]:
        """Each field with the numbers of its channels."""
        stops = itertools.accumulate(self.sizes)
        return [
            (field, range(stop - size, stop))
            for field, size, stop in zip(self.fields, self.sizes, stops, strict=True)
        ]
