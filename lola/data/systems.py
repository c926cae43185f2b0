"""The physical systems: their fields, parameters, boundaries, symmetries, time strides and statistics.

Statistics are those of the published training sets, after the transform (`Lost in Latent Space`,
Appendix B). Lead-time ranges, start states and contexts are those of its evaluation.
"""

import dataclasses
import enum
import itertools
from typing import Any, Literal, Self

import pydantic

from lola.core.errors import ConfigError

Transform = Literal["identity", "log", "log1p", "log_eps", "arcsinh"]
Symmetries = Literal["plain", "full", "published"]


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

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Rebuild a system from what `dataclasses.asdict` gives, as JSON."""
        return pydantic.TypeAdapter(cls).validate_python(values)

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


EULER = System(
    name="euler",
    datasets=("euler_multi_quadrants_openBC", "euler_multi_quadrants_periodicBC"),
    dimensions=2,
    fields=(
        Field("energy", transform="log1p"),
        Field("density", transform="log1p"),
        Field("pressure", transform="log1p"),
        Field("momentum", order=1),
    ),
    mean=(1.20, 0.60, 0.58, 0.0, 0.0),
    std=(0.51, 0.27, 0.29, 0.53, 0.52),
    published=EnsembleSize((512, 512), trajectories=10_000, steps=100, constants=1),
    flips=(0, 1),
    permute=True,
    roll=True,
    stride=4,
    ranges=((1, 20), (21, 60), (61, None)),
    shown="density",
)

RAYLEIGH_BENARD = System(
    name="rayleigh_benard",
    datasets=("rayleigh_benard",),
    dimensions=2,
    fields=(Field("buoyancy"), Field("pressure"), Field("velocity", order=1)),
    mean=(0.38, 0.01, 0.0, 0.0),
    std=(0.25, 0.15, 0.21, 0.18),
    published=EnsembleSize((512, 128), trajectories=1_750, steps=200, constants=2),
    log_parameters=("Rayleigh", "Prandtl"),
    flips=(0,),
    roll=True,
    reflections=(Reflection(axis=1, complements=(("buoyancy", 1.0),), tilts=(("pressure", 1.0),)),),
    stride=4,
    starts=(16, 32),
    ranges=((1, 20), (21, 60), (61, None)),
    shown="buoyancy",
)

TURBULENCE_GRAVITY_COOLING = System(
    name="turbulence_gravity_cooling",
    datasets=("turbulence_gravity_cooling",),
    dimensions=3,
    fields=(
        Field("density", transform="log_eps"),
        Field("pressure", transform="log_eps"),
        Field("temperature", transform="log_eps"),
        Field("velocity", order=1),
    ),
    mean=(-1.75, -4.20, 5.50, 0.0, 0.0, 0.0),
    std=(0.95, 1.75, 1.10, 0.50, 0.50, 0.50),
    published=EnsembleSize((64, 64, 64), trajectories=2_700, steps=50, constants=3),
    log_parameters=("rho0",),
    flips=(0, 1, 2),
    permute=True,
    stride=1,
    starts=(0, 4),
    ranges=((1, 10), (11, 20), (21, 50)),
    spectrum_ranges=((1, 10), (11, 30), (31, 50)),
    shown="temperature",
)

SYSTEMS = {system.name: system for system in (EULER, RAYLEIGH_BENARD, TURBULENCE_GRAVITY_COOLING)}


def get_system(name: str) -> System:
    """The system of a name; an unknown name is a `ConfigError` that lists the known ones."""
    if name not in SYSTEMS:
        raise ConfigError(f"no system is called {name!r}; known are {', '.join(SYSTEMS)}")
    return SYSTEMS[name]
