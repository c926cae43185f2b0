"""A check of HDF5 files before they are opened: metadata with changed bytes can crash the HDF5 library.

The Well's layout has no checksums, so that only reading shows it. A child process, one for all files, reads
the metadata of each file first; if the file crashes it, the error names the file and this process lives.
"""

import atexit
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

from lola.core.errors import DataError

CHILD = Path(__file__).with_name("hdf5_child.py")
LONGEST_S = 300.0  # for which the metadata of a file are read
CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL)
RAY_WORKER = "default_worker.py"
_lock = threading.Lock()
_children: dict[int, subprocess.Popen[bytes]] = {}
_checked: set[tuple[str, int, int, int]] = set()


def is_ray_worker() -> bool:
    """Whether this is a process of Ray's, which reads what the program that submitted its task has read."""
    return os.path.basename(sys.argv[0] if sys.argv else "") == RAY_WORKER


def check_hdf5(path: Path, remedy: str = "") -> None:
    """Check a file of this machine, unless this process has checked it before.

    Arguments:
        remedy: What to do if it is corrupt; default: copy it again, or leave it out.

    Raises:
        DataError: Reading its metadata crashes the HDF5 library, or does not end.
    """
    try:
        status = os.stat(path)
    except OSError:
        return  # whoever opens it reports that
    key = str(path), status.st_ino, status.st_mtime_ns, status.st_size
    with _lock:
        if key in _checked:
            return
        fault = _fault(path)
        if fault:
            remedy = remedy or f"copy it again, or leave it out with --exclude {path.name}"
            raise DataError(f"{path} {fault}: its metadata are corrupt; {remedy}")
        _checked.add(key)


def _fault(path: Path) -> str:
    """What a file does to the child that reads it; empty if nothing, or if no child can be started."""
    try:
        child = _child()
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(json.dumps(str(path.absolute())).encode() + b"\n")
        child.stdin.flush()
        poll = select.poll()
        poll.register(child.stdout, select.POLLIN)
        answered = poll.poll(1000 * LONGEST_S)
        if answered and child.stdout.readline():
            return ""
    except OSError:  # it cannot be started, or has ended
        end_child()
        return ""
    except BaseException:  # its answer is not awaited any more
        end_child()
        raise
    code = -child.wait() if answered else 0
    end_child()
    if not answered:
        return f"keeps the HDF5 library busy for {LONGEST_S:g} s"
    return f"crashes the HDF5 library ({signal.Signals(code).name})" if code in CRASHES else ""


def _child() -> subprocess.Popen[bytes]:
    """The child of this process, which ends when that does."""
    number = os.getpid()  # a fork does not own its parent's
    if number not in _children:
        _children[number] = subprocess.Popen(
            [sys.executable, "-P", str(CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    return _children[number]


@atexit.register
def end_child() -> None:
    """End the child of this process, if it has one."""
    child = _children.pop(os.getpid(), None)
    if child is not None:
        child.kill()
        for pipe in (child.stdin, child.stdout):
            with contextlib.suppress(OSError):  # what could not be written
                assert pipe is not None
                pipe.close()
        child.wait()
