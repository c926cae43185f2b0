r"""The interstellar medium in astronomix, on JAX; a program of its own, started by `lola.simulate.process`.

A step is gravity for half of it, gas, heating and cooling, and gravity for the other half. Gas is
astronomix's: finite volumes with minmod slopes and HLL fluxes. The two Runge-Kutta stages are put together
here: cold and fast gas loses its pressure, the small difference of total and kinetic energy, within a step
already, and after every stage temperatures below the floor are raised to it. Gravity is that of the gas in
the grid, by Hockney and Eastwood's transform of twice the size, and changes velocities alone, so that kinetic
energy gains exactly the work done. Heating and cooling act at constant density and are implicit in time,

    $T' = T + \Delta t \, c \, (f - n \lambda(T'))$,   $\lambda = \Lambda / \Gamma$,
    $c = (\gamma - 1) Z \Gamma / (m_p r)$,   $r = p / (\rho T)$,

which has one solution, since $\lambda$ grows with T, between 0 and $T + c f \Delta t$: it is bisected, and so
never overshoots the equilibrium, however short the cooling time.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from lola.simulate.process import Settings, Solver, serve

jax.config.update("jax_enable_x64", True)

import astronomix as ax  # noqa: E402  (what it makes when it is imported follows the precision)
from astronomix._finite_volume._state_evolution.evolve_state import (  # noqa: E402
    _evolve_gas_state_unsplit_inner as stage,  # not public: a stage without the time loop around it
)
from astronomix.option_classes.simulation_config import PERIODIC_ROLL  # noqa: E402

GHOSTS = 2
BISECTIONS = 40
MAX_STEPS = 4000  # between two outputs; a solution that needs more is rejected

Carry = tuple[jax.Array, jax.Array, jax.Array, jax.Array]
Step = Callable[[jax.Array, jax.Array], jax.Array]


def build(settings: Settings) -> Solver:
    """The solver of a case: from density, velocity and pressure `(5, n, n, n)` to `(5, L, n, n, n)`.

    The solution is None where a density is not positive, anything is not finite, or steps become too many.
    """
    advance = jax.jit(_advance(settings))

    def solve(initial: np.ndarray) -> np.ndarray | None:
        state, states = jnp.asarray(initial), [initial]
        for start, stop in zip(settings["times"], settings["times"][1:], strict=False):
            state, left = advance(state, stop - start)
            if not (jnp.isfinite(state).all() and (state[0] > 0).all() and left <= 0):
                return None
            states.append(np.asarray(state))
        return np.stack(states, axis=1)

    return solve


def _advance(settings: Settings) -> Callable[[jax.Array, float], tuple[jax.Array, jax.Array]]:
    """A function of a state and a duration that gives the later state, and the time left if steps ran out."""
    gamma, cfl_distance = settings["gamma"], settings["courant"] * settings["side"]

    def max_step(state: jax.Array) -> jax.Array:
        """The time step of the Courant number: densities stay positive if it is at most a half."""
        speed = jnp.abs(state[1:4]).sum(axis=0) + 3 * jnp.sqrt(gamma * state[4] / state[0])
        return cfl_distance / state.shape[-1] / speed.max()

    def advance(state: jax.Array, duration: float) -> tuple[jax.Array, jax.Array]:
        step_gas, accelerate = hydrodynamics(settings, state), gravity(settings, state)

        def body(carry: Carry) -> Carry:
            state, acceleration, left, steps = carry
            dt = jnp.minimum(max_step(state), left)
            # Rounding must not leave a step of nothing at the end.
            left = jnp.where(left - dt <= 1e-9 * duration, 0.0, left - dt)
            state = state.at[1:4].add(acceleration * dt / 2)
            state = heat_and_cool(settings, step_gas(state, dt), dt)
            acceleration = accelerate(state)
            return state.at[1:4].add(acceleration * dt / 2), acceleration, left, steps + 1

        def is_unfinished(carry: Carry) -> jax.Array:
            return (carry[2] > 0) & (carry[3] < MAX_STEPS) & jnp.isfinite(carry[0]).all()

        start = (state, accelerate(state), jnp.asarray(duration), jnp.asarray(0))
        state, _, left, _ = jax.lax.while_loop(is_unfinished, body, start)
        return state, left

    return advance


def hydrodynamics(settings: Settings, state: jax.Array) -> Step:
    """One step of the gas, of a given length, for states of this shape."""
    gamma = settings["gamma"]
    config = ax.SimulationConfig(
        solver_mode=ax.FINITE_VOLUME,
        backend=ax.NATIVE_JAX,
        dimensionality=3,
        box_size=settings["side"],
        num_cells=state.shape[-1],
        num_ghost_cells=GHOSTS,
        boundary_handling=PERIODIC_ROLL,  # leaves the ghost cells as they are given
        limiter=ax.MINMOD,
        riemann_solver=ax.HLL,
    )
    registry = ax.get_registered_variables(config)
    config = ax.finalize_config(config, state.shape)
    constants = ax.SimulationParams(gamma=gamma)
    helpers = ax.get_helper_data(config, padded=True)
    inner = (slice(None), *[slice(GHOSTS, -GHOSTS)] * 3)

    def euler(state: jax.Array, dt: jax.Array) -> jax.Array:
        padded = stage(pad_ghost_cells(settings, state), dt, gamma, config, constants, helpers, registry)
        return raise_to_floor(settings, padded[inner])

    def step(state: jax.Array, dt: jax.Array) -> jax.Array:
        twice = euler(euler(state, dt), dt)
        mean = (conserved(state, gamma) + conserved(twice, gamma)) / 2
        return raise_to_floor(settings, primitive(mean, gamma))

    return step


def pad_ghost_cells(settings: Settings, state: jax.Array) -> jax.Array:
    """Add ghost cells: copies of the outermost ones, but that gas which enters has the ambient density.

    All of it where it enters faster than sound, in proportion below: gas at rest keeps its density.
    """
    padded = jnp.pad(state, ((0, 0), *[(GHOSTS, GHOSTS)] * 3), mode="edge")
    for axis in (1, 2, 3):
        for ghosts, inwards in ((slice(0, GHOSTS), 1), (slice(-GHOSTS, None), -1)):
            place = (slice(None), *(ghosts if other == axis else slice(None) for other in (1, 2, 3)))
            slab = padded[place]
            sound = jnp.sqrt(settings["gamma"] * slab[4] / slab[0])
            share = jnp.clip(inwards * slab[axis] / sound, 0, 1)
            # Density and pressure alike: the temperature is that of the gas which it meets.
            scale = 1 + share * (settings["ambient"] / slab[0] - 1)
            padded = padded.at[place].set(slab.at[jnp.array([0, 4])].multiply(scale))
    return padded


def conserved(state: jax.Array, gamma: float) -> jax.Array:
    """Density, momentum and energy density."""
    density, velocity, pressure = state[0], state[1:4], state[4]
    energy = pressure / (gamma - 1) + density * (velocity**2).sum(axis=0) / 2
    return jnp.stack([density, *(density * velocity), energy])


def primitive(state: jax.Array, gamma: float) -> jax.Array:
    """Density, velocity and pressure."""
    density, momentum, energy = state[0], state[1:4], state[4]
    pressure = (gamma - 1) * (energy - (momentum**2).sum(axis=0) / density / 2)
    return jnp.stack([density, *(momentum / density), pressure])


def raise_to_floor(settings: Settings, state: jax.Array) -> jax.Array:
    return state.at[4].max(settings["floor"] * settings["gas"] * state[0])


def gravity(settings: Settings, state: jax.Array) -> Callable[[jax.Array], jax.Array]:
    """The acceleration `(3, n, n, n)` by the gas of a state of this shape."""
    n = state.shape[-1]
    spacing = settings["side"] / n
    offsets = jnp.minimum(jnp.arange(2 * n), 2 * n - jnp.arange(2 * n)) * spacing
    squares = offsets[:, None, None] ** 2 + offsets[:, None] ** 2 + offsets**2
    # A cube's own potential at its centre, in masses over sides, is 2.38008.
    kernel = jnp.where(squares > 0, 1 / jnp.sqrt(jnp.maximum(squares, spacing**2)), 2.38008 / spacing)
    transform = jnp.fft.rfftn(-settings["gravity"] * spacing**3 * kernel)

    def acceleration(state: jax.Array) -> jax.Array:
        waves = jnp.fft.rfftn(state[0], s=(2 * n,) * 3) * transform
        potential = jnp.fft.irfftn(waves, s=(2 * n,) * 3)[:n, :n, :n]
        return -jnp.stack(jnp.gradient(potential, spacing))

    return acceleration


def heat_and_cool(settings: Settings, state: jax.Array, dt: jax.Array) -> jax.Array:
    """Heat and cool a state at constant density, and raise temperatures to the floor."""
    density = state[0]
    before = jnp.maximum(state[4] / density / settings["gas"], settings["floor"])
    number = density * settings["protons"]
    radiation = settings["radiation"]
    c = (settings["gamma"] - 1) * settings["heating"] / settings["gas"] * dt

    def halve(_: int, bracket: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bracket
        middle = (low + high) / 2
        above = middle - before - c * (radiation - number * cooling(middle)) > 0
        return jnp.where(above, low, middle), jnp.where(above, middle, high)

    low, high = jnp.zeros_like(before), before + c * radiation
    low, high = jax.lax.fori_loop(0, BISECTIONS if settings["heating"] > 0 else 0, halve, (low, high))
    after = (low + high) / 2 if settings["heating"] > 0 else before
    return raise_to_floor(settings, state.at[4].set(after * density * settings["gas"]))


def cooling(temperature: jax.Array) -> jax.Array:
    """Lambda over Gamma, in cubic centimetres, of a temperature in K."""
    warm = 1e7 * jnp.exp(-118400 / (temperature + 1000))
    return warm + 0.014 * jnp.sqrt(temperature) * jnp.exp(-92 / jnp.maximum(temperature, 1e-3))


if __name__ == "__main__":
    serve(build)
