"""Files whose metadata crash the HDF5 library, or keep it busy without end, become errors that name them."""

import signal
import subprocess
import sys

import h5py
import numpy as np
import pytest

from lola.core.errors import DataError
from lola.data import hdf5, hdf5_check
from lola.data.hdf5_check import check_hdf5

FAKE = """
import os, signal, sys, time
for line in sys.stdin:
    for name in ("SIGSEGV", "SIGKILL"):
        if name in line:
            os.kill(os.getpid(), getattr(signal, name))
    time.sleep(100 * ("endless" in line))
    print(flush=True)
"""


@pytest.fixture(autouse=True)
def no_child(monkeypatch):
    """No child is running, and no file was checked."""
    hdf5_check.end_child()
    monkeypatch.setattr(hdf5_check, "_checked", set())
    yield
    hdf5_check.end_child()


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Lets a child check files that does what their names say."""
    program = tmp_path / "child.py"
    program.write_text(FAKE)
    monkeypatch.setattr(hdf5_check, "CHILD", program)

    def create(name):
        path = tmp_path / name
        path.write_bytes(b"")
        return path

    return create


def write(path):
    with h5py.File(path, "w") as file:
        file.attrs["field_names"] = np.array(["density"], dtype=h5py.string_dtype())
        file["density"] = np.arange(8.0)
    return path


def test_a_file_that_crashes_hdf5_is_an_error_that_names_it(tmp_path):
    """One byte is changed, of the type of the strings of an attribute."""
    bad = write(tmp_path / "bad.hdf5")
    content = bytearray(bad.read_bytes())
    place = content.index(b"field_names\0") + 17
    assert content[place - 1 : place + 1] == b"\x19\x01"
    content[place] = 163
    bad.write_bytes(content)
    plain = "import h5py, sys; h5py.File(sys.argv[1]).attrs['field_names']"
    code = subprocess.run([sys.executable, "-c", plain, bad], capture_output=True).returncode
    if -code not in hdf5_check.CRASHES:
        pytest.skip("this version of the HDF5 library survives the file")
    with pytest.raises(DataError, match=r"/bad\.hdf5 crashes the HDF5 library \(SIG.*--exclude bad\.hdf5"):
        hdf5.open_hdf5(bad)
    with hdf5.open_hdf5(write(tmp_path / "good.hdf5")) as file:
        assert file["density"].shape == (8,)


def test_one_child_checks_files_until_one_ends_it(fake, monkeypatch):
    check_hdf5(fake("a.hdf5"))
    first = hdf5_check._child()
    check_hdf5(fake("b.hdf5"))
    check_hdf5(fake("a.hdf5").with_name("missing.hdf5"))
    assert hdf5_check._child() is first
    for _ in range(2):
        with pytest.raises(
            DataError, match=r"SIGSEGV\.hdf5 crashes the HDF5 library \(SIGSEGV\): its metadata"
        ):
            check_hdf5(fake("SIGSEGV.hdf5"))
    assert first.returncode == -signal.SIGSEGV
    check_hdf5(fake("SIGKILL.hdf5"))  # as by a lack of memory: not the file's fault
    monkeypatch.setattr(hdf5_check, "LONGEST_S", 0.5)
    with pytest.raises(
        DataError, match=r"endless\.nc keeps the HDF5 library busy for 0\.5 s: .*; write it again"
    ):
        check_hdf5(fake("endless.nc"), "write it again")


def test_a_file_is_checked_once_unless_it_changes(fake):
    path = fake("a.hdf5")
    check_hdf5(path)
    hdf5_check.end_child()
    check_hdf5(path)
    assert not hdf5_check._children
    path.write_bytes(b"changed")
    check_hdf5(path)
    assert hdf5_check._children


def test_a_worker_of_ray_reads_what_was_checked(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/site-packages/ray/_private/workers/default_worker.py", "--node-ip"])
    hdf5.open_hdf5(write(tmp_path / "a.hdf5")).close()
    assert not hdf5_check._children


def test_files_can_be_read_where_no_child_can_be_started(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "missing"))
    hdf5.open_hdf5(write(tmp_path / "a.hdf5")).close()
