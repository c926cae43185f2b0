"""Simulating a dataset: one Ray task per file, which is renamed into place when complete."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray

from lola.core.config import fingerprint
from lola.core.errors import DataError
from lola.core.waiting import Log, describe_progress, progress_reminder
from lola.data.hdf5 import is_data_file, open_hdf5
from lola.data.well.writer import is_own_statistics, write_statistics
from lola.distributed.cluster.causes import unwrap_errors
from lola.distributed.cluster.connection import connect
from lola.distributed.cluster.resources import (
    ResourceRequest,
    cluster_resources,
    describe_pending,
    require_feasible,
)
from lola.distributed.cluster.waits import wait_for_any
from lola.simulate.simulation import SimulationConfig, SimulationJob, simulation_jobs, write_file
from lola.storage.leases import logged_lease
from lola.storage.remote import AnyPath, find_files, remote_path
from lola.storage.stages import Location, remove_temporary_paths

SIMULATION_REQUEST = ResourceRequest("simulation tasks", "", 1, 1)


def simulate(
    config: SimulationConfig,
    well: Location,
    log: Log = print,
    before: Callable[[], None] = lambda: None,
) -> int:
    """Simulate the files that are missing; returns how many were. Genuine datasets are left as they are.

    One process at a time simulates into a folder; others wait for it and find what it made.

    Arguments:
        well: The folder of Well datasets, a path or a URL.
        before: Called when a cluster is connected and something is about to be simulated.

    Raises:
        DataError: A dataset's folder holds corrupt files, files of another simulation, or of several origins.
        LolaError: The solver is not installed, draws keep failing, or the storage is full.
    """
    root = well if isinstance(well, Path) else remote_path(well)
    wanted = {root / job.path: job for job in simulation_jobs(config)}
    if _genuine(config, root, wanted):
        return 0
    statistics = {root / job.dataset / "stats.yaml" for job in wanted.values()}
    if all(path.exists() for path in wanted.keys() | statistics):
        return 0
    if not all(path.exists() for path in wanted):
        config.check_solver()
    with logged_lease(root, log):
        return _simulate_missing(config, root, wanted, log, before)


def needs_simulation(config: SimulationConfig, well: Location) -> bool:
    """Whether files are missing that `simulate` would make.

    Raises:
        DataError: As `simulate` does.
    """
    root = well if isinstance(well, Path) else remote_path(well)
    wanted = {root / job.path: job for job in simulation_jobs(config)}
    return not _genuine(config, root, wanted) and not all(path.exists() for path in wanted)


def _simulate_missing(
    config: SimulationConfig,
    root: AnyPath,
    wanted: dict[AnyPath, SimulationJob],
    log: Log,
    before: Callable[[], None],
) -> int:
    """Simulate the files that are still missing, under the lease of the folder; returns how many."""
    missing = {path: job for path, job in wanted.items() if not path.exists()}
    for dataset in {job.dataset for job in wanted.values()}:
        remove_temporary_paths(root / dataset)
    if missing:
        connect(log)
        require_feasible({"the simulation": SIMULATION_REQUEST}, cluster_resources())
        before()
        log(f"simulating {len(missing)} of {len(wanted)} files into {root}")
    tasks = {_simulate.remote(job, config, path): path for path, job in missing.items()}
    rejected = trajectories = 0
    reminder = progress_reminder(lambda: _describe(len(tasks), len(missing), reminder.elapsed), log)
    while tasks:
        done = wait_for_any(ray.wait, tasks, reminder)
        with unwrap_errors():
            counts: dict[str, Any] = ray.get(done)
        del tasks[done]
        rejected += counts["rejected"]
        trajectories += counts["trajectories"]
    if missing:
        log(f"simulated {trajectories} trajectories, {rejected} draws rejected and redrawn")
    for dataset in sorted({job.dataset for job in wanted.values()}):
        if missing or not (root / dataset / "stats.yaml").exists():
            write_statistics(root / dataset)
    return len(missing)


def _describe(left: int, total: int, elapsed: float) -> str:
    """What the simulation waits for if none of its tasks runs, else how far it is."""
    pending = describe_pending("the simulation", SIMULATION_REQUEST, at_least=left)
    return pending or f"simulating: {describe_progress(total - left, total, 'files', elapsed)}"


@ray.remote(num_cpus=1, max_retries=3)
def _simulate(job: SimulationJob, config: SimulationConfig, path: AnyPath) -> dict[str, float]:
    return write_file(job, config, path)


def _genuine(config: SimulationConfig, root: AnyPath, wanted: dict[AnyPath, SimulationJob]) -> bool:
    """Whether the datasets exist and none of their files was simulated by this library.

    Raises:
        DataError: As `simulate` does; or a folder has files of others, and none of a dataset.
    """
    folders = sorted({root / job.dataset for job in wanted.values()})
    files = [path for folder in folders for path in find_files(folder) if not path.name.startswith(".")]
    origins = {path: _origin(path) for path in files if is_data_file(path.name)}
    others = [path for path in files if path not in origins and not is_own_statistics(path)]
    if others and not origins:
        raise DataError(
            f"{others[0]} was not made by this project, and nothing is simulated next to it; give another "
            "folder of datasets with --well or another --storage"
        )
    if origins and set(origins.values()) == {None}:
        return True
    for path, origin in origins.items():
        if origin != fingerprint(config):
            raise DataError(
                f"{path} was not made by this simulation; "
                "give another folder of datasets with --well or another --storage"
            )
    return False


def _origin(path: AnyPath) -> str | None:
    """The fingerprint of the simulation that made a file; None if another program did."""
    try:
        with open_hdf5(path) as file:
            return file.attrs.get("lola_simulation")
    except DataError as error:
        raise DataError(f"{error}, or delete it if it was simulated here: it is then made again") from error
