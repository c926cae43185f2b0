"""Leases on object stores: one holder at a time, whichever process died or was delayed."""

import itertools
import json
import os
import threading
import time

import fsspec
import pytest
from objectstore import credentials
from upath import UPath

import lola.storage.leases
from lola.storage.leases import ObjectLease, describe_holder, logged_lease, machine_id
from lola.storage.remote import local_cache_folder, read_bytes


@pytest.fixture(params=["memory", "s3"])
def path(request, tmp_path, monkeypatch) -> UPath:
    monkeypatch.setenv("LOLA_CACHE", str(tmp_path / "cache"))
    for name, seconds in {
        "RENEW_INTERVAL_S": 0.2,
        "EXPIRY_S": 1.0,
        "POLL_INTERVAL_S": 0.05,
        "WRITE_SETTLE_S": 0.1,
    }.items():
        monkeypatch.setattr(lola.storage.leases, name, seconds)
    if request.param == "s3":
        credentials(monkeypatch, request.getfixturevalue("object_store"))
        system = fsspec.filesystem("s3", use_listings_cache=False)
        if not system.exists("leases"):
            system.mkdir("leases")
        yield UPath(f"s3://leases/{tmp_path.name}/.lease", use_listings_cache=False)
        fsspec.get_filesystem_class("s3").clear_instance_cache()
    else:
        yield UPath(f"memory://leases/{tmp_path.name}/.lease")
        fsspec.filesystem("memory").store.clear()


def read(path):
    return json.loads(read_bytes(path))


def leave(path, count=1, of="another machine"):
    """What a holder leaves that is gone, or has not renewed yet."""
    content = {"token": "another", "machine": of, "process": 1, "count": count}
    path.fs.pipe_file(path.path, json.dumps(content).encode())


def test_one_process_of_a_machine_holds_it(path):
    with ObjectLease(path):
        assert read(path)["machine"] == machine_id()
        with pytest.raises(TimeoutError):
            ObjectLease(path).acquire(timeout=0.2)
    assert not path.exists()
    with ObjectLease(path).acquire(timeout=1):
        pass


def test_a_machine_whose_holder_died_takes_it_at_once(path, monkeypatch):
    leave(path, of=machine_id())
    monkeypatch.setattr(lola.storage.leases, "EXPIRY_S", 100.0)
    with ObjectLease(path).acquire(timeout=2):
        assert read(path)["token"] != "another"


def test_another_machine_waits_while_it_is_renewed(path):
    lease = ObjectLease(path)
    for count in range(8):  # 1.6 s, which is longer than a lease lasts
        leave(path, count)
        with pytest.raises(TimeoutError):
            lease.acquire(timeout=0.2)
    started = time.monotonic()
    with lease.acquire(timeout=10):
        assert time.monotonic() - started > 1.0


def test_it_outlasts_its_expiry_by_renewal(path):
    with ObjectLease(path):
        first = read(path)
        time.sleep(0.7)
        later = read(path)
        assert later["token"] == first["token"]
        assert later["count"] > first["count"]


def test_a_delayed_holder_is_warned_and_leaves_the_lease_of_another(path, caplog):
    lease = ObjectLease(path).acquire()
    leave(path)
    time.sleep(0.7)
    lease.release()
    assert "took over" in caplog.text
    assert read(path)["token"] == "another"


def test_of_two_machines_one_takes_what_expired(path, monkeypatch):
    """The other saw the same object, and is refused."""
    leave(path)
    own, other = ObjectLease(path), ObjectLease(path)
    found = own._read()
    assert other._write(found.version)
    assert not own._write(found.version)
    assert not own._write(None)
    assert read(path)["token"] == other.token


def test_it_leaves_no_thread_and_no_lock(path):
    lease = ObjectLease(path)
    for _ in range(2):
        with lease:
            assert lease._thread.is_alive()
        assert lease._thread is None
    assert (local_cache_folder(path) / "lease").exists()


@pytest.mark.parametrize("remote", [False, True])
def test_waiting_logs_the_holder_of_the_lease_and_since_when(tmp_path, memory_root, monkeypatch, remote):
    monkeypatch.setattr(lola.storage.leases, "POLL_INTERVAL_S", 0.01)
    monkeypatch.setattr(lola.storage.leases, "WRITE_SETTLE_S", 0.1)
    folder = memory_root / "stage" if remote else tmp_path / "stage"
    clock, said, had = itertools.count(0, 6), [], []

    def wait():
        with logged_lease(folder, said.append, lambda: next(clock)):
            had.append(True)

    with logged_lease(folder, pytest.fail):
        thread = threading.Thread(target=wait)
        thread.start()
        deadline = time.monotonic() + 10
        while not said and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not had
    thread.join(10)
    assert had
    assert said[0].startswith(f"waiting for {folder}: process {os.getpid()} ")
    assert f" since {time.strftime('%Y-%m-')}" in said[0]
    assert said[0].endswith(" has its lease (12 s so far)")


def test_a_lease_that_is_free_is_had_without_a_word(tmp_path):
    with logged_lease(tmp_path, pytest.fail):
        assert describe_holder(tmp_path).startswith(f"process {os.getpid()} of this machine")
    assert describe_holder(tmp_path / "missing") == "another process"
