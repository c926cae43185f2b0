"""How long the simulator of a physical system takes for a state, where it is installed.

One trajectory after another, each from another initial state, without the time of starting the solver and of
compiling it. Some solvers are processes of their own, whose computing time this process cannot see: for these
it is the time that passes, whatever the clock.
"""

import dataclasses
import time

from benchmarks.configs import Clock

from lola.core.errors import LolaError
from lola.core.keys import numpy_generator
from lola.simulate.euler import EulerConfig
from lola.simulate.simulators import Simulation

MAX_DURATION_S = 60.0  # after which no further trajectory is begun


@dataclasses.dataclass(frozen=True)
class SimulatorTime:
    """What a simulator took.

    Arguments:
        grid: Grid points along each axis.
        seconds: Seconds per state, one value per trajectory.
        missing: Why there are none, if the solver is not installed.
    """

    system: str
    grid: tuple[int, ...]
    seconds: tuple[float, ...] = ()
    missing: str = ""


def time_simulator(config: Simulation, rounds: int, clock: Clock) -> SimulatorTime:
    """Seconds that a simulator takes for a state.

    Arguments:
        config: The simulations, the first case of which is timed.
        rounds: How many trajectories, if they do not take too long.
        clock: Seconds that pass, or that this process computes.
    """
    try:
        config.check_solver()
    except LolaError as error:
        return SimulatorTime(config.system, config.grid, missing=str(error))
    case = config.cases()[0]
    states = len(config.times(case)) - 1
    inside = isinstance(config, EulerConfig)
    now = time.process_time if inside and clock == "cpu" else time.perf_counter
    seconds: list[float] = []
    with config.solver(case) as solve:
        if not inside:  # compiles
            solve(config.draw(case, numpy_generator("benchmark", "first")))
        begun = time.perf_counter()
        for number in range(rounds):
            initial = config.draw(case, numpy_generator("benchmark", number))
            started = now()
            if solve(initial) is not None:
                seconds.append((now() - started) / states)
            if time.perf_counter() - begun > MAX_DURATION_S:
                break
    return SimulatorTime(config.system, config.grid, tuple(seconds))
