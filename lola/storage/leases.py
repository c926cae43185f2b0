"""Leases: one process at a time makes what a folder is for.

On local and shared filesystems the lease is a lock of the operating system, which ends with the process that
holds it. An object store has no locks. There the lease is an object, `.lease`, that its holder writes again
every `RENEW_INTERVAL_S` seconds and removes at the end. Another process takes it over once the object has not
changed for `EXPIRY_S` seconds by its own clock, so that clocks need not agree; or at once, if the holder ran
on the same machine, where a released file lock shows that it is dead.

What this guarantees: where the store has conditional writes (S3 does), the object is created, renewed and
taken over only if it is as it was last read, so that two processes never both take it. Elsewhere (Google
Cloud Storage through fsspec) a process waits `WRITE_SETTLE_S` seconds after its write and then reads back
whose token is there: two would both hold the lease only if a write took longer than that. In either case a
holder that is suspended for longer than `EXPIRY_S` continues after another process took over, and logs a
warning. Two processes then make the same stage: work is done twice, and the contents are the same, since
stages are content-addressed and objects appear whole. But the checkpoints that the first removes when it ends
may be missing for the other, which then fails and finds the stage finished when it is started again.
"""

import contextlib
import dataclasses
import functools
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import filelock
from upath import UPath

from lola.core.errors import StorageError
from lola.core.filesystem import Lock, make_folder, translate_os_errors
from lola.core.waiting import Log, Reminder
from lola.storage.remote import AnyPath, cache_folder, local_cache_folder, translate_fs_errors

RENEW_INTERVAL_S = 15.0
EXPIRY_S = 60.0  # without a renewal, after which another process may take over
POLL_INTERVAL_S = 1.0  # of another process's lease
WRITE_SETTLE_S = 2.0  # the longest duration of a write where there are no conditional ones
CONFLICT_CODES = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")


def lease(folder: AnyPath) -> "filelock.BaseFileLock | ObjectLease":
    """A context for one process at a time; it ends with a process that died."""
    if isinstance(folder, UPath):
        return ObjectLease(folder / ".lease")
    with translate_os_errors(folder):
        make_folder(folder)
    return Lock(folder / ".lease")


@contextlib.contextmanager
def try_lease(folder: AnyPath, wait_s: float = 0.0) -> Iterator[bool]:
    """The lease of a folder, unless another process keeps it for `wait_s`; yields whether it was acquired."""
    own = lease(folder)
    with contextlib.ExitStack() as stack:
        try:
            own.acquire(timeout=wait_s)
        except TimeoutError:
            acquired = False
        else:
            acquired = True
            stack.callback(own.release)
        yield acquired


@contextlib.contextmanager
def logged_lease(folder: AnyPath, log: Log, clock: Callable[[], float] = time.monotonic) -> Iterator[None]:
    """A lease, as for `lease`, that logs after some seconds which process holds it."""
    reminder = Reminder(
        lambda: f"waiting for {folder}: {describe_holder(folder)} has its lease", log, clock=clock
    )
    own = lease(folder)
    if isinstance(own, ObjectLease):
        own.acquire(on_wait=reminder.poll)
    else:
        _acquire(own, reminder.poll)
        with contextlib.suppress(OSError):  # another user's file: the time of acquisition stays unknown
            os.utime(own.lock_file)
    try:
        yield
    finally:
        own.release()


def _acquire(lock: filelock.BaseFileLock, on_wait: Callable[[], None], timeout: float = -1) -> None:
    """Wait for a file lock, calling a function about every second."""
    deadline = float("inf") if timeout < 0 else time.monotonic() + timeout
    while True:
        left = deadline - time.monotonic()
        try:
            lock.acquire(timeout=max(0.0, min(POLL_INTERVAL_S, left)))
            return
        except filelock.Timeout:
            if left <= POLL_INTERVAL_S:
                raise
        on_wait()


def describe_holder(folder: AnyPath) -> str:
    """Which process holds the lease of a folder, and since when, as far as is known."""
    if isinstance(folder, UPath):
        try:
            content = json.loads((folder / ".lease").read_text())
        except (OSError, ValueError):
            return "another process of this machine"
        return f"process {content['process']} on {content.get('host')} since {content.get('since')}"
    try:
        found = (folder / ".lease").stat()
        locks = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return "another process"
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(found.st_mtime))
    place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    owners = [fields[4] for line in locks if (fields := line.split())[1] != "->" and fields[5] == place]
    return (
        f"process {owners[0]} of this machine since {since}" if owners else f"another machine since {since}"
    )


@dataclasses.dataclass(frozen=True)
class _LeaseState:
    """A lease as it was read: the version of the object, and its content."""

    version: str
    content: dict[str, Any]


class ObjectLease:
    """A lease on an object store, as a context; it is not reentrant.

    Raises:
        StorageError: The store cannot be reached or written.
    """

    def __init__(self, path: UPath) -> None:
        self.path = path
        self.token = uuid.uuid4().hex
        self.conditional = "s3" in path.fs.protocol
        self.count = 0
        self.since = time.strftime("%Y-%m-%d %H:%M:%S")
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._version: str | None = None
        folder = local_cache_folder(path)
        folder.mkdir(exist_ok=True)
        self._local_lock = Lock(folder / "lease")

    def acquire(self, timeout: float = -1, on_wait: Callable[[], None] = lambda: None) -> Self:
        """Wait for the lease, and keep it until it is released.

        Arguments:
            timeout: Seconds to wait; negative is without limit.
            on_wait: Called about every second meanwhile.

        Raises:
            TimeoutError: Another process holds it.
        """
        deadline = float("inf") if timeout < 0 else time.monotonic() + timeout
        _acquire(self._local_lock, on_wait, timeout)
        try:
            self._wait(deadline, on_wait)
        except BaseException:
            self._local_lock.release()
            raise
        self._ended.clear()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()
        return self

    def release(self) -> None:
        assert self._thread is not None
        self._ended.set()
        self._thread.join()
        self._thread = None
        try:
            found = self._read()
            if found is not None and found.content["token"] == self.token:
                with translate_fs_errors(self.path):
                    self.path.unlink(missing_ok=True)
        except StorageError as error:
            logging.getLogger(__name__).warning(
                "%s could not be removed and will expire: %s", self.path, error
            )
        finally:
            self._local_lock.release()

    def __enter__(self) -> Self:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _wait(self, deadline: float, on_wait: Callable[[], None]) -> None:
        """Write the lease as soon as no process holds it."""
        version, since = None, time.monotonic()
        while True:
            found, now = self._read(), time.monotonic()
            if found is None:
                free = True
            elif found.version != version:
                version, since = found.version, now
                # A process of this machine is dead: this one holds its file lock
                free = found.content["machine"] == machine_id()
            else:
                free = now - since > EXPIRY_S
            if free and self._write(found.version if found else None):
                return
            if now > deadline:
                raise TimeoutError(f"{self.path} is held by another")
            on_wait()
            self._ended.wait(POLL_INTERVAL_S)

    def _keep(self) -> None:
        """Renew the lease until it is released."""
        while not self._ended.wait(RENEW_INTERVAL_S):
            try:
                kept = self._write(self._version)
            except StorageError:  # an outage: try again before it expires
                continue
            if not kept:
                logging.getLogger(__name__).warning(
                    "another process took over %s, which was not renewed in time; both make the same results",
                    self.path,
                )
                return

    def _read(self) -> _LeaseState | None:
        """The lease as it is now; None if there is none."""
        with translate_fs_errors(self.path):
            try:
                version = self.path.fs.info(self.path.path).get("ETag")
                text = self.path.fs.cat_file(self.path.path).decode()
            except FileNotFoundError:
                return None
        return _LeaseState(version or text, json.loads(text))

    def _write(self, version: str | None) -> bool:
        """Write the lease if it has this version (None: no lease); whether this process holds it."""
        self.count += 1
        content: dict[str, Any] = {"token": self.token, "machine": machine_id(), "process": os.getpid()}
        content |= {"host": socket.gethostname(), "since": self.since, "count": self.count}
        condition: dict[str, str] = {}
        if self.conditional:
            condition = {"IfNoneMatch": "*"} if version is None else {"IfMatch": version}
        else:
            found = self._read()
            if (found.version if found else None) != version:
                return False
        with translate_fs_errors(self.path):
            try:
                self.path.fs.pipe_file(self.path.path, json.dumps(content).encode(), **condition)
            except OSError as error:
                if not _is_conflict(error):
                    raise
        if not self.conditional and self._thread is None:
            time.sleep(WRITE_SETTLE_S)
        found = self._read()
        self._version = found.version if found else None
        return found is not None and found.content["token"] == self.token


def _is_conflict(error: OSError) -> bool:
    """Whether a store refused a write because its condition did not hold."""
    response = getattr(error.__cause__, "response", None) or {}
    return response.get("Error", {}).get("Code") in CONFLICT_CODES


def machine_id() -> str:
    """An identifier of this machine since it booted, and of its cache folder, where its locks are."""
    return f"{socket.gethostname()}-{_boot_id()}-{_folder_id(cache_folder())}"


@functools.cache
def _folder_id(folder: Path) -> str:
    """The random identifier of a folder, made on first use."""
    path = folder / "machine"
    with Lock(folder / ".machine.lock"):
        if not path.exists() or not path.read_text():
            path.write_text(uuid.uuid4().hex)
        return path.read_text()


def _boot_id() -> str:
    """The identifier of this boot of the machine; empty where the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
