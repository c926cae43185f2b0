"""Copying the event logs of a sweep to MLflow, as one of the sinks of `lola.storage.follow`.

A run stands for one stage within one sweep and is found by its tags `lola.fingerprint` and `lola.sweep`, so
that a sweep that is started again continues its runs, and a stage that two sweeps share appears under both.
The sweep's own run is their parent.
"""

import contextlib
import os
import shlex
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mlflow.entities import Run, RunTag

from lola.core.errors import LolaError, TrackingError
from lola.storage.event_log import Status, end_offset
from lola.storage.follow import Events, LogReader
from lola.storage.remote import AnyPath, first_line
from lola.storage.stages import git_commit
from lola.storage.sweep_log import SweepEventLog, record_abandoned, sweep_folder
from lola.storage.tracking.run_copy import OFFSET, RunCopy
from lola.storage.tracking.saved_views import view_key
from lola.storage.tracking.server import (
    database_path,
    describe_cause,
    is_rejection,
    make_database,
    open_client,
    open_experiment,
    page_address,
    relocate_artifacts,
    show_command,
    tracking_uri,
    unreachable,
)
from lola.storage.views import Conclusion, View

PARENT = "mlflow.parentRunId"
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 2.0, 60.0
FINAL_ATTEMPTS = 3
ENDING_S = 10.0  # the longest wait for interrupted processes to end


class _Pause:
    """The time between attempts at something that fails, which doubles each time."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Try at once."""
        self.length, self.until = 0.0, 0.0

    def lengthen(self) -> None:
        """Wait, since an attempt failed."""
        self.length = min(max(2 * self.length, SHORTEST_PAUSE_S), LONGEST_PAUSE_S)
        self.until = time.monotonic() + self.length

    @property
    def on(self) -> bool:
        """Whether it is too early to try again."""
        return time.monotonic() < self.until


class Tracker:
    """Copies the event logs of a sweep and its stages to MLflow.

    Arguments:
        storage: The storage root; runs are kept in `<storage>/mlflow` unless `MLFLOW_TRACKING_URI` names a
            server, which a root on an object store needs.
        system: The physical system, which names the experiment.
        log: Takes lines for the user.

    A server's user and password come from `MLFLOW_TRACKING_USERNAME` and `MLFLOW_TRACKING_PASSWORD`, or from
    `~/.mlflow/credentials`.

    Raises:
        TrackingError: The server does not answer, does not know this user, or is needed and not named.
    """

    name = "MLflow"

    def __init__(self, storage: AnyPath, system: str, log: Callable[[str], None] = lambda text: None) -> None:
        self.root, self.system, self.log = storage, system, log
        self.uri = tracking_uri(storage)
        path = database_path(self.uri)
        if path is not None and not os.environ.get("MLFLOW_TRACKING_URI"):
            make_database(path)
            if old := relocate_artifacts(path):
                log(f"MLflow's artifacts were in {old}; their locations are corrected")
        self.client = open_client(self.uri)
        self._experiment: str | None = None
        self._last_experiment = ""  # also during an outage
        self._view = ""
        try:
            self.experiment  # noqa: B018 fails now if it is not available
        except Exception as error:  # the client raises whatever its transport or database raises
            raise unreachable(self.uri, error) from error
        self.follower = LogReader(self)
        self.sweep = self.missing = ""
        self._copies: dict[AnyPath, RunCopy] = {}
        self._pauses: dict[AnyPath, _Pause] = {}
        self._outage = _Pause()
        self._troubles: dict[AnyPath, str] = {}
        self._runs: dict[str, Run] | None = None
        self._sweep_log: SweepEventLog | None = None
        self._begin: Callable[[SweepEventLog], None] = lambda sweep_log: None
        self._flushing = False
        self._lock = threading.RLock()

    @property
    def experiment(self) -> str:
        if self._experiment is None:
            self._experiment = open_experiment(self.client, self.uri, f"lola/{self.system}", self.log)
            self._last_experiment = self._experiment
        return self._experiment

    @property
    def sweep_log(self) -> SweepEventLog:
        """The event log of the sweep, once it has begun."""
        assert self._sweep_log is not None
        return self._sweep_log

    @property
    def parent(self) -> str | None:
        """The run of the sweep, once it is known."""
        return self._copies[self._sweep_log.folder].run_id if self._sweep_log and self._copies else None

    @property
    def directions(self) -> list[str]:
        """How to open the page of the sweep, in lines for the user."""
        page = page_address(self.uri, self._last_experiment, self._view, "" if self._view else self.parent)
        command = show_command(self.uri)
        return [f"runs: {command}", f"then open: {page}"] if command else [f"runs: open {page}"]

    def start_sweep(
        self, name: str, fingerprint: str, parameters: Mapping[str, Any], views: Sequence[View] = ()
    ) -> None:
        """Begin a sweep, or resume it.

        Arguments:
            views: How its runs are best viewed; the page that `directions` name shows the first.
        """
        identity = {"stage": "sweep", "fingerprint": fingerprint, "sweep": fingerprint}
        identity |= {"system": self.system, "git_commit": git_commit()}
        self._begin = lambda sweep_log: sweep_log.begin(name, identity, parameters, views)
        self._view = view_key(fingerprint, views[0].name) if views else ""
        sweep_log = SweepEventLog(self.root, sweep_folder(self.root, self.system, fingerprint))
        if not self.resume_sweep(sweep_log, fingerprint):
            self.log("another process runs this sweep, and sends its records to MLflow")
            return
        self._begin(sweep_log)
        self.copy_events()

    def resume_sweep(self, sweep_log: SweepEventLog, fingerprint: str) -> bool:
        """Acquire the lease of a sweep; returns whether no other process holds it."""
        self._sweep_log, self.sweep = sweep_log, fingerprint
        held = sweep_log.acquire()
        self._add(sweep_log.folder, fingerprint)
        for stage, stage_fingerprint in list(sweep_log.stages.items()):
            self._add(stage, stage_fingerprint)
        return held

    def follow(self, folder: AnyPath, fingerprint: str) -> None:
        """Copy the event log of a stage from now on."""
        with self._lock:
            if self.sweep_log.held:
                self.sweep_log.add(folder, fingerprint)
                record_abandoned(folder)
            self._add(folder, fingerprint)

    def _add(self, folder: AnyPath, fingerprint: str) -> None:
        if folder not in self._copies:
            identity = {"lola.fingerprint": fingerprint, "lola.sweep": self.sweep}
            self._copies[folder] = RunCopy(self.client, self.root, folder, identity)
            self._pauses[folder] = _Pause()
            self.follower.add(folder)

    def copy_events(self) -> None:
        """Copy what is new in all logs; what MLflow does not take now is copied later."""
        with contextlib.suppress(TrackingError, OSError):  # an outage must not stop the work
            self.follower.poll()

    def start_offset(self, folder: AnyPath) -> int:
        """The whole log is read: MLflow says where to resume."""
        return 0

    def consume(self, folder: AnyPath, offset: int, events: Events) -> int:
        """Send events; returns the offset that MLflow has confirmed, or the same if it does not answer."""
        with self._lock:
            if not (self._sweep_log and self._sweep_log.held) or self._outage.on or self._pauses[folder].on:
                return offset
            try:
                taken = self._consume(self._copies[folder], folder, offset, events)
            except Exception as error:  # the client raises whatever its transport or database raises
                self._fail(folder, error)
                return offset
            self._outage.clear()
            self._pauses[folder].clear()
            self._troubles.pop(folder, None)
            return taken

    def end_poll(self) -> None:
        """Raise `TrackingError` if logs could not be copied."""
        if self._troubles:
            raise TrackingError(next(iter(self._troubles.values())))

    def _consume(self, copy: RunCopy, folder: AnyPath, offset: int, events: Events) -> int:
        if copy.run_id is None:
            child = folder != self.sweep_log.folder
            if child and self.parent is None:
                return offset
            run = self._index().get(copy.identity["lola.fingerprint"])
            if run is not None:
                copy.attach(run)
                if child and run.data.tags.get(PARENT) != self.parent:
                    self.client.log_batch(run.info.run_id, tags=[RunTag(PARENT, str(self.parent))])
            elif offset:
                return 0
            else:
                copy.create(self.experiment, events, self.parent if child else None)
        return copy.send(events, self._flushing) if copy.offset == offset else copy.offset

    def _fail(self, folder: AnyPath, error: Exception) -> None:
        """Ask MLflow again what it has, after a pause."""
        self._copies[folder].forget()
        self._runs = self._experiment = None
        (self._pauses[folder] if is_rejection(error) else self._outage).lengthen()
        self._troubles[folder] = describe_cause(error)

    def _index(self) -> dict[str, Run]:
        """The sweep's runs by fingerprint; of several of one stage the others are deleted."""
        if self._runs is None:
            query, token = f"tags.`lola.sweep` = '{self.sweep}'", None
            runs: dict[str, Run] = {}
            while True:
                page = self.client.search_runs([self.experiment], query, max_results=1000, page_token=token)
                for run in page:
                    key = run.data.tags["lola.fingerprint"]
                    best, *others = sorted([run, *([runs[key]] if key in runs else [])], key=_completeness)
                    for other in others:  # such as one that was deleted before, and restored
                        self.client.delete_run(other.info.run_id)
                    runs[key] = best
                token = page.token
                if not token:
                    break
            self._runs = runs
        return self._runs

    @contextlib.contextmanager
    def finish_on_error(self) -> Iterator[None]:
        """End the run where the block ends by an interrupt or an error, which then says what is missing."""
        try:
            yield
        except KeyboardInterrupt:
            self.finish_sweep(None, "KILLED")
            raise KeyboardInterrupt(self.missing) from None
        except Exception as error:
            self.finish_sweep(None, "FAILED")
            if isinstance(error, LolaError) and self.missing:
                raise LolaError(f"{error}; {self.missing}") from error
            raise

    def finish_sweep(
        self, report: AnyPath | None, status: Status, conclusion: Conclusion | None = None
    ) -> None:
        """Record the end, the conclusion and the report of the sweep, and send what is left, as `flush`."""
        if not self.sweep_log.held and self.sweep_log.acquire():  # the other process ended before this one
            self._begin(self.sweep_log)
            for folder, copy in self._copies.items():
                if folder != self.sweep_log.folder:
                    self.sweep_log.add(folder, copy.identity["lola.fingerprint"])
        if self.sweep_log.held:
            try:
                self.sweep_log.end(status, report, conclusion)
                self.flush(ENDING_S if status == "KILLED" else 0.0)
            except OSError as error:
                self.missing = (
                    f"the event log {self.sweep_log.folder} cannot be written ({first_line(error)})"
                )
            finally:
                self.sweep_log.release()

    def flush(self, wait_s: float = 0.0) -> None:
        """Send everything that is outstanding; leaves in `missing` what could not be sent.

        Waits for processes that are ending, up to `wait_s` seconds.
        """
        until = time.monotonic() + wait_s
        stages = [folder for folder in self._copies if folder != self.sweep_log.folder]
        running = [
            stage for stage in stages if not record_abandoned(stage, max(0.0, until - time.monotonic()))
        ]
        left = list(self._copies)
        self._flushing = True
        for _ in range(FINAL_ATTEMPTS):
            with self._lock:
                self._outage.clear()
                for pause in self._pauses.values():
                    pause.clear()
            self.copy_events()
            left = self._outstanding()
            if not left or self._outage.on:
                break
        self.missing = self._describe(left, running if wait_s else [])

    def _outstanding(self) -> list[AnyPath]:
        """The logs that MLflow has not confirmed to the end, as it says itself."""
        sizes = {folder: end_offset(folder) for folder in self._copies}
        sizes = {folder: size for folder, size in sizes.items() if size}
        with self._lock:
            self._runs = None
            try:
                runs = self._index()
            except Exception as error:  # the client raises whatever its transport or database raises
                self._fail(self.sweep_log.folder, error)
                return list(sizes)
            left = []
            for folder, size in sizes.items():
                run = runs.get(self._copies[folder].identity["lola.fingerprint"])
                tags = run.data.tags if run else {}
                if tags.get(OFFSET) != str(size) or tags.get(PARENT, self.parent) != self.parent:
                    self._copies[folder].forget()
                    self.follower.rewind(folder)
                    left.append(folder)
            return left

    def _describe(self, left: list[AnyPath], running: list[AnyPath]) -> str:
        """What is missing in MLflow, and how to send it."""
        sync = f"send the rest with: {sync_command(self.root)}"
        lost_files = {name: why for copy in self._copies.values() for name, why in copy.lost_files.items()}
        parts = []
        if left:
            trouble = next(iter(self._troubles.values()), "they change still")
            parts.append(
                f"MLflow at {self.uri} lacks events of {len(left)} of {len(self._copies)} runs ({trouble})"
            )
        if running:
            parts.append(f"{len(running)} runs are shown as running, since their processes still end")
        parts = [f"{'; '.join(parts)}; {sync}"] if parts else []
        if lost_files:
            name, why = next(iter(lost_files.items()))
            parts.append(f"{len(lost_files)} files are not in MLflow, the first {name}, which {why}")
        return "; ".join(reversed(parts))


def _completeness(run: Run) -> tuple[int, int]:
    return -int(run.data.tags.get(OFFSET, "0")), run.info.start_time


def sync_command(root: AnyPath) -> str:
    """The command that sends everything outstanding of a storage root."""
    return shlex.join(["python", "experiments/sync_mlflow.py", "--storage", str(root)])
