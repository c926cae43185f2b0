"""A small report with everything in it."""

import numpy as np
from matplotlib.figure import Figure

from lola.data.description import EULER
from lola.evaluation.page.figures import Example
from lola.evaluation.page.film_player import Film, Row
from lola.evaluation.page.page import Section
from lola.evaluation.page.sweep_page import demo_limits
from lola.evaluation.tables.aggregates import Aggregates
from lola.evaluation.tables.speed import Timing

FILE = "euler_multi_quadrants_openBC/test/euler_multi_quadrants_openBC_gamma_1.404.hdf5#0"
LONG = f"density, compression 160: {FILE}"


def film():
    states = np.random.default_rng(0).random((2, 5, 8, 6))
    arms = "Diffusion, 2.5 minutes", "Diffusion, 5 minutes"  # titles may have commas of their own
    rows = [Row("Truth", None, states)]
    for arm in arms:
        rows += [Row(f"{arm}, mean", 16.0, states, method=arm),
                 Row(f"{arm}, deviation", 16.0, states, scale="spread", method=arm)]  # fmt: skip
    rows.append(Row("Else", 32.0, 1 - states))
    return Film("d/test/f.hdf5#0", ("density", "energy"), [4, 8, 12, 16, 20], rows, "energy")


def aggregates(*tables):
    return Aggregates.of(EULER, [tables])


def report(sweep, **changes):
    """The arguments of `make_page`."""
    defaults = {
        "title": "Rates <b>&</b> models",
        "settings": [("Grid", "16 × 16")],
        "scores": aggregates(*sweep),
        "examples": [Example(LONG, [("truth", np.random.rand(2, 8, 8))], [4, 8])],
        "film": film(),
        "simulations": [Section("simulation_euler", "Simulation: euler", "its states", Figure())],
        "timings": [Timing(model="simulator", seconds=2.0),
                    Timing(model="diffusion", seconds=0.016, space="latent", compression=16.0,
                           solver_steps=8, members=4, training=1200.0, autoencoder=90.0),
                    Timing(model="neural_solver", seconds=0.008, space="latent", compression=16.0,
                           training=600.0)],
        "contexts": [2, 3],
        "limits": demo_limits(
            train_trajectories=1280, test_trajectories=3, grid=(16, 16), training_steps=3000
        ),
    }  # fmt: skip
    return defaults | changes
