r"""Rayleigh-Bénard convection of The Well: fluid between a warm and a cold wall, solved with Dedalus.

Buoyancy $b$, velocity $u = (u, w)$ and pressure $p$ obey, with all lengths in heights of the layer,
buoyancies in the difference between the walls and times in free-fall times,

    $\partial_t b + u \cdot \nabla b = \kappa \nabla^2 b$,   $\nabla \cdot u = 0$,
    $\partial_t u + u \cdot \nabla u = \nu \nabla^2 u - \nabla p + b e_z$,
    $\kappa = (\mathrm{Ra} \, \mathrm{Pr})^{-1/2}$,   $\nu = (\mathrm{Ra} / \mathrm{Pr})^{-1/2}$,

in $0 \le x < 4$, periodic, and $0 \le z \le 1$ with $b(z=0) = 1$, $b(z=1) = 0$ and no slip. The gauge of the
pressure is $\int p \, dx \, dz = 0$ at every time, in which $z \to 1 - z$ maps a solution to the solution

    $b'(z) = 1 - b(1 - z)$,   $w'(z) = - w(1 - z)$,   $p'(z) = p(1 - z) + z - 1/2$.

The fluid starts at rest with $b = \Delta (1 - z) + 10^{-3} z (1 - z) \epsilon$, $\epsilon \sim N(0, 1)$ at
each grid point and $\Delta$ one of the given backgrounds. $\Delta < 1$ leaves a jump at the warm wall, and a
boundary layer that starts the motion. The pressure of the initial state is stored as zero, as in The Well.

Grid points are equidistant in x and, in z, the roots of a Chebyshev polynomial,
$z_k = (1 - \cos(\pi (k + 1/2) / N)) / 2$. Thermal boundary layers are about $1 / (2 \mathrm{Nu})$ thick, with
$\mathrm{Nu} = 0.138 \, \mathrm{Ra}^{0.285}$ in two dimensions (Johnston and Doering, Phys. Rev. Lett. 102,
2009): a grid that has too few points in them is refused.
"""

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from typing import Annotated, ClassVar

import numpy as np

from lola.core.config import Distinct, Within, require
from lola.data.systems import Boundary
from lola.simulate.process import solver_process
from lola.simulate.simulation import Case, Fields, Outputs, Points, SimulationConfig, Solve

DATASET = "rayleigh_benard"
SIZE = (4.0, 1.0)
MIN_LAYER_POINTS = 3.5  # grid points in a thermal boundary layer; The Well has 5 at Ra = 1e10


@dataclasses.dataclass(frozen=True, kw_only=True)
class RayleighBenardConfig(SimulationConfig):
    """An ensemble of Rayleigh-Bénard simulations: one file per split, Rayleigh and Prandtl number.

    Arguments:
        resolution: Grid points along x and z; The Well has 512 and 128.
        rayleigh: Rayleigh numbers; The Well has 1e6, 1e7, 1e8, 1e9 and 1e10.
        prandtl: Prandtl numbers.
        backgrounds: Initial differences of buoyancy between the walls, one of which is drawn.
        noise: The standard deviation of the initial noise.
        outputs: Outputs after the initial state, evenly spaced: a trajectory has one more state.
        interval: The time between outputs.
        courant: The Courant number that time steps stay below.
    """

    kind_name = "rayleigh-benard"

    resolution: tuple[Points, Points] = (128, 32)
    rayleigh: Distinct[Annotated[float, Within("(0, 1e12]")]] = (1e6, 1e7)
    prandtl: Distinct[Annotated[float, Within("[1e-3, 1e3]")]] = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
    backgrounds: Distinct[Annotated[float, Within("[0, 1e3]")]] = (0.2, 0.4, 0.6, 0.8, 1.0)
    noise: Annotated[float, Within("[0, 1e3]")] = 1e-3
    outputs: Outputs = 199
    interval: Annotated[float, Within("(0, 1e6]")] = 0.25
    courant: Annotated[float, Within("(0, 1]")] = 0.4

    system: ClassVar[str] = "rayleigh_benard"
    needs: ClassVar[tuple[str, str]] = ("dedalus", "simulate-rayleigh-benard")
    advice: ClassVar[str] = "choose a finer resolution or a smaller courant number"
    measured: ClassVar[tuple[int, float, float, float]] = (128 * 32, 50.0, 15.0, 1.1)

    def validate(self) -> None:
        super().validate()
        nx, nz = self.resolution
        require(nx % 2 == 0, f"--resolution along x must be even, not {nx}")
        layer = 0.5 / nusselt(max(self.rayleigh))
        fine = math.acos(1 - 2 * layer) / math.pi * nz >= MIN_LAYER_POINTS and SIZE[0] / nx <= 2 * layer
        require(fine, f"--resolution {nx} {nz} is too coarse for --rayleigh {max(self.rayleigh):g}")

    def cases(self) -> list[Case]:
        return [convection_case(rayleigh, prandtl) for rayleigh in self.rayleigh for prandtl in self.prandtl]

    def axes(self, case: Case) -> dict[str, np.ndarray]:
        nx, nz = self.resolution
        return {"x": SIZE[0] * np.arange(nx) / nx, "y": chebyshev_points(nz)}

    def times(self, case: Case) -> np.ndarray:
        return self.interval * np.arange(self.outputs + 1)

    def draw(self, case: Case, generator: np.random.Generator) -> np.ndarray:
        background = self.backgrounds[int(generator.integers(len(self.backgrounds)))]
        z = chebyshev_points(self.resolution[1])
        noise = self.noise * generator.standard_normal(self.resolution)
        return background * (1 - z) + z * (1 - z) * noise

    @contextlib.contextmanager
    def solver(self, case: Case) -> Iterator[Solve]:
        constants = dict(case.scalars)
        rayleigh, prandtl = constants["Rayleigh"], constants["Prandtl"]
        settings = {
            "resolution": self.resolution,
            "size": SIZE,
            "kappa": (rayleigh * prandtl) ** -0.5,
            "nu": (rayleigh / prandtl) ** -0.5,
            "outputs": self.outputs,
            "interval": self.interval,
            "courant": self.courant,
        }
        with solver_process("lola.simulate.dedalus_solver", settings) as solution:
            yield lambda initial: _fields(solution(initial))


def convection_case(rayleigh: float, prandtl: float) -> Case:
    """Simulations with the same Rayleigh and Prandtl number; files are named as The Well names them."""
    return Case(
        DATASET,
        f"{DATASET}_Rayleigh_{_short(rayleigh)}_Prandtl_{_short(prandtl)}",
        (("Rayleigh", rayleigh), ("Prandtl", prandtl)),
        ((Boundary.PERIODIC,) * 2, (Boundary.WALL,) * 2),
    )


def chebyshev_points(n: int) -> np.ndarray:
    """The roots of the `n`-th Chebyshev polynomial, in the unit interval, upwards."""
    return (1 - np.cos(np.pi * (np.arange(n) + 0.5) / n)) / 2


def nusselt(rayleigh: float) -> float:
    """The heat flux over that of conduction, as Johnston and Doering found it at Prandtl number 1."""
    return max(1.0, 0.138 * rayleigh**0.285)


def _fields(solution: np.ndarray | None) -> Fields | None:
    if solution is None:
        return None
    return {"buoyancy": solution[0], "pressure": solution[1], "velocity": np.moveaxis(solution[2:], 0, -1)}


def _short(value: float) -> str:
    """1e6, 2e-1, 5: a number as The Well's file names write it."""
    if 1 <= value < 1000:
        return f"{value:g}"
    mantissa, exponent = f"{value:.6e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"
