r"""The Euler equations of a gas in the unit square, solved with Clawpack.

Density $\rho$, momentum $\rho u$, energy density $E$ and pressure $p$ obey

    $\partial_t \rho + \nabla \cdot (\rho u) = 0$,
    $\partial_t (\rho u) + \nabla \cdot (\rho u \otimes u) + \nabla p = 0$,
    $\partial_t E + \nabla \cdot ((E + p) u) = 0$,   $p = (\gamma - 1) (E - \rho |u|^2 / 2)$,

with open (zero-order extrapolation) or periodic boundaries. Lines at uniformly random positions cut each
axis into 2 to 4 intervals, and so the square into quadrants, each of constant $\rho, p \sim U(0.2, 1.5)$ and
$u_k \sim U(-1, 1)$. On a periodic axis the first and the last interval are one, so that the boundary is no
special place.

The scheme is LeVeque's unsplit wave propagation with Roe's solver, transverse corrections and the minmod
limiter. Unlike dimensional splitting it treats axes alike: rolls and exchanges of the axes commute with it
to rounding, and flips but where the entropy fix meets a very strong jump. Strong rarefactions can leave it
without a positive pressure: such draws are rejected and drawn again.
"""

import dataclasses
import functools
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Literal
from unittest import mock

import numpy as np

from lola.config import Config, fingerprint, require
from lola.data.well_writer import write_well_file, writing
from lola.errors import ConfigError, LolaError
from lola.seeding import numpy_generator
from lola.storage import atomic_path

Boundary = Literal["open", "periodic"]
Split = Literal["train", "valid", "test"]

DATASETS: dict[Boundary, str] = {
    "open": "euler_multi_quadrants_openBC",
    "periodic": "euler_multi_quadrants_periodicBC",
}
CODES: dict[Boundary, int] = {"open": 1, "periodic": 2}
ATTEMPTS = 50


@dataclasses.dataclass(frozen=True, kw_only=True)
class EulerConfig(Config):
    """An ensemble of Euler simulations: one file per split, boundary and heat-capacity ratio.

    Arguments:
        resolution: Cells along each axis.
        gammas: Heat-capacity ratios.
        boundaries: Kinds of boundaries.
        train, valid, test: Trajectories in each file of the split.
        outputs: Outputs after the initial state, evenly spaced: a trajectory has one more state.
        end: The time of the last output.
        jumps: The range that densities and pressures are drawn from.
        speed: The largest component of the velocities that are drawn.
        intervals: The fewest and the most intervals along each axis.
        courant: The Courant number that time steps aim for.
        seed: The seed of all draws.
    """

    resolution: int = 64
    gammas: tuple[float, ...] = (1.13, 1.22, 1.3, 1.33, 1.365, 1.4, 1.404, 1.453, 1.597, 1.76)
    boundaries: tuple[Boundary, ...] = ("open", "periodic")
    train: int = 16
    valid: int = 2
    test: int = 2
    outputs: int = 100
    end: float = 1.5
    jumps: tuple[float, float] = (0.2, 1.5)
    speed: float = 1.0
    intervals: tuple[int, int] = (2, 4)
    courant: float = 0.8
    seed: int = 0

    def validate(self) -> None:
        # Clawpack's Riemann solver ends the whole process above 1800.
        require(4 <= self.resolution <= 1800, f"resolution must be in 4 to 1800, not {self.resolution}")
        require(len(self.gammas) > 0 and len(self.boundaries) > 0, "gammas and boundaries must not be empty")
        require(len(set(self.gammas)) == len(self.gammas), "gammas must differ from each other")
        require(len(set(self.boundaries)) == len(self.boundaries), "boundaries must differ from each other")
        require(min(self.gammas, default=2) > 1, f"gammas must exceed 1, not {self.gammas}")
        require(min(self.train, self.valid, self.test) >= 0, "train, valid and test must not be negative")
        require(self.outputs >= 1 and self.end > 0, "outputs and end must be positive")
        require(0 < self.jumps[0] <= self.jumps[1], f"jumps must be 0 < low <= high, not {self.jumps}")
        require(self.speed >= 0, f"speed must not be negative, not {self.speed}")
        require(1 <= self.intervals[0] <= self.intervals[1], "intervals must be 1 <= fewest <= most")
        require(0 < self.courant <= 0.9, f"courant must be in (0, 0.9], not {self.courant}")


@dataclasses.dataclass(frozen=True)
class EulerJob:
    """One file to simulate."""

    split: Split
    boundary: Boundary
    gamma: float
    trajectories: int

    @property
    def dataset(self) -> str:
        """The Well's dataset that the file belongs to."""
        return DATASETS[self.boundary]

    @property
    def path(self) -> Path:
        """Where the file goes, under the folder of all datasets."""
        return Path(self.dataset) / "data" / self.split / f"{self.dataset}_gamma_{self.gamma}.hdf5"


def jobs(config: EulerConfig) -> list[EulerJob]:
    """The files of an ensemble, the small splits first."""
    counts: dict[Split, int] = {"test": config.test, "valid": config.valid, "train": config.train}
    return [
        EulerJob(split, boundary, gamma, count)
        for split, count in counts.items()
        for boundary in config.boundaries
        for gamma in config.gammas
        if count > 0
    ]


def write_file(job: EulerJob, config: EulerConfig, path: Path) -> dict[str, float]:
    """Simulate the trajectories of one file and write it, whole or not at all.

    Returns:
        The numbers of `trajectories` and of `rejected` draws, and the `seconds` taken.

    Raises:
        LolaError: Clawpack is not installed, draws keep failing, or the storage is full or read-only.
    """
    begin = time.perf_counter()
    rejected = 0

    def simulations() -> Iterator[dict[str, np.ndarray]]:
        nonlocal rejected
        for index in range(job.trajectories):
            fields, failures = simulate_trajectory(job, config, index)
            rejected += failures
            yield fields

    centres = cell_centres(config.resolution)
    with atomic_path(path) as aside:
        write_well_file(
            aside,
            dataset=job.dataset,
            count=job.trajectories,
            trajectories=simulations(),
            times=output_times(config),
            axes={"x": centres, "y": centres},
            scalars={"gamma": job.gamma},
            boundary=np.full((2, 2), CODES[job.boundary]),
        )
        seconds = time.perf_counter() - begin
        with writing(aside, "r+") as file:
            file.attrs["lola_simulation"] = fingerprint(config)
            file.attrs["rejected_draws"] = rejected
            file.attrs["seconds_per_trajectory"] = seconds / job.trajectories
    return {"trajectories": job.trajectories, "rejected": rejected, "seconds": seconds}


def simulate_trajectory(job: EulerJob, config: EulerConfig, index: int) -> tuple[dict[str, np.ndarray], int]:
    """Draw and simulate the trajectory of an index, again and again until one stays physical.

    Returns:
        The fields of The Well, float32 with shape `(L, *grid)`, momentum `(L, *grid, 2)`; and the number
        of rejected draws.

    Raises:
        ConfigError: Too many draws in a row failed.
    """
    for attempt in range(ATTEMPTS):
        generator = numpy_generator(config.seed, job.dataset, job.split, str(job.gamma), index, attempt)
        fields = solve(draw_quadrants(config, job.boundary, generator), config, job.boundary, job.gamma)
        if fields is not None:
            return fields, attempt
    raise ConfigError(
        f"{ATTEMPTS} draws in a row lost their positive pressure ({job.boundary} boundaries, gamma "
        f"{job.gamma}); choose a smaller speed or narrower jumps"
    )


def draw_quadrants(config: EulerConfig, boundary: Boundary, generator: np.random.Generator) -> np.ndarray:
    """Draw density, velocity and pressure, in this order, with shape `(4, n, n)`.

    The draw does not depend on the resolution, which only says where it is looked at.
    """
    low, high = config.intervals
    counts = [int(generator.integers(low, high + 1)) for _ in range(2)]
    lines = [np.sort(generator.random(n if boundary == "periodic" else n - 1)) for n in counts]
    values = np.empty((4, *counts))
    values[0], values[3] = generator.uniform(*config.jumps, (2, *counts))
    values[1:3] = generator.uniform(-config.speed, config.speed, (2, *counts))
    centres = cell_centres(config.resolution)
    i, j = (np.searchsorted(line, centres) % n for line, n in zip(lines, counts, strict=True))
    return values[:, i[:, None], j[None, :]]


def solve(
    initial: np.ndarray, config: EulerConfig, boundary: Boundary, gamma: float
) -> dict[str, np.ndarray] | None:
    """Simulate from density, velocity and pressure `(4, n, n)`; None if a state stops being physical."""
    solver, solution = _set_up(initial, config, boundary, gamma)
    states = [solution.state.q.copy()]
    for t in output_times(config)[1:]:
        try:
            solver.evolve_to_time(solution, t)
        except Exception as error:
            # PyClaw has no class of its own for time steps that shrink without end.
            if "Maximum number of timesteps" not in str(error):
                raise
            return None
        q = solution.state.q
        if solution.t < t or not (np.isfinite(q).all() and q[0].min() > 0 and _pressure(q, gamma).min() > 0):
            return None
        states.append(q.copy())
    q = np.stack(states, axis=1)
    fields = {
        "energy": q[3],
        "density": q[0],
        "pressure": _pressure(q, gamma),
        "momentum": np.stack([q[1], q[2]], axis=-1),
    }
    return {name: values.astype(np.float32) for name, values in fields.items()}


def cell_centres(n: int) -> np.ndarray:
    """The centres of `n` cells of the unit interval."""
    return (np.arange(n) + 0.5) / n


def output_times(config: EulerConfig) -> np.ndarray:
    """The times of the states of a trajectory, from 0 to the end."""
    return np.linspace(0.0, config.end, config.outputs + 1)


def _pressure(q: np.ndarray, gamma: float) -> np.ndarray:
    return (gamma - 1) * (q[3] - (q[1] ** 2 + q[2] ** 2) / (2 * q[0]))


def _set_up(initial: np.ndarray, config: EulerConfig, boundary: Boundary, gamma: float) -> tuple[Any, Any]:
    """PyClaw's solver and solution; the types of a package without any are left out."""
    pyclaw, riemann = _clawpack()
    solver = pyclaw.ClawSolver2D(riemann.euler_4wave_2D)
    solver.all_bcs = pyclaw.BC.periodic if boundary == "periodic" else pyclaw.BC.extrap
    solver.dimensional_split = False
    solver.transverse_waves = solver.trans_cor
    solver.limiters = pyclaw.limiters.tvd.minmod
    solver.cfl_desired, solver.cfl_max = config.courant, config.courant + 0.1
    solver.max_steps = 10_000
    n = config.resolution
    domain = pyclaw.Domain([0.0, 0.0], [1.0, 1.0], [n, n])
    solution = pyclaw.Solution(solver.num_eqn, domain)
    solution.problem_data["gamma"] = gamma
    rho, u, v, p = initial
    fastest = (np.abs(initial[1:3]).max(axis=0) + np.sqrt(gamma * p / rho)).max()
    solver.dt_initial = config.courant / (2 * n * fastest)
    solution.state.q[...] = rho, rho * u, rho * v, p / (gamma - 1) + rho * (u**2 + v**2) / 2
    return solver, solution


@functools.cache
def _clawpack() -> tuple[ModuleType, ModuleType]:
    """PyClaw and its Riemann solvers, imported without their habit of seizing all logging of a process."""
    try:
        with mock.patch("logging.config.fileConfig"):
            from clawpack import pyclaw, riemann
    except ImportError:
        raise LolaError("simulating needs Clawpack and gfortran; pip install 'lola[simulate]'") from None
    logging.getLogger("pyclaw").setLevel(logging.ERROR)
    return pyclaw, riemann
