r"""Turbulence, gravity and cooling of The Well: a piece of interstellar medium, solved with astronomix.

Density $\rho$, velocity $v$, pressure $p$ and energy density $E = p / (\gamma - 1) + \rho |v|^2 / 2$ obey

    $\partial_t \rho + \nabla \cdot (\rho v) = 0$,   $\nabla^2 \Phi = 4 \pi G \rho$,
    $\partial_t (\rho v) + \nabla \cdot (\rho v \otimes v) + \nabla p = - \rho \nabla \Phi$,
    $\partial_t E + \nabla \cdot ((E + p) v) = - \rho v \cdot \nabla \Phi + Z (n f \Gamma - n^2 \Lambda)$,

with $\gamma = 5/3$, $n = \rho / m_p$, $p = \rho k T / (\mu m_p)$, open boundaries, and heating and cooling of
the neutral medium (Koyama and Inutsuka, Astrophys. J. 564, 2002, free of its misprints as in Vázquez-Semadeni
et al., Astrophys. J. 657, 2007),

    $\Gamma = 2 \cdot 10^{-26}$ erg/s,
    $\Lambda / \Gamma = 10^7 e^{-118400 / (T + 1000)} + 0.014 \sqrt{T} e^{-92 / T}$ cm^3   (T in K),

both in proportion to the metallicity $Z$ (solar is 1; without metals the gas is adiabatic), with $f$ the
strength of the ultraviolet radiation over that near the sun.

Gas starts uniform at $\rho_0$ and $T_0$ in a cube of side $L = (44.5 / n_0)^{1/3} 60$ pc, with solenoidal
and compressive velocities of spectrum $E(k) \propto k^{-2}$. Their kinetic energy is a given part of the
gravitational energy $3 G M^2 / (5 L)$ of a sphere of radius L and mass $M = 10^6$ solar masses, of which
the cube is a piece. Gas that enters through the boundaries has the initial density, as the rest of the sphere
would, and the temperature of the gas that it meets; gas that leaves is not held up. Time runs to about one
$\sqrt{L^3 / (G M)}$, which The Well calls the free-fall time.

Units, as in The Well's files: lengths in pc, times in Myr, temperature in K, density in solar masses per
cubic pc, velocity in $V = (G \, 10^6 M_\odot / 100 \, \mathrm{pc})^{1/2} = 6.56$ km/s and pressure in
density times $V^2$. The Well does not state the last three. Its published means, $\log p - \log \rho - \log
T = -7.95$, ask for $\mu V^2$ near 23 (km/s)^2, and its velocities are about a half: V, the unit of gravity
with $G = 1$, meets both with the $\mu = 0.6$ of ionised gas, within their rounding. Nor is the radiation
stated: near the sun's, sparse gas would be warmed to 7000 K, where $f = 0.1$ keeps it at hundreds, as the
published mean of 386 K asks. These are simulations of the same physics by another method (finite volumes,
not particles), in a cube without the gravity of the sphere around it; they are not The Well's data.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Annotated, ClassVar

import numpy as np

from lola.core.config import Distinct, Within, require
from lola.data.systems import Boundary
from lola.simulate.process import solver_process
from lola.simulate.simulation import Amplitude, Case, Fields, Outputs, SimulationConfig, Solve

DATASET = "turbulence_gravity_cooling"

GRAVITY = 4.300917e-3  # pc (km/s)^2 per solar mass
GAS = 8.254430e-3  # Boltzmann's constant over the proton's mass, in (km/s)^2 per K
PROTONS = 40.4592  # protons per cm^3 in a solar mass per pc^3
MEGAYEAR = 1.0227122  # pc in a Myr at a km/s
HEATING = 2e-26 / 1.67262192e-24 * 3.15576e13 / 1e10  # Gamma / m_p, in (km/s)^2 per Myr
VELOCITY = (GRAVITY * 1e6 / 100) ** 0.5  # km/s
MASS, DENSEST, SIDE = 1e6, 44.5, 60.0
GAMMA = 5 / 3
MODES = 32  # the largest wavenumber of the turbulence, in waves per side


@dataclasses.dataclass(frozen=True, kw_only=True)
class GravityCoolingConfig(SimulationConfig):
    """An ensemble of simulations of the interstellar medium: one file per split and choice of constants.

    Arguments:
        resolution: Cells along each axis; The Well has 64.
        densities: Initial densities, in hydrogen atoms per cubic centimetre.
        temperatures: Initial temperatures, in K.
        metallicities: Metallicities over the sun's, which heating and cooling are proportional to.
        radiation: The ultraviolet radiation that heats, over that near the sun.
        kinetic: The initial kinetic energy over the gravitational energy of the sphere.
        molecular_weight: The mean mass of a particle, in protons.
        floor: The lowest temperature, in K.
        outputs: Outputs after the initial state, evenly spaced: a trajectory has one more state.
        interval: The time between outputs, in free-fall times.
        courant: The Courant number of time steps.
    """

    kind_name = "gravity-cooling"

    resolution: Annotated[int, Within("[8, 512]")] = 32
    densities: Distinct[Amplitude] = (44.5, 4.45, 0.445)
    temperatures: Distinct[Annotated[float, Within("(0, 1e9]")]] = (10.0, 100.0, 1000.0)
    metallicities: Distinct[Annotated[float, Within("[0, 1e6]")]] = (1.0, 0.1, 0.0)
    radiation: Annotated[float, Within("[0, 1e6]")] = 0.1
    kinetic: Annotated[float, Within("[0, 1e6]")] = 1.0
    molecular_weight: Annotated[float, Within("(0, 1e3]")] = 0.6
    floor: Annotated[float, Within("(0, 1e9]")] = 3.0
    outputs: Outputs = 49
    interval: Annotated[float, Within("(0, 1e6]")] = 0.02
    courant: Annotated[float, Within("(0, 0.5]")] = 0.45

    system: ClassVar[str] = "turbulence_gravity_cooling"
    needs: ClassVar[tuple[str, str]] = ("astronomix", "simulate-gravity-cooling")
    advice: ClassVar[str] = "choose a smaller courant number or less kinetic energy"
    measured: ClassVar[tuple[int, float, float, float]] = (32**3, 0.2, 7.0, 4 / 3)

    def validate(self) -> None:
        super().validate()
        require(
            self.floor <= min(self.temperatures),
            f"--temperatures {min(self.temperatures)} must not be below the --floor {self.floor}",
        )

    def cases(self) -> list[Case]:
        return [
            medium_case(density, metallicity, temperature)
            for density in self.densities
            for metallicity in self.metallicities
            for temperature in self.temperatures
        ]

    def axes(self, case: Case) -> dict[str, np.ndarray]:
        centres = side(case) * (np.arange(self.resolution) + 0.5) / self.resolution
        return {"x": centres, "y": centres, "z": centres}

    def times(self, case: Case) -> np.ndarray:
        return free_fall_time(case) * self.interval * np.arange(self.outputs + 1)

    @property
    def span(self) -> float:
        return self.interval * self.outputs  # in free-fall times

    def draw(self, case: Case, generator: np.random.Generator) -> np.ndarray:
        constants = dict(case.scalars)
        n = self.resolution
        state = np.empty((5, n, n, n))
        state[0] = constants["rho0"] / PROTONS
        state[4] = state[0] * constants["T0"] * self.gas
        sphere = 3 / 5 * GRAVITY * MASS / side(case) / VELOCITY**2
        state[1:4] = (2 * self.kinetic * sphere) ** 0.5 * turbulence(n, generator)
        return state

    @contextlib.contextmanager
    def solver(self, case: Case) -> Iterator[Solve]:
        with solver_process("lola.simulate.astronomix_solver", self.settings(case)) as solution:
            yield lambda initial: self._fields(solution(initial))

    @property
    def gas(self) -> float:
        """Pressure over density and temperature, in squared units of velocity per K."""
        return GAS / self.molecular_weight / VELOCITY**2

    def settings(self, case: Case) -> dict[str, float | list[float]]:
        """Settings of the solver, in the units pc, V and solar masses per cubic pc."""
        clock = VELOCITY * MEGAYEAR  # pc per Myr, at a unit of velocity
        constants = dict(case.scalars)
        return {
            "side": side(case),
            "gravity": GRAVITY / VELOCITY**2,
            "gamma": GAMMA,
            "gas": self.gas,
            "floor": self.floor,
            "heating": constants["Z"] * HEATING / VELOCITY**2 / clock,
            "ambient": constants["rho0"] / PROTONS,
            "radiation": self.radiation,
            "protons": PROTONS,
            "courant": self.courant,
            "times": [float(time * clock) for time in self.times(case)],
        }

    def _fields(self, solution: np.ndarray | None) -> Fields | None:
        if solution is None:
            return None
        density, pressure = solution[0], solution[4]
        return {
            "density": density,
            "pressure": pressure,
            "temperature": pressure / density / self.gas,
            "velocity": np.moveaxis(solution[1:4], 0, -1),
        }


def medium_case(density: float, metallicity: float, temperature: float) -> Case:
    """Simulations with the same constants; files are named as The Well names them."""
    return Case(
        DATASET,
        f"{DATASET}_rho0_{density:g}_Z_{metallicity:g}_T0_{temperature:g}",
        (("rho0", density), ("Z", metallicity), ("T0", temperature)),
        ((Boundary.OPEN,) * 2,) * 3,
    )


def side(case: Case) -> float:
    """The side of the cube, in pc."""
    return SIDE * (DENSEST / dict(case.scalars)["rho0"]) ** (1 / 3)


def free_fall_time(case: Case) -> float:
    """The time that The Well calls that of free fall, in Myr."""
    return float((side(case) ** 3 / (GRAVITY * MASS)) ** 0.5 / MEGAYEAR)


def turbulence(n: int, generator: np.random.Generator) -> np.ndarray:
    """Draw a Gaussian velocity field with $E(k) \\propto k^{-2}$, mean 0 and mean square 1.

    Arguments:
        n: Cells along each axis.
        generator: The source of randomness.

    Returns:
        The velocities, with shape `(3, n, n, n)`. A finer grid sees the same waves and, up to 32 per side,
        more.
    """
    k = np.arange(-MODES, MODES + 1)
    squares = k[:, None, None] ** 2 + k[:, None] ** 2 + k**2
    waves = np.zeros((3, *squares.shape), dtype=np.complex128)
    waves.real, waves.imag = generator.standard_normal((2, *waves.shape))
    # E(k) ~ k^2 |v_k|^2 in three dimensions: amplitudes fall as k^-2.
    waves *= np.where((squares > 0) & (squares <= MODES**2), 1 / np.maximum(squares, 1), 0)
    inside = k[np.abs(k) < n / 2]
    three = np.arange(3)
    chosen = np.ix_(three, *[inside + MODES] * 3)
    grid = np.zeros((3, n, n, n), dtype=np.complex128)
    grid[np.ix_(three, *[inside % n] * 3)] = waves[chosen]
    velocities = np.fft.ifftn(grid, axes=(1, 2, 3)).real
    return velocities / np.sqrt((velocities**2).sum(axis=0).mean())
