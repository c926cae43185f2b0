r"""Rayleigh-Bénard convection in Dedalus; a program of its own, started by `lola.simulate.process`.

The equations of `lola.simulate.rayleigh_benard` are discretised with real Fourier modes along x and Chebyshev
polynomials along z, with 3/2 dealiasing. In first-order form, with $G_u = \nabla u + e_z \ell(\tau_{u1})$ and
$G_b = \nabla b + e_z \ell(\tau_{b1})$,

    $\mathrm{tr}\, G_u + \tau_p = 0$,   $\int p = 0$,
    $\partial_t b - \kappa \nabla \cdot G_b + \ell(\tau_{b2}) = - u \cdot \nabla b$,
    $\partial_t u - \nu \nabla \cdot G_u + \nabla p - b e_z + \ell(\tau_{u2}) = - u \cdot \nabla u$,

where the $\tau$ are the unknowns that the conditions at the walls need and $\ell$ lifts them to the
highest polynomial. Time steps are of second order (RK222), implicit but for advection. The step is the output
interval halved as often as the Courant number asks for, checked every few steps: outputs are hit exactly,
and the implicit matrices, which belong to a step, are seldom factorised again.
"""

import logging
import math
from typing import Any

import dedalus.public as d3
import numpy as np
from dedalus.tools.config import config

from lola.simulate.process import Settings, Solver, serve

CFL_CHECK_STEPS = 8  # steps between checks of the Courant number
MAX_HALVINGS = 16  # a solution that needs smaller steps counts as a blow-up
MAX_STEP = 0.0625  # the largest step, in free-fall times
logging.disable(logging.INFO)
# Plans that are measured depend on how busy the machine is, and the last digits of solutions with them.
config["transforms-fftw"]["PLANNING_RIGOR"] = "estimate"


class Convection:
    """The initial-value problem.

    Arguments:
        settings: The `resolution` (x, z), the `size` (x, z) of the domain, the diffusivities `kappa` of
            buoyancy and `nu` of momentum, `outputs` after the initial state, the `interval` between them and
            the `courant` number.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        coordinates = d3.CartesianCoordinates("x", "z")
        distributor = d3.Distributor(coordinates, dtype=np.float64)
        (nx, nz), (lx, lz) = settings["resolution"], settings["size"]
        x = d3.RealFourier(coordinates["x"], size=nx, bounds=(0, lx), dealias=3 / 2)
        z = d3.ChebyshevT(coordinates["z"], size=nz, bounds=(0, lz), dealias=3 / 2)
        self.p, self.b = (distributor.Field(name=name, bases=(x, z)) for name in "pb")
        self.u = distributor.VectorField(coordinates, name="u", bases=(x, z))
        problem = self._problem(coordinates, distributor, x, z)
        # Dedalus counts steps over all solutions: what it does every so often would depend on their order.
        self.solver = problem.build_solver(d3.RK222, enforce_real_cadence=None)
        self.frequency = d3.AdvectiveCFL(self.u, coordinates)

    def _problem(self, coordinates: Any, distributor: Any, x: Any, z: Any) -> Any:
        p, b, u, lz = self.p, self.b, self.u, self.settings["size"][1]
        kappa, nu = self.settings["kappa"], self.settings["nu"]
        tau_p = distributor.Field(name="tau_p")
        tau_b1, tau_b2 = (distributor.Field(name=f"tau_b{i}", bases=x) for i in (1, 2))
        tau_u1, tau_u2 = (distributor.VectorField(coordinates, name=f"tau_u{i}", bases=x) for i in (1, 2))
        _, ez = coordinates.unit_vector_fields(distributor)

        def lift(tau: Any) -> Any:
            return d3.Lift(tau, z.derivative_basis(1), -1)

        grad_u, grad_b = d3.grad(u) + ez * lift(tau_u1), d3.grad(b) + ez * lift(tau_b1)
        problem = d3.IVP([p, b, u, tau_p, tau_b1, tau_b2, tau_u1, tau_u2], namespace=locals())
        for equation in (
            "trace(grad_u) + tau_p = 0",
            "dt(b) - kappa*div(grad_b) + lift(tau_b2) = - u@grad(b)",
            "dt(u) - nu*div(grad_u) + grad(p) - b*ez + lift(tau_u2) = - u@grad(u)",
            "b(z=0) = lz",
            "b(z=lz) = 0",
            "u(z=0) = 0",
            "u(z=lz) = 0",
            "integ(p) = 0",
        ):
            problem.add_equation(equation)
        return problem

    def solve(self, initial: np.ndarray) -> np.ndarray | None:
        """Integrate from the buoyancy `(x, z)` at rest.

        Returns:
            Buoyancy, pressure and velocity at all outputs, float64 with shape `(4, L, x, z)`; None if the
            solution is not finite or needs steps below the smallest.
        """
        for field in self.solver.problem.variables:
            field["g"] = 0
        self.b.change_scales(1)
        self.b["g"] = initial
        states = [self._state()]
        for _ in range(self.settings["outputs"]):
            if not self._advance():
                return None
            self.solver.enforce_hermitian_symmetry(self.solver.state)
            states.append(self._state())
        return np.stack(states, axis=1)

    def _state(self) -> np.ndarray:
        for field in (self.b, self.p, self.u):
            field.change_scales(1)
        return np.stack([self.b["g"], self.p["g"], *self.u["g"]])

    def _advance(self) -> bool:
        """Step over one output interval, in units of the smallest step."""
        interval, smallest = self.settings["interval"], 2**MAX_HALVINGS
        done = 0
        halvings = 0
        steps = 0
        while done < smallest:
            if steps % CFL_CHECK_STEPS == 0:
                frequency = float(np.max(self.frequency.evaluate()["g"]))
                if not math.isfinite(frequency):
                    return False
                wanted = interval * max(frequency / self.settings["courant"], 1 / MAX_STEP)
                halvings = max(0, math.ceil(math.log2(wanted)))
                # Steps may grow again only where they keep to the grid of the larger ones.
                while halvings < MAX_HALVINGS and done % (smallest >> halvings):
                    halvings += 1
                if halvings >= MAX_HALVINGS:
                    return False
            self.solver.step(interval / 2**halvings)
            done += smallest >> halvings
            steps += 1
        return bool(np.isfinite(self.b["c"]).all() and np.isfinite(self.u["c"]).all())


def build(settings: Settings) -> Solver:
    return Convection(settings).solve


if __name__ == "__main__":
    serve(build)
