"""Simulations: which files there are, and how their trajectories are drawn, solved and written.

A solver with its configuration is a `SimulationConfig`. It says which constants there are to simulate (its
cases), draws initial states and solves them; all else is the same for every solver and is here. The
initial state of a trajectory is a function of (seed, dataset, split, constants, index, attempt): splits share
none, and a draw whose solution stops being physical is drawn again and counted.
"""

import abc
import dataclasses
import importlib.util
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np

from lola.core.config import Config, Within, fingerprint
from lola.core.errors import ConfigError, LolaError
from lola.core.keys import numpy_generator
from lola.data.casting import cast_checked
from lola.data.hdf5 import open_hdf5
from lola.data.well.attributes import texts
from lola.data.well.writer import write_well_file, writing
from lola.storage.remote import AnyPath
from lola.storage.stages import atomic_path

Split = Literal["train", "valid", "test"]
Fields = dict[str, np.ndarray]
Solve = Callable[[np.ndarray], Fields | None]

MAX_ATTEMPTS = 50
PART = 16  # trajectories that a task simulates at most
ORIGIN = "lola_simulation"  # the attribute of a file that says which simulation made it
PARTS = ".parts"  # the folder of what they write, in that of a dataset


@dataclasses.dataclass(frozen=True)
class Case:
    """What the simulations of a file have in common."""

    dataset: str  # of The Well
    name: str  # the name of the file, without its ending
    scalars: tuple[tuple[str, float], ...]  # the constants by name, in order
    boundary: tuple[tuple[int, int], ...]  # the `Boundary` at both ends of each axis


@dataclasses.dataclass(frozen=True)
class SimulationJob:
    """One file to simulate."""

    case: Case
    split: Split
    trajectories: int
    first: int = 0  # the index of the first: that of a part of a file

    @property
    def parts(self) -> list["SimulationJob"]:
        """The parts that a file is simulated in, each by itself, a function of its size alone."""
        starts = range(self.first, self.first + self.trajectories, PART)
        sizes = [min(PART, self.first + self.trajectories - start) for start in starts]
        return [
            dataclasses.replace(self, trajectories=size, first=start)
            for start, size in zip(starts, sizes, strict=True)
        ]

    @property
    def part_path(self) -> Path:
        """Where a part is until its file is written, under the folder of all datasets."""
        return Path(self.dataset) / PARTS / f"{self.split}-{self.case.name}-{self.first:06d}.hdf5"

    @property
    def dataset(self) -> str:
        return self.case.dataset

    @property
    def path(self) -> Path:
        """Where the file goes, under the folder of all datasets."""
        return Path(self.dataset) / "data" / self.split / f"{self.case.name}.hdf5"


Amount = Annotated[int, Within("[0, 1e9]")]
Outputs = Annotated[int, Within("[1, 100000]")]
Points = Annotated[int, Within("[4, 16384]")]
Amplitude = Annotated[float, Within("(0, 1e6]")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimulationConfig(Config, abc.ABC):
    """Simulations of one physical system, a file per split and case.

    Arguments:
        train: Trajectories in each file for training.
        valid: Trajectories in each file for validation.
        test: Trajectories in each file for tests.
        seed: The seed of all draws.
    """

    common = ("train", "valid", "test")

    train: Amount = 16
    valid: Amount = 2
    test: Amount = 2
    seed: int = 0

    system: ClassVar[str]
    """The name of the physical system."""

    needs: ClassVar[tuple[str, str]]
    """The package of the solver, and the extra of this package that installs it."""

    advice: ClassVar[str] = ""
    """What to change when draws keep failing."""

    measured: ClassVar[tuple[int, float, float, float]]
    """A trajectory that was timed on one core (AMD Zen 3): its cells, the time that it spans (`span`),
    its seconds, and the power of the number of cells that these grow with."""

    @property
    def span(self) -> float:
        """The time of the last output, in a unit in which all cases take as many steps."""
        return float(self.times(self.cases()[0])[-1])

    @property
    def grid(self) -> tuple[int, ...]:
        """Grid points along each axis."""
        return tuple(len(points) for points in self.axes(self.cases()[0]).values())

    def seconds_per_trajectory(self) -> float:
        """Seconds that a trajectory takes on one core, scaled from one that was measured.

        Steps are assumed to be shorter than the time between outputs, which then cost next to nothing.
        """
        cells, span, seconds, power = self.measured
        return seconds * self.span / span * (math.prod(self.grid) / cells) ** power

    def check_solver(self) -> None:
        """Raise `LolaError` unless the solver is installed."""
        package, extra = self.needs
        if importlib.util.find_spec(package) is None:
            raise LolaError(
                f"simulating {self.system} needs {package}; pip install 'lola[{extra}]' "
                "(see experiments/README.md)"
            )

    @abc.abstractmethod
    def cases(self) -> list[Case]:
        """What is simulated."""

    @abc.abstractmethod
    def axes(self, case: Case) -> dict[str, np.ndarray]:
        """The coordinates along each grid axis, by name, in order."""

    @abc.abstractmethod
    def times(self, case: Case) -> np.ndarray:
        """The times of the states of a trajectory, with shape `(L,)`."""

    @abc.abstractmethod
    def draw(self, case: Case, generator: np.random.Generator) -> np.ndarray:
        """Draw an initial state, as the solver takes it."""

    @abc.abstractmethod
    def solver(self, case: Case) -> AbstractContextManager[Solve]:
        """What turns initial states into the fields of The Well, or None where they stop being physical.

        Fields have shape `(L, *grid)` for scalars and `(L, *grid, d)` for vectors.
        """


def simulation_jobs(config: SimulationConfig) -> list[SimulationJob]:
    """The files of an ensemble, the small splits first."""
    counts: dict[Split, int] = {"test": config.test, "valid": config.valid, "train": config.train}
    return [
        SimulationJob(case, split, count)
        for split, count in counts.items()
        for case in config.cases()
        if count > 0
    ]


Counts = dict[str, float]


def write_file(job: SimulationJob, config: SimulationConfig, path: AnyPath) -> Counts:
    """Simulate the trajectories of one file, or of a part, and write it, whole or not at all.

    Returns:
        The numbers of `trajectories` and of `rejected` draws, and the `seconds` taken.

    Raises:
        LolaError: The solver is not installed, draws keep failing, or the storage is full or read-only.
    """
    config.check_solver()
    counts = {"trajectories": job.trajectories, "rejected": 0, "seconds": 0.0}

    def simulations(solve: Solve) -> Iterator[Fields]:
        begin = time.perf_counter()
        for index in range(job.first, job.first + job.trajectories):
            fields, failures = simulate_trajectory(job, config, index, solve)
            counts["rejected"] += failures
            yield fields
        counts["seconds"] = time.perf_counter() - begin

    with config.solver(job.case) as solve:
        _write(job, config, path, simulations(solve), counts)
    return counts


def join_parts(job: SimulationJob, config: SimulationConfig, path: AnyPath, parts: list[AnyPath]) -> Counts:
    """Write a file, whole or not at all, of the trajectories of its parts; returns as `write_file` does."""
    counts = {"trajectories": job.trajectories, "rejected": 0, "seconds": 0.0}

    def simulations() -> Iterator[Fields]:
        for part in parts:
            with open_hdf5(part) as file:
                count = int(file.attrs["n_trajectories"])
                counts["rejected"] += int(file.attrs["rejected_draws"])
                counts["seconds"] += count * float(file.attrs["seconds_per_trajectory"])
                groups = [file[f"t{order}_fields"] for order in range(3)]
                fields = {name: group[name] for group in groups for name in texts(group.attrs["field_names"])}
                for row in range(count):
                    yield {name: field[row] for name, field in fields.items()}

    _write(job, config, path, simulations(), counts)
    return counts


def made_by(path: AnyPath) -> str | None:
    """The fingerprint of the simulation that made a file; None if another program did."""
    with open_hdf5(path) as file:
        found: str | None = file.attrs.get(ORIGIN)
        return found


def _write(
    job: SimulationJob,
    config: SimulationConfig,
    path: AnyPath,
    trajectories: Iterator[Fields],
    counts: Counts,
) -> None:
    """Write a file of trajectories, and what they took, which is known once the last is written."""
    with atomic_path(path) as tmp_path:
        write_well_file(
            tmp_path,
            dataset=job.dataset,
            count=job.trajectories,
            trajectories=trajectories,
            times=config.times(job.case),
            axes=config.axes(job.case),
            scalars=dict(job.case.scalars),
            boundary=np.array(job.case.boundary),
        )
        with writing(tmp_path, "r+") as file:
            file.attrs[ORIGIN] = fingerprint(config)
            file.attrs["rejected_draws"] = int(counts["rejected"])
            file.attrs["seconds_per_trajectory"] = counts["seconds"] / job.trajectories


def simulate_trajectory(
    job: SimulationJob, config: SimulationConfig, index: int, solve: Solve
) -> tuple[Fields, int]:
    """Draw and simulate the trajectory of an index, again and again until one stays physical.

    Returns:
        The fields of The Well, float32 with shape `(L, *grid)` or, of vectors, `(L, *grid, d)`; and the
        number of rejected draws.

    Raises:
        ConfigError: Too many draws in a row failed.
        DataError: A value is not finite, or float32 cannot hold it.
    """
    constants = [str(value) for _, value in job.case.scalars]
    for attempt in range(MAX_ATTEMPTS):
        generator = numpy_generator(config.seed, job.dataset, job.split, *constants, index, attempt)
        fields = solve(config.draw(job.case, generator))
        if fields is not None:
            where = f"trajectory {index} of {job.case.name}"
            cast = {
                name: cast_checked(values, np.float32, f"{name} of {where}")
                for name, values in fields.items()
            }
            return cast, attempt
    raise ConfigError(
        f"{MAX_ATTEMPTS} draws in a row were rejected ({job.case.name}){config.advice and '; '}"
        f"{config.advice}"
    )
