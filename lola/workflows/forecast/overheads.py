"""What a sweep takes in addition to arithmetic: processes that start, simulations, the report.

The seconds were seen on CPUs (two cores of AMD Zen 3), where they decide how long small sweeps take.
On GPUs the same steps are taken, and are a small part of the whole.
"""

import math
from collections.abc import Mapping

from lola.simulate.simulation import simulation_jobs
from lola.simulate.simulators import Simulation

TRAINING_S = 6.0
"""A training by one worker from its start to its first step, and from its last step to its end."""

WORKERS_S = 20.0
"""The same by several workers: a run of Ray Train."""

ENCODING_S = 8.0
"""Encoders that start, and the commit of a latent cache."""

EVALUATION_S = 4.0
"""An evaluation's tasks that load their models, and the commit of its tables."""

CLUSTER_S = 15.0
"""Imports, a local cluster and MLflow's database, before the first stage."""

REPORT_S = 35.0
"""The report, after the last stage."""


def simulation_seconds(simulation: Simulation | None, capacity: Mapping[str, float]) -> float:
    """Seconds that simulating an ensemble takes on the CPUs of a cluster; none without a simulation."""
    if simulation is None:
        return 0.0
    parts = [part for job in simulation_jobs(simulation) for part in job.parts]
    if not parts:
        return 0.0
    at_once = min(len(parts), max(1, int(capacity["cpu"])))
    most = max(part.trajectories for part in parts)
    whole = sum(part.trajectories for part in parts)
    return max(math.ceil(whole / at_once), most) * simulation.seconds_per_trajectory()
