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
without a positive pressure: such draws are rejected and drawn again. So are those whose cells are all alike,
since two lines of each periodic axis lie between the same cells: nothing ever happens in them.
"""

import contextlib
import dataclasses
import functools
import logging
from types import ModuleType
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from lola.core.config import Distinct, Within, require
from lola.data.systems import Boundary
from lola.simulate.simulation import Amplitude, Case, Fields, Outputs, SimulationConfig, Solve

BoundaryName = Literal["open", "periodic"]
Intervals = Annotated[int, Within("[1, 1000]")]

DATASETS: dict[BoundaryName, str] = {
    "open": "euler_multi_quadrants_openBC",
    "periodic": "euler_multi_quadrants_periodicBC",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class EulerConfig(SimulationConfig):
    """An ensemble of Euler simulations: one file per split, boundary and heat-capacity ratio.

    Arguments:
        resolution: Cells along each axis.
        gammas: Heat-capacity ratios.
        boundaries: Kinds of boundaries.
        outputs: Outputs after the initial state, evenly spaced: a trajectory has one more state.
        end: The time of the last output.
        jumps: The range that densities and pressures are drawn from.
        speed: The largest component of the velocities that are drawn.
        intervals: The fewest and the most intervals along each axis.
        courant: The Courant number that time steps aim for.
    """

    kind_name = "euler"

    resolution: Annotated[int, Within("[4, 1800]")] = 64  # Clawpack ends the whole process above 1800
    gammas: Distinct[Annotated[float, Within("(1, 100]")]] = (
        1.13,
        1.22,
        1.3,
        1.33,
        1.365,
        1.4,
        1.404,
        1.453,
        1.597,
        1.76,
    )
    boundaries: Distinct[BoundaryName] = ("open", "periodic")
    outputs: Outputs = 100
    end: Annotated[float, Within("(0, 1e6]")] = 1.5
    jumps: tuple[Amplitude, Amplitude] = (0.2, 1.5)
    speed: Annotated[float, Within("[0, 1e6]")] = 1.0
    intervals: tuple[Intervals, Intervals] = (2, 4)
    courant: Annotated[float, Within("(0, 0.9]")] = 0.8

    system: ClassVar[str] = "euler"
    needs: ClassVar[tuple[str, str]] = ("clawpack", "simulate")
    advice: ClassVar[str] = "choose a smaller speed, narrower jumps, or more intervals if all cells are alike"
    measured: ClassVar[tuple[int, float, float, float]] = (64 * 64, 1.5, 0.5, 1.4)

    def validate(self) -> None:
        super().validate()
        require(self.jumps[0] <= self.jumps[1], f"--jumps takes the lower end first, not {self.jumps}")
        require(
            self.intervals[0] <= self.intervals[1],
            f"--intervals takes the fewest first, not {self.intervals}",
        )

    def cases(self) -> list[Case]:
        return [euler_case(boundary, gamma) for boundary in self.boundaries for gamma in self.gammas]

    def axes(self, case: Case) -> dict[str, np.ndarray]:
        centres = cell_centres(self.resolution)
        return {"x": centres, "y": centres}

    def times(self, case: Case) -> np.ndarray:
        return np.linspace(0.0, self.end, self.outputs + 1)

    def draw(self, case: Case, generator: np.random.Generator) -> np.ndarray:
        return draw_quadrants(self, _boundary(case), generator)

    def solver(self, case: Case) -> contextlib.nullcontext[Solve]:
        gamma = dict(case.scalars)["gamma"]
        return contextlib.nullcontext(lambda initial: solve(initial, self, _boundary(case), gamma))


def euler_case(boundary: BoundaryName, gamma: float) -> Case:
    """Simulations with the same boundaries and heat-capacity ratio."""
    code, dataset = Boundary[boundary.upper()], DATASETS[boundary]
    return Case(dataset, f"{dataset}_gamma_{gamma}", (("gamma", gamma),), ((code, code), (code, code)))


def draw_quadrants(config: EulerConfig, boundary: BoundaryName, generator: np.random.Generator) -> np.ndarray:
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


def _boundary(case: Case) -> BoundaryName:
    (boundary,) = (name for name, dataset in DATASETS.items() if dataset == case.dataset)
    return boundary


def solve(initial: np.ndarray, config: EulerConfig, boundary: BoundaryName, gamma: float) -> Fields | None:
    """Simulate from density, velocity and pressure `(4, n, n)`.

    None if all cells are alike, or a state stops being physical.
    """
    if not np.ptp(initial, axis=(1, 2)).any():
        return None
    solver, solution = _set_up(initial, config, boundary, gamma)
    states = [solution.state.q.copy()]
    for t in np.linspace(0.0, config.end, config.outputs + 1)[1:]:
        try:
            solver.evolve_to_time(solution, t)
        except Exception as error:  # PyClaw raises `Exception` itself where time steps shrink without end
            if "Maximum number of timesteps" not in str(error):
                raise
            return None
        q = solution.state.q
        if solution.t < t or not (np.isfinite(q).all() and q[0].min() > 0 and _pressure(q, gamma).min() > 0):
            return None
        states.append(q.copy())
    q = np.stack(states, axis=1)
    return {
        "energy": q[3],
        "density": q[0],
        "pressure": _pressure(q, gamma),
        "momentum": np.stack([q[1], q[2]], axis=-1),
    }


def cell_centres(n: int) -> np.ndarray:
    """The centres of `n` cells of the unit interval."""
    return (np.arange(n) + 0.5) / n


def _pressure(q: np.ndarray, gamma: float) -> np.ndarray:
    return (gamma - 1) * (q[3] - (q[1] ** 2 + q[2] ** 2) / (2 * q[0]))


def _set_up(
    initial: np.ndarray, config: EulerConfig, boundary: BoundaryName, gamma: float
) -> tuple[Any, Any]:
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
    from unittest import mock  # here, since it takes long to import

    with mock.patch("logging.config.fileConfig"):
        from clawpack import pyclaw, riemann
    logging.getLogger("pyclaw").setLevel(logging.ERROR)
    return pyclaw, riemann
