"""Whether a cluster answers is known within seconds; what does not is one line, or ignored if it is gone."""

import contextlib
import socket
import threading

import pytest

from lola.core.errors import ClusterError
from lola.distributed.cluster import address
from lola.distributed.cluster.address import LOCAL, Answer, find_cluster, probe

FRAME = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # settings of HTTP/2, of which none is other than the default


@contextlib.contextmanager
def listening(answer):
    """The address of a server that answers everybody with some bytes, or (None) with nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept = []

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    kept.append(connection)
                    if answer is not None:
                        connection.recv(100)
                        connection.sendall(answer)
                        connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)  # which ends its waiting
        thread.join()
        for connection in kept:
            connection.close()


def closed():
    """An address where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """No cluster is named; where Ray would leave the address of one."""
    for name in ("RAY_ADDRESS", "RAY_USE_TLS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr(address, "PROBE_TIMEOUT_S", 0.1)
    (tmp_path / "ray").mkdir()
    return tmp_path / "ray" / "ray_current_cluster"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (FRAME, Answer.ALIVE),
        (b"HTTP/1.1 400 Bad Request\r\n", Answer.UNRECOGNISED),
        (b"", Answer.UNRECOGNISED),
    ],
)
def test_a_cluster_is_distinguished_from_another_program(answer, expected):
    with listening(answer) as where:
        assert probe(where) is expected


def test_what_does_not_answer_is_asked_again_and_then_given_up(monkeypatch):
    asked = []
    ask = address._handshake
    monkeypatch.setattr(address, "_handshake", lambda *where: asked.append(where) or ask(*where))
    with listening(None) as where:
        assert probe(where) is Answer.SILENT
    assert len(asked) == address.TRIES
    assert probe(closed()) is Answer.REFUSED
    assert probe("no-such-machine.invalid:6379") is Answer.UNKNOWN
    assert len(asked) == address.TRIES + 2


def test_certificates_are_not_needed_to_see_that_something_listens(monkeypatch):
    monkeypatch.setenv("RAY_USE_TLS", "1")
    with listening(None) as where:
        assert probe(where) is Answer.ALIVE


@pytest.mark.parametrize("given", ["nonsense", "host:port", "http://127.0.0.1:8265", "127.0.0.1", ":6379"])
def test_what_is_no_address_is_one_line(given, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", given)
    with pytest.raises(ClusterError, match=r"no address of a Ray cluster; give HOST:PORT"):
        find_cluster(print)


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_dead_cluster_that_is_named_is_one_line(monkeypatch, scheme):
    monkeypatch.setenv("RAY_ADDRESS", scheme + closed())
    with pytest.raises(ClusterError) as error:
        find_cluster(print)
    (line,) = str(error.value).splitlines()
    assert "which RAY_ADDRESS names, does not answer (nothing listens there); start that cluster" in line


def test_a_cluster_that_answers_is_taken(monkeypatch, alone):
    with listening(FRAME) as where:
        alone.write_text(where + "\n")
        assert find_cluster(pytest.fail) == where
        monkeypatch.setenv("RAY_ADDRESS", "auto")
        assert find_cluster(pytest.fail) == where
        monkeypatch.setenv("RAY_ADDRESS", LOCAL)
        assert find_cluster(pytest.fail) == LOCAL
        alone.write_text(closed())
        monkeypatch.setenv("RAY_ADDRESS", where)
        assert find_cluster(pytest.fail) == where


def test_without_any_a_cluster_is_started():
    assert find_cluster(pytest.fail) == LOCAL


def test_the_file_of_a_killed_cluster_is_ignored_with_a_message(alone):
    alone.write_text(closed())
    logged = []
    assert find_cluster(logged.append) == LOCAL
    (line,) = logged
    assert str(alone) in line
    assert "has ended; it is ignored" in line


def test_the_file_of_a_cluster_that_may_be_alive_is_not_ignored(alone):
    with listening(None) as where:
        alone.write_text(where)
        with pytest.raises(ClusterError, match=rf"{where}, which {alone} names, .*remove that file"):
            find_cluster(print)


def test_auto_needs_a_running_cluster(monkeypatch, alone):
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with pytest.raises(ClusterError, match=r"there is no .*ray_current_cluster; start a cluster"):
        find_cluster(print)
    alone.write_text(closed())
    with pytest.raises(ClusterError, match="where nothing listens there; start a cluster"):
        find_cluster(print)
