"""An expiring lease: at most one process works on a stage at a time.

The lease is a file created exclusively that names its owner and an expiry, which a thread keeps moving
while the owner lives. An owner that died lets its lease expire; on the owner's own host a dead process is
seen at once.
"""

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from lola.storage import atomic_path

DURATION = 60.0  # seconds that a lease outlives its owner's last sign of life


@contextlib.contextmanager
def lease(folder: Path, poll: float = 1.0) -> Iterator[None]:
    """Hold the folder's lease during the block; waits while another living owner holds it."""
    path = folder / "lease.json"
    folder.mkdir(parents=True, exist_ok=True)
    while not _take(path):
        time.sleep(poll)
    released = threading.Event()
    keeper = threading.Thread(target=_keep, args=(path, released), daemon=True)
    keeper.start()
    try:
        yield
    finally:
        released.set()
        keeper.join()
        path.unlink(missing_ok=True)


def _claim() -> str:
    process = psutil.Process()
    owner = {"host": socket.gethostname(), "pid": process.pid, "born": process.create_time()}
    return json.dumps(owner | {"expires": time.time() + DURATION})


def _take(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        if not _abandoned(path):
            return False
        # Of several that see the same abandoned lease, only one can rename it away.
        with contextlib.suppress(FileNotFoundError):
            grave = path.with_name(f".{path.name}.{os.getpid()}")
            os.rename(path, grave)
            grave.unlink()
        return False
    with os.fdopen(descriptor, "w") as file:
        file.write(_claim())
    return True


def _abandoned(path: Path) -> bool:
    try:
        owner = json.loads(path.read_text())
        modified = path.stat().st_mtime
    except FileNotFoundError:
        return False
    except ValueError:  # its owner died, or is at this moment, between creating and writing it
        return time.time() > modified + DURATION
    if owner["host"] == socket.gethostname():
        try:
            return abs(psutil.Process(owner["pid"]).create_time() - owner["born"]) > 1.0
        except psutil.NoSuchProcess:
            return True
    return time.time() > owner["expires"]


def _keep(path: Path, released: threading.Event) -> None:
    while not released.wait(DURATION / 4):
        with atomic_path(path) as aside:
            aside.write_text(_claim())
