"""Ray's start is tried three times, where it can work; what is left is one line."""

import importlib
import os
import stat
import time
from types import SimpleNamespace

import pytest
import ray
from ray.exceptions import AuthenticationError, RpcError

import lola
from lola.core.errors import ClusterError
from lola.distributed.cluster import connection as cluster
from lola.distributed.cluster import start
from lola.distributed.cluster.address import LOCAL
from lola.distributed.cluster.start import (
    choose_ray_temporary_folder,
    replace_home,
    start_ray,
    user_folder,
)

TIMED_OUT = "The current node timed out during startup. This could happen because some of the raylet failed"


class Node:
    """What stands for the processes of a node that does not start."""

    ended = 0

    def __init__(self, error):
        raise error

    def kill_all_processes(self, **_):
        type(self).ended += 1


@pytest.fixture
def starts(monkeypatch, tmp_path):
    """What each start of Ray raises, and the addresses that were given."""
    errors, addresses = [], []

    def init(address, **_):
        addresses.append(address)
        error = errors.pop(0)
        if error is not None:
            Node(error)

    monkeypatch.setattr(start, "ray", SimpleNamespace(init=init, shutdown=lambda: None))
    monkeypatch.setattr(start, "Node", Node)
    monkeypatch.setattr(Node, "ended", 0)
    monkeypatch.setattr(start, "PAUSE_S", 0.0)
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    return errors, addresses


def test_a_start_that_fails_twice_is_tried_a_third_time(starts):
    errors, addresses = starts
    errors += [Exception(TIMED_OUT), ValueError("Port 6379 is in use"), None]
    logged = []
    start_ray(LOCAL, logged.append)
    assert addresses == [LOCAL] * 3  # and none but that: others are found by Ray, with their token
    assert Node.ended == 2
    assert [line.split(";")[-1].strip() for line in logged] == [
        "starting Ray on this machine",
        "trying again, 2 of 3",
        "trying again, 3 of 3",
    ]


@pytest.mark.parametrize(
    ("error", "address", "words"),
    [
        (Exception(TIMED_OUT), LOCAL, ["3 tries", "timed out during startup", "load", "CPUs", "less busy"]),
        (ValueError("Port 8076 is in use\nmore"), LOCAL, ["Port 8076 is in use); end what uses that port"]),
        (SystemExit(15), "10.0.0.1:6379", ["cluster at 10.0.0.1:6379", "ray status --address 10.0.0.1:6379"]),
        (ConnectionError("Failed to connect"), "10.0.0.1:6379", ["Failed to connect", "RAY_ADDRESS"]),
    ],
)
def test_a_start_that_fails_again_and_again_is_one_line(starts, error, address, words):
    errors, addresses = starts
    errors += [type(error)(*error.args) for _ in range(4)]
    with pytest.raises(ClusterError) as end:
        start_ray(address, lambda _: None)
    (line,) = str(end.value).splitlines()
    assert all(word in line for word in words), line
    assert len(addresses) == start.TRIES
    assert Node.ended == start.TRIES


def test_an_address_is_left_to_ray_which_takes_a_token_along(starts):
    errors, addresses = starts
    errors += [None]
    start_ray("10.0.0.1:6379", lambda _: None)
    assert addresses == [None]


@pytest.mark.parametrize("error", [AuthenticationError("no token"), RpcError("refused", rpc_code=16)])
def test_a_refused_token_is_an_error_at_once(starts, error):
    errors, addresses = starts
    failed = ConnectionError("Failed to connect to Ray cluster")
    failed.__cause__ = error
    errors += [failed]
    with pytest.raises(ClusterError, match=r"10.0.0.1:6379 refuses this program's token; set RAY_AUTH_MODE"):
        start_ray("10.0.0.1:6379", lambda _: None)
    assert len(addresses) == 1


def test_an_interrupt_is_no_failure(starts):
    errors, addresses = starts
    errors += [KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        start_ray(LOCAL, print)
    assert len(addresses) == 1


@pytest.fixture
def short(tmp_path, monkeypatch):
    """Folders that are short enough, as far as these tests go."""
    folder = tmp_path / "short"
    folder.mkdir()
    monkeypatch.setattr(start, "SHORT", (str(tmp_path / "missing"), str(folder)))
    return folder


@pytest.mark.parametrize("name", ["RAY_TMPDIR", "TMPDIR"])
def test_a_folder_too_long_for_sockets_is_replaced_by_a_private_one(short, monkeypatch, tmp_path, name):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv(name, str(tmp_path / ("long" * 10)))
    logged = []
    choose_ray_temporary_folder(logged.append)
    chosen = short / f"ray-{os.geteuid()}"
    assert os.environ["RAY_TMPDIR"] == str(chosen)
    assert stat.S_IMODE(chosen.stat().st_mode) == 0o700
    (line,) = logged
    assert line.startswith(f"{name} {tmp_path}")
    assert line.endswith(f"bytes long, and Ray's sockets allow 39: Ray keeps its files in {chosen}")


def test_a_short_folder_is_kept(monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    choose_ray_temporary_folder(pytest.fail)
    assert os.environ["RAY_TMPDIR"] == "/tmp"


def test_a_folder_that_cannot_be_written_is_replaced(short, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", "/dev/null/folder")
    logged = []
    choose_ray_temporary_folder(logged.append)
    assert "not writable (Not a directory)" in logged[0]


def test_no_folder_at_all_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(start, "SHORT", (str(tmp_path / "missing"),))
    monkeypatch.setenv("RAY_TMPDIR", "/" + "x" * 100)
    with pytest.raises(ClusterError, match="name a folder of at most 39 bytes with RAY_TMPDIR"):
        choose_ray_temporary_folder(print)


def test_the_name_of_a_private_folder_that_others_took_is_not_used(tmp_path):
    taken = tmp_path / f"ray-{os.geteuid()}"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    taken.symlink_to(elsewhere)
    assert user_folder(tmp_path) not in (taken, elsewhere)
    taken.unlink()
    taken.mkdir(mode=0o777)
    taken.chmod(0o777)
    other = user_folder(tmp_path)
    assert other != taken
    assert stat.S_IMODE(other.stat().st_mode) == 0o700
    taken.chmod(0o700)
    assert user_folder(tmp_path) == taken


@pytest.fixture
def no_caches(monkeypatch):
    """No variable that the replacement of a home would set; those that it sets are forgotten."""
    for name in (*start.CACHES, "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.mark.parametrize("home", ["/dev/null/home", "/", None])
@pytest.mark.usefixtures("no_caches")
def test_a_home_that_is_none_is_replaced(monkeypatch, tmp_path, home):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    if home is None:

        def unknown():
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.setattr(start.Path, "home", unknown)
        cluster.restrict_token_permissions()
    else:
        monkeypatch.setenv("HOME", home)
    logged = []
    replace_home(logged.append)
    token = tmp_path / f"ray-{os.geteuid()}" / "auth_token"
    assert os.environ["RAY_AUTH_TOKEN_PATH"] == str(token)
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert len(written := token.read_text()) >= 32
    assert all(str(token.parent) in os.environ[name] for name in start.CACHES)
    (line,) = logged
    assert str(token.parent) in line
    replace_home(logged.append)
    assert token.read_text() == written


def test_a_user_without_a_home_can_load_ray_and_mlflow(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    importlib.reload(lola)
    assert os.environ["HOME"] == "/home/me"
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as for a user without an entry
    importlib.reload(lola)
    assert os.environ["HOME"] == "/"


@pytest.mark.usefixtures("no_caches")
def test_a_home_that_can_be_written_is_left_alone(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    replace_home(pytest.fail)
    assert not set(start.CACHES) & os.environ.keys()


def test_what_was_connected_here_is_stopped_once(monkeypatch):
    """And nothing else: a notebook's own Ray goes on."""
    stopped = []
    monkeypatch.setattr(
        cluster, "ray", SimpleNamespace(is_initialized=lambda: False, shutdown=lambda: stopped.append(1))
    )
    for name in ("replace_home", "start_ray", "find_cluster", "restrict_token_permissions"):
        monkeypatch.setattr(cluster, name, lambda *_: None)
    for name in (*cluster.SETTINGS, *cluster.EMBEDDED_SETTINGS):
        monkeypatch.setenv(name, "kept")
    monkeypatch.setattr(cluster, "_connected", False)
    cluster.stop_ray(pytest.fail)
    assert not stopped
    with cluster.stopping_ray(pytest.fail):
        cluster.connect()
        assert not stopped
    cluster.stop_ray(pytest.fail)
    assert stopped == [1]


def test_a_slow_stop_is_announced(monkeypatch):
    logged = []
    monkeypatch.setattr(cluster, "ray", SimpleNamespace(shutdown=lambda: time.sleep(0.3)))
    monkeypatch.setattr(cluster, "STOPPING_S", 0.0)
    monkeypatch.setattr(cluster, "_connected", True)
    cluster.stop_ray(logged.append)
    assert logged[0].startswith("stopping Ray")


def test_who_is_connected_already_starts_nothing(monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(cluster, "start_ray", lambda *_: pytest.fail("started"))
    for name in (*cluster.SETTINGS, *cluster.EMBEDDED_SETTINGS):
        monkeypatch.setenv(name, "kept")
    cluster.connect()
