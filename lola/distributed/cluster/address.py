"""Which Ray cluster to attach to, and whether it answers: known within seconds, where Ray waits for minutes.

A cluster's control service speaks HTTP/2, so that a connection, a preface and the settings that the server
must send in return distinguish a running cluster from an address where nothing, or another program, listens.
"""

import contextlib
import enum
import os
import socket
import urllib.parse
from pathlib import Path

from ray._common.utils import get_ray_address_file

from lola.core.errors import ClusterError
from lola.core.waiting import Log

LOCAL = "local"  # Ray's name for a cluster that the program starts itself
EMBEDDED_VARIABLE = "LOLA_EMBEDDED_CLUSTER"
"""Set for all processes of a cluster that the program has started itself: it does not grow."""
PROBE_TIMEOUT_S = 4.0
TRIES = 3  # a busy machine answers late
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # and empty settings
SETTINGS_FRAME = 4  # the type of a frame, its fourth byte


class Answer(enum.Enum):
    """What comes back from an address."""

    ALIVE = "answers"
    REFUSED = "nothing listens there"
    SILENT = "nothing comes back from there"
    UNRECOGNISED = "what listens there is no Ray cluster"
    UNKNOWN = "no machine has that name"


def find_cluster(log: Log) -> str:
    """The address of the cluster that is named and answers, else `LOCAL`.

    `RAY_ADDRESS` comes first, then the file that `ray start` leaves, as for Ray. A file that names a cluster
    which is certainly gone, since its port is closed, is ignored with a message.

    Raises:
        ClusterError: The cluster that is named does not answer.
    """
    named = os.environ.get("RAY_ADDRESS", "")
    if named == LOCAL:
        return LOCAL
    if named and named != "auto":
        remedy = "start that cluster, name another, or unset RAY_ADDRESS to start one on this machine"
        _require_alive(named, "RAY_ADDRESS", probe(named), remedy)
        return named
    file = Path(get_ray_address_file(None))
    found = _read(file)
    answer = probe(found) if found else Answer.REFUSED
    if answer is Answer.ALIVE:
        return found
    if named:
        where = f"{file} names {found}, where {answer.value}" if found else f"there is no {file}"
        raise ClusterError(
            f"RAY_ADDRESS is auto, but {where}; start a cluster with `ray start --head`, name one with "
            "RAY_ADDRESS, or unset it to start one on this machine"
        )
    if found and answer is not Answer.REFUSED:
        remedy = "remove that file, or set RAY_ADDRESS=local, to start one on this machine"
        _require_alive(found, str(file), answer, remedy)
    if found:
        log(f"{file} names a Ray cluster at {found} that has ended; it is ignored (`ray stop` removes it)")
    return LOCAL


def _require_alive(address: str, source: str, answer: Answer, remedy: str) -> None:
    """Raise `ClusterError` unless the cluster at an address, which a variable or a file names, answers."""
    if answer is not Answer.ALIVE:
        raise ClusterError(
            f"the Ray cluster at {address}, which {source} names, does not answer ({answer.value}); {remedy}"
        )


def _read(file: Path) -> str:
    with contextlib.suppress(OSError):
        return file.read_text().strip()
    return ""


def probe(address: str) -> Answer:
    """What answers at an address, `host:port` or a URL of one.

    Raises:
        ClusterError: It is no address.
    """
    parts = urllib.parse.urlsplit(address if "://" in address else f"//{address}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or not port or parts.scheme in ("http", "https"):
        raise ClusterError(
            f"RAY_ADDRESS {address} is no address of a Ray cluster; give HOST:PORT, as `ray start` prints it"
        )
    answer = Answer.SILENT
    for _ in range(TRIES):
        answer = _handshake(host, port)
        if answer is not Answer.SILENT:
            break
    return answer


def _handshake(host: str, port: int) -> Answer:
    try:
        with socket.create_connection((host, port), PROBE_TIMEOUT_S) as connection:
            if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
                return Answer.ALIVE  # as far as can be seen without certificates
            connection.sendall(PREFACE)
            head = connection.recv(4)
    except socket.gaierror:
        return Answer.UNKNOWN
    except TimeoutError:
        return Answer.SILENT
    except ConnectionRefusedError:
        return Answer.REFUSED
    except ConnectionError:
        return Answer.UNRECOGNISED
    except OSError:  # no route to it
        return Answer.SILENT
    return Answer.ALIVE if len(head) == 4 and head[3] == SETTINGS_FRAME else Answer.UNRECOGNISED
