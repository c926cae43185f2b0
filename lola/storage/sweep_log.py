"""The event log of a sweep: its run, the stages that belong to it, and its reports.

It is in `<storage>/sweeps/<system>-<fingerprint8>/` and is written by the driver, which holds the folder's
lease meanwhile, so that one process at a time sends a sweep's records to MLflow. With it everything that
MLflow should hold can be sent by any process, at any time.
"""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from lola.storage.event_log import EventLog, Status, last_status, read_events
from lola.storage.leases import lease, try_lease
from lola.storage.remote import AnyPath, file_exists, is_url, to_path, translate_fs_errors
from lola.storage.views import Conclusion, View

SWEEPS = "sweeps"
ABANDONED = "its process ended"


class SweepEventLog:
    """The event log of one sweep, in the folder that `sweep_folder` gives."""

    def __init__(self, root: AnyPath, folder: AnyPath) -> None:
        self.root, self.folder = root, folder
        self.held = False
        self._lease = lease(folder)
        self._event_log: EventLog | None = None
        self.stages: dict[AnyPath, str] = {}

    def acquire(self, wait_s: float = 0.0) -> bool:
        """Become the process that writes this log and sends it; returns whether no other is."""
        if not self.held:
            try:
                self._lease.acquire(timeout=wait_s)
            except TimeoutError:
                return False
            self.held = True
            self._event_log = EventLog.resume(self.folder)
            for _, event in read_events(self.folder):
                if event["kind"] == "stage":
                    self.stages.setdefault(resolve_path(self.root, event["path"]), event["fingerprint"])
        return True

    def release(self) -> None:
        """Let other processes write and send it."""
        if self.held:
            self.held = False
            self._lease.release()

    def begin(
        self,
        name: str,
        identity: Mapping[str, str],
        parameters: Mapping[str, Any],
        views: Sequence[View] = (),
    ) -> None:
        """Record what the sweep is, how its runs are best viewed, and that it runs."""
        assert self._event_log is not None
        self._event_log.describe(name=name, tags=identity, parameters=parameters)
        for view in views:
            self._event_log.view(view.name, view.content)
        self._event_log.status("RUNNING")

    def add(self, stage: AnyPath, fingerprint: str) -> None:
        if stage not in self.stages:
            assert self._event_log is not None
            self._event_log.stage(_relative(self.root, stage), fingerprint)
            self.stages[stage] = fingerprint

    def end(
        self, status: Status, report: AnyPath | None = None, conclusion: Conclusion | None = None
    ) -> None:
        """Record how the sweep ended, what came out, and the folder of its report."""
        assert self._event_log is not None
        if conclusion is not None:
            self._event_log.note(conclusion.text)
            self._event_log.metrics(0, conclusion.metrics)
        if report is not None:
            self._event_log.report(_relative(self.root, report))
        self._event_log.status(status)

    def identity(self) -> dict[str, str]:
        """The tags that it was begun with; empty if it never was."""
        described = [event["tags"] for _, event in read_events(self.folder) if event["kind"] == "describe"]
        return described[-1] if described else {}


def sweep_folder(root: AnyPath, system: str, fingerprint: str) -> AnyPath:
    return root / SWEEPS / f"{system}-{fingerprint[:8]}"


def sweep_folders(root: AnyPath) -> list[AnyPath]:
    """The folders of all sweeps of a storage root, in order of their names."""
    with contextlib.nullcontext() if not is_url(root) else translate_fs_errors(root):
        return sorted((path.parent for path in (root / SWEEPS).glob("*/events.jsonl")), key=str)


def record_abandoned(stage: AnyPath, wait_s: float = 0.0) -> bool:
    """Record the end of a stage whose log says that it runs, though no process makes it.

    Arguments:
        stage: The stage's folder.
        wait_s: The longest wait for the lease of a process that is ending.

    Returns:
        Whether the log now says how the stage ended; else it is being made.
    """
    if last_status(stage) != "RUNNING":
        return True
    with contextlib.suppress(OSError), try_lease(stage, wait_s) as acquired:  # the storage may be away
        if acquired and last_status(stage) == "RUNNING":
            finished = file_exists(stage / "manifest.json")
            EventLog.resume(stage).status("FINISHED" if finished else "KILLED", "" if finished else ABANDONED)
        return acquired
    return False


def _relative(root: AnyPath, path: AnyPath) -> str:
    """The name of a folder in the storage root, or its whole path if it is elsewhere."""
    inside = str(path).startswith(f"{root}/")
    return str(path)[len(str(root)) + 1 :] if inside else str(path)


def resolve_path(root: AnyPath, name: str) -> AnyPath:
    return to_path(name) if name.startswith("/") or "://" in name else root / name
