"""Gray-Scott patterns as a dataset: `gray_scott.py FOLDER [SIMULATIONS]`."""

import sys

import numpy as np

import lola

CELLS, STATES = 64, 51  # cells along each axis, states of a simulation
FIRST, STEPS = 200, 20  # time steps before the first state, and between two


def laplacian(u):
    return sum(np.roll(u, shift, axis) for axis in (0, 1) for shift in (1, -1)) - 4 * u


def simulate(generator):
    feed, kill = generator.uniform([0.03, 0.059], [0.042, 0.063])  # where patterns last
    a, b = np.ones((CELLS, CELLS)), np.zeros((CELLS, CELLS))
    for i, j in generator.integers(0, CELLS, (16, 2)):
        b[np.ix_(np.arange(i, i + 6) % CELLS, np.arange(j, j + 6) % CELLS)] = 0.5
    states = np.empty((2, STATES, CELLS, CELLS))
    for state in range(STATES):
        for _ in range(STEPS if state else FIRST):
            reaction = a * b**2
            a = a + 0.16 * laplacian(a) - reaction + feed * (1 - a)
            b = b + 0.08 * laplacian(b) + reaction - (feed + kill) * b
        states[:, state] = a, b
    return {"A": states[0], "B": states[1], "feed": feed, "kill": kill}


if __name__ == "__main__":
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 100
    runs = (simulate(np.random.default_rng(seed)) for seed in range(count))
    axes, times = {"x": np.arange(CELLS), "y": np.arange(CELLS)}, np.arange(STATES) * STEPS
    print(
        lola.write_well(
            sys.argv[1], "gray_scott", runs, count=count, axes=axes, boundaries="periodic", times=times
        )
    )
