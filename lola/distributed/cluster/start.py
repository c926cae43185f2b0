"""Starting Ray on this machine, or attaching to a cluster: where its files go, and what to do if it fails.

Ray gives up on its own processes after 30 seconds, with a traceback. Here it is tried again, and
the last failure is one line that names what is likely to blame: load, a port, a folder.
"""

import contextlib
import logging
import os
import stat
import tempfile
import time
import traceback
from pathlib import Path

import ray
from ray._private.authentication.authentication_token_generator import generate_new_authentication_token
from ray._private.node import Node
from ray.exceptions import AuthenticationError, RpcError

from lola.core.errors import ClusterError
from lola.core.waiting import Log, reminding
from lola.distributed.cluster.address import EMBEDDED_VARIABLE, LOCAL
from lola.distributed.cluster.causes import causes

TRIES = 3
UNAUTHENTICATED = 16  # a status of gRPC
PAUSE_S = 3.0  # between two tries
SOCKET_BYTES = 107  # the longest path of a socket (AF_UNIX)
BELOW = len("/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")
"""Bytes of the longest path of a socket below the folder of temporary files."""
SHORT = ("/tmp", "/dev/shm")
CACHES = {
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TRITON_CACHE_DIR": "triton",
    "MPLCONFIGDIR": "matplotlib",
    "XDG_CACHE_HOME": "cache",
}
"""Variables of what libraries keep in a home folder, and folders in its stead."""


def start_ray(address: str, log: Log) -> None:
    """Start Ray here, or attach to the cluster of an address, with three tries.

    Raises:
        ClusterError: It did not start.
    """
    if address == LOCAL:
        choose_ray_temporary_folder(log)
        os.environ[EMBEDDED_VARIABLE] = "1"
        doing = "starting Ray on this machine"
    else:
        os.environ.pop(EMBEDDED_VARIABLE, None)
        doing = f"connecting to the Ray cluster at {address}"
    log(doing)
    for number in range(1, TRIES + 1):
        try:
            with reminding(lambda: f"still {doing}; {load()}", log):
                # Ray finds others itself: it takes a token along to those alone that it was not given
                given = LOCAL if address == LOCAL else None
                ray.init(address=given, logging_level=logging.WARNING, log_to_driver=False)
            return
        except (Exception, SystemExit) as error:  # Ray raises whatever its parts do, and may end the program
            stop_processes(error)
            reason = _reason(error)
            if any(map(_unauthenticated, causes(error))):
                raise ClusterError(
                    f"the Ray cluster at {address} refuses this program's token; set RAY_AUTH_MODE=token "
                    "and RAY_AUTH_TOKEN_PATH to the file of that cluster's token"
                ) from error
            if number == TRIES:
                raise ClusterError(_failure(address, reason)) from error
            log(f"Ray did not start ({reason}); trying again, {number + 1} of {TRIES}")
            time.sleep(PAUSE_S)


def _reason(error: BaseException) -> str:
    """The first line of an error of Ray's, and of what caused it."""
    if isinstance(error, SystemExit):
        return "it does not answer"
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def _unauthenticated(error: BaseException) -> bool:
    return isinstance(error, AuthenticationError) or (
        isinstance(error, RpcError) and error.rpc_code == UNAUTHENTICATED
    )


def _failure(address: str, reason: str) -> str:
    """Why Ray could not be started, and what to do."""
    if address != LOCAL:
        return (
            f"no connection to the Ray cluster at {address} in {TRIES} tries ({reason}); see whether it is "
            f"well with `ray status --address {address}`, or unset RAY_ADDRESS to start one on this machine"
        )
    if "port" in reason.lower() or "address already in use" in reason.lower():
        remedy = "end what uses that port, or unset the variable that names it (env | grep RAY_.*PORT)"
    else:
        remedy = (
            f"{load()}: run again when the machine is less busy, and see the files in "
            f"{ray_temporary_folder() / 'ray' / 'session_latest' / 'logs'}"
        )
    return f"Ray did not start on this machine in {TRIES} tries ({reason}); {remedy}"


def load() -> str:
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs"


def stop_processes(error: BaseException) -> None:
    """End the processes that a failed start has left, which Ray keeps until the program ends."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        node = frame.f_locals.get("self")
        if isinstance(node, Node):
            with contextlib.suppress(Exception):  # half of them may never have started
                node.kill_all_processes(check_alive=False, allow_graceful=False)
    with contextlib.suppress(Exception):
        ray.shutdown()


def ray_temporary_folder() -> Path:
    """The folder in which Ray makes its own."""
    return Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp")


def choose_ray_temporary_folder(log: Log) -> None:
    """Put Ray's files into a short private folder where those named are too long for sockets, or unwritable.

    Raises:
        ClusterError: There is no such folder.
    """
    folder = ray_temporary_folder()
    longest = SOCKET_BYTES - BELOW
    size = len(os.fsencode(folder.absolute()))
    fault = f"{size} bytes long, and Ray's sockets allow {longest}" if size > longest else write_error(folder)
    if not fault:
        return
    name = "RAY_TMPDIR" if os.environ.get("RAY_TMPDIR") else "TMPDIR"
    for parent in SHORT:
        with contextlib.suppress(OSError):
            chosen = user_folder(Path(parent))
            os.environ["RAY_TMPDIR"] = str(chosen)
            log(f"{name} {folder} is {fault}: Ray keeps its files in {chosen}")
            return
    raise ClusterError(
        f"{name} {folder} is {fault}, and neither {' nor '.join(SHORT)} can be written; name a folder of at "
        f"most {longest} bytes with RAY_TMPDIR"
    )


def replace_home(log: Log) -> None:
    """Keep Ray's token and the caches of compiled networks elsewhere if this user's home cannot be written.

    Raises:
        ClusterError: There is no other folder either.
    """
    try:
        fault = write_error(home := Path.home())
    except RuntimeError:
        home, fault = None, "not known"
    if not fault and home != Path("/"):
        return
    try:
        folder = user_folder(ray_temporary_folder())
    except OSError as error:
        raise ClusterError(
            f"neither this user's home nor {ray_temporary_folder()} can be written ({error.strerror}); set "
            "HOME or TMPDIR to a folder that can"
        ) from None
    for name, below in CACHES.items():
        os.environ.setdefault(name, str(folder / below))
    if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
        token = folder / "auth_token"
        if not token.exists():
            with open(os.open(token, os.O_CREAT | os.O_WRONLY, 0o600), "w") as file:
                file.write(generate_new_authentication_token())
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(token)
    log(f"the home folder {home or ''} is {fault or 'the root'}: Ray's token and caches are kept in {folder}")


def write_error(folder: Path) -> str:
    """Why a folder cannot be written; empty if it can be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return f"not writable ({error.strerror})"


def user_folder(parent: Path) -> Path:
    """A folder for this user alone, the same at every call unless another user has taken its name.

    Raises:
        OSError: The parent cannot be written.
    """
    folder = parent / f"ray-{os.geteuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    private = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
    if private and not write_error(folder):
        return folder
    return Path(tempfile.mkdtemp(prefix="ray-", dir=parent))
