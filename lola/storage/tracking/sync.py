"""Sending everything of a storage root that MLflow lacks, from the event logs, without Ray."""

from collections.abc import Callable

from lola.core.errors import TrackingError
from lola.core.waiting import reminding
from lola.storage.event_log import last_status
from lola.storage.leases import EXPIRY_S
from lola.storage.remote import AnyPath, is_url
from lola.storage.sweep_log import SweepEventLog, sweep_folders
from lola.storage.tracking.tracker import Tracker

STALE_LEASE_S = EXPIRY_S + 5.0  # after which a lease on an object store that is not renewed has ended


def sync(root: AnyPath, log: Callable[[str], None]) -> None:
    """Send what is outstanding of all sweeps of a storage root, and correct the status of their runs.

    A sweep that runs now is left to its driver. Stages that no process makes, though their logs say that
    they run, are recorded as killed, and so are sweeps.

    Raises:
        TrackingError: MLflow does not answer or refuses some of it, or there are no sweeps.
    """
    folders = sweep_folders(root)
    if not folders:
        raise TrackingError(f"{root} has no sweeps; name the storage root of one with --storage")
    missing = [text for text in (_send(root, folder, log) for folder in folders) if text]
    if missing:
        raise TrackingError("; ".join(missing))


def _send(root: AnyPath, folder: AnyPath, log: Callable[[str], None]) -> str:
    """Send what is outstanding of a sweep; returns what could not be sent."""
    sweep_log = SweepEventLog(root, folder)
    identity = sweep_log.identity()
    if not identity:
        log(f"{folder.name}: its event log is empty")
        return ""
    wait_s = STALE_LEASE_S if is_url(root) else 0.0
    if wait_s and last_status(folder) == "RUNNING":
        log(f"{folder.name}: looking for up to {wait_s:.0f} s whether its driver is alive")
    if not sweep_log.acquire(wait_s):
        log(f"{folder.name}: runs now, and its driver sends its records")
        return ""
    tracker = Tracker(root, identity["system"], log)
    try:
        tracker.resume_sweep(sweep_log, identity["fingerprint"])
        if last_status(folder) == "RUNNING":
            sweep_log.end("KILLED")
        with reminding(lambda: f"{folder.name}: sending its records to MLflow at {tracker.uri}", log):
            tracker.flush(wait_s)
    finally:
        sweep_log.release()
    if not tracker.missing:
        log(f"{folder.name}: MLflow has everything")
    return tracker.missing
