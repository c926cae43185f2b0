"""Leases: one process at a time makes what a folder is for.

On local and shared filesystems the lease is a lock of the system's, which ends with its holder. An object
store has no locks. There the lease is an object, `.lease`, that its holder writes again every `RENEW` seconds
and removes in the end. Another takes it over once it has seen the object unchanged for `EXPIRY` seconds by
its own clock, so that clocks need not agree; at once, if the holder ran on its own machine, where a lock of
the system's tells that it is dead.

What this guarantees: the object is created, renewed and taken over under the condition that it is as it was
last seen, where the store has conditions (S3 does), so that two processes never both take it. Elsewhere
(Google Cloud Storage through fsspec) a process waits `SETTLE` seconds after it wrote, and looks whether its
own token is there: two would both hold it only if a write took longer than that. In either case a holder
that is held up for longer than `EXPIRY`, such as a suspended machine, goes on after another took over, and
is told so by a warning. Two then make the same stage: work is done twice, and the contents are the same,
since stages are content-addressed and objects appear whole. But what the first removes when it ends, the
checkpoints, may fail the other, which finds the stage finished when it is started again.
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
from lola.storage.remote import AnyPath, cache_folder, mirrored, translate_fs_errors

RENEW = 15.0  # seconds between renewals
EXPIRY = 60.0  # seconds without one after which another may take over
LOOK = 1.0  # seconds between looks at another's lease
SETTLE = 2.0  # seconds that a write may take, where there are no conditional ones
REFUSED = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")


def lease(folder: AnyPath) -> "filelock.BaseFileLock | ObjectLease":
    """A context for one process at a time; it ends with a process that died."""
    if isinstance(folder, UPath):
        return ObjectLease(folder / ".lease")
    with translate_os_errors(folder):
        make_folder(folder)
    return Lock(folder / ".lease")


@contextlib.contextmanager
def logged_lease(folder: AnyPath, log: Log, clock: Callable[[], float] = time.monotonic) -> Iterator[None]:
    """A lease, as for `lease`, which says after some seconds who has it, if it is not to be had.

    Arguments:
        folder: What the lease is for.
        log: Told the line.
        clock: Tells seconds.
    """
    reminder = Reminder(lambda: f"waiting for {folder}: {holder(folder)} has its lease", log, clock=clock)
    own = lease(folder)
    if isinstance(own, ObjectLease):
        own.acquire(waiting=reminder.poll)
    else:
        _acquire(own, reminder.poll)
        with contextlib.suppress(OSError):  # another user's file: then nobody learns since when
            os.utime(own.lock_file)
    try:
        yield
    finally:
        own.release()


def _acquire(lock: filelock.BaseFileLock, waiting: Callable[[], None], timeout: float = -1) -> None:
    """Wait for a lock of the system's, calling a function every now and then."""
    deadline = float("inf") if timeout < 0 else time.monotonic() + timeout
    while True:
        left = deadline - time.monotonic()
        try:
            lock.acquire(timeout=max(0.0, min(LOOK, left)))
            return
        except filelock.Timeout:
            if left <= LOOK:
                raise
        waiting()


def holder(folder: AnyPath) -> str:
    """Who has the lease of a folder, and since when, as far as can be seen."""
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
class _Seen:
    """A lease as it was seen: the version of the object, and what it says."""

    version: str
    content: dict[str, Any]


class ObjectLease:
    """A lease on an object store, as a context; it is not reentrant.

    Arguments:
        path: The object.

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
        beside = mirrored(path)
        beside.mkdir(exist_ok=True)
        self._here = Lock(beside / "lease")

    def acquire(self, timeout: float = -1, waiting: Callable[[], None] = lambda: None) -> Self:
        """Wait for the lease, and keep it until it is released.

        Arguments:
            timeout: Seconds to wait; negative is for ever.
            waiting: Called about every second meanwhile.

        Raises:
            TimeoutError: Another holds it.
        """
        deadline = float("inf") if timeout < 0 else time.monotonic() + timeout
        _acquire(self._here, waiting, timeout)
        try:
            self._wait(deadline, waiting)
        except BaseException:
            self._here.release()
            raise
        self._ended.clear()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()
        return self

    def release(self) -> None:
        """Give the lease back."""
        assert self._thread is not None
        self._ended.set()
        self._thread.join()
        self._thread = None
        try:
            seen = self._look()
            if seen is not None and seen.content["token"] == self.token:
                with translate_fs_errors(self.path):
                    self.path.unlink(missing_ok=True)
        except StorageError as error:
            logging.getLogger(__name__).warning("%s is left to expire: %s", self.path, error)
        finally:
            self._here.release()

    def __enter__(self) -> Self:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _wait(self, deadline: float, waiting: Callable[[], None]) -> None:
        """Write the lease as soon as nobody has it."""
        version, since = None, time.monotonic()
        while True:
            seen, now = self._look(), time.monotonic()
            if seen is None:
                free = True
            elif seen.version != version:
                version, since = seen.version, now
                free = seen.content["machine"] == machine()  # its process is dead: its lock is ours
            else:
                free = now - since > EXPIRY
            if free and self._write(seen.version if seen else None):
                return
            if now > deadline:
                raise TimeoutError(f"{self.path} is held by another")
            waiting()
            self._ended.wait(LOOK)

    def _keep(self) -> None:
        """Renew the lease until it is released."""
        while not self._ended.wait(RENEW):
            try:
                kept = self._write(self._version)
            except StorageError:  # an outage: perhaps next time, before it expires
                continue
            if not kept:
                logging.getLogger(__name__).warning(
                    "another process took over %s, which was not renewed in time; both make the same",
                    self.path,
                )
                return

    def _look(self) -> _Seen | None:
        """The lease as it is; None if there is none."""
        with translate_fs_errors(self.path):
            try:
                version = self.path.fs.info(self.path.path).get("ETag")
                text = self.path.fs.cat_file(self.path.path).decode()
            except FileNotFoundError:
                return None
        return _Seen(version or text, json.loads(text))

    def _write(self, version: str | None) -> bool:
        """Write the lease if it is of a version, or if there is none; returns whether it is ours."""
        self.count += 1
        content: dict[str, Any] = {"token": self.token, "machine": machine(), "process": os.getpid()}
        content |= {"host": socket.gethostname(), "since": self.since, "count": self.count}
        condition: dict[str, str] = {}
        if self.conditional:
            condition = {"IfNoneMatch": "*"} if version is None else {"IfMatch": version}
        else:
            seen = self._look()
            if (seen.version if seen else None) != version:
                return False
        with translate_fs_errors(self.path):
            try:
                self.path.fs.pipe_file(self.path.path, json.dumps(content).encode(), **condition)
            except OSError as error:
                if not _refused(error):
                    raise
        if not self.conditional and self._thread is None:
            time.sleep(SETTLE)
        seen = self._look()
        self._version = seen.version if seen else None
        return seen is not None and seen.content["token"] == self.token


def _refused(error: OSError) -> bool:
    """Whether a store refused to write since its condition did not hold."""
    response = getattr(error.__cause__, "response", None) or {}
    return response.get("Error", {}).get("Code") in REFUSED


def machine() -> str:
    """A name of this machine, as long as it runs, and of its folder of copies, where its locks are."""
    return f"{socket.gethostname()}-{_boot()}-{_name(cache_folder())}"


@functools.cache
def _name(folder: Path) -> str:
    """A random name that a folder was given."""
    path = folder / "machine"
    with Lock(folder / ".machine.lock"):
        if not path.exists() or not path.read_text():
            path.write_text(uuid.uuid4().hex)
        return path.read_text()


def _boot() -> str:
    """Of this start of the machine, where the system tells."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
