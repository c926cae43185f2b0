"""Simulating a dataset: one Ray task per file or, of a large one, per part, of which another makes the file.

Files and parts are renamed into place when complete. Parts that a killed job has finished are not simulated
again.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray

from lola.core.config import fingerprint
from lola.core.errors import DataError
from lola.core.waiting import Log, describe_progress, progress_reminder
from lola.data.hdf5 import is_data_file
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
from lola.simulate.simulation import (
    PARTS,
    SimulationConfig,
    SimulationJob,
    join_parts,
    made_by,
    simulation_jobs,
    write_file,
)
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
        simulated, rejected = _run_tasks(config, root, missing, log)
        log(f"simulated {simulated} trajectories, {rejected} draws rejected and redrawn")
    for dataset in sorted({job.dataset for job in wanted.values()}):
        _remove_parts(root / dataset / PARTS)
        if missing or not (root / dataset / "stats.yaml").exists():
            write_statistics(root / dataset)
    return len(missing)


def _run_tasks(
    config: SimulationConfig, root: AnyPath, missing: dict[AnyPath, SimulationJob], log: Log
) -> tuple[int, int]:
    """Simulate files; returns the numbers of trajectories and of rejected draws."""
    tasks: dict[ray.ObjectRef, tuple[AnyPath, int]] = {}  # the file, and the trajectories that a task makes
    left: dict[AnyPath, int] = {}  # the parts of a file that are not made
    done = 0
    for path, job in missing.items():
        parts = [part for part in job.parts if not _is_made(config, root / part.part_path)]
        left[path], done = len(parts), done + job.trajectories - sum(part.trajectories for part in parts)
        for part in parts if len(job.parts) > 1 else ():
            tasks[_simulate.remote(part, config, root / part.part_path)] = path, part.trajectories
        if len(job.parts) == 1:
            tasks[_simulate.remote(job, config, path)] = path, job.trajectories
        elif not parts:
            tasks[_join.remote(job, config, path, root)] = path, 0
    total, rejected, before = sum(job.trajectories for job in missing.values()), 0, done
    reminder = progress_reminder(
        lambda: _describe(len(tasks), done - before, total - before, reminder.elapsed), log
    )
    while tasks:
        finished = wait_for_any(ray.wait, tasks, reminder)
        with unwrap_errors():
            counts: dict[str, Any] = ray.get(finished)
        path, trajectories = tasks.pop(finished)
        done, left[path] = done + trajectories, left[path] - 1
        if left[path] == 0 and len(missing[path].parts) > 1:
            tasks[_join.remote(missing[path], config, path, root)] = path, 0
        elif left[path] <= 0:
            rejected += counts["rejected"]
            for part in missing[path].parts:
                (root / part.part_path).unlink(missing_ok=True)
    return total, rejected


def _remove_parts(folder: AnyPath) -> None:
    """Remove the parts of files, which are written by now."""
    for part in find_files(folder):
        part.unlink()
    if isinstance(folder, Path):
        with contextlib.suppress(OSError):  # there is none, or a network filesystem keeps it for a moment
            folder.rmdir()


def _is_made(config: SimulationConfig, path: AnyPath) -> bool:
    """Whether a part exists, whole and of this simulation."""
    try:
        return path.exists() and made_by(path) == fingerprint(config)
    except DataError:
        return False


def _describe(tasks: int, done: int, total: int, elapsed: float) -> str:
    """What the simulation waits for if none of its tasks has run, else how far it is."""
    pending = "" if done else describe_pending("the simulation", SIMULATION_REQUEST, at_least=tasks)
    return pending or f"simulating: {describe_progress(done, total, 'trajectories', elapsed)}"


@ray.remote(num_cpus=1, max_retries=3)
def _simulate(job: SimulationJob, config: SimulationConfig, path: AnyPath) -> dict[str, float]:
    return write_file(job, config, path)


@ray.remote(num_cpus=1, max_retries=3)
def _join(job: SimulationJob, config: SimulationConfig, path: AnyPath, root: AnyPath) -> dict[str, float]:
    return join_parts(job, config, path, [root / part.part_path for part in job.parts])


def _genuine(config: SimulationConfig, root: AnyPath, wanted: dict[AnyPath, SimulationJob]) -> bool:
    """Whether the datasets exist and none of their files was simulated by this library.

    Raises:
        DataError: As `simulate` does; or a folder has files of others, and none of a dataset.
    """
    folders = sorted({root / job.dataset for job in wanted.values()})
    found = [path for folder in folders for path in find_files(folder)]
    files = [path for path in found if not path.name.startswith(".") and PARTS not in path.parts]
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
        return made_by(path)
    except DataError as error:
        raise DataError(f"{error}, or delete it if it was simulated here: it is then made again") from error
