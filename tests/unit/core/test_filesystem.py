import contextlib
import errno
import fcntl
import os
import stat
import subprocess
import sys

import pytest

from lola.core import filesystem
from lola.core.errors import StorageError
from lola.core.filesystem import (
    REMEDIES,
    Lock,
    describe_os_error,
    expand,
    fsync_path,
    make_folder,
    private_folder,
    replace,
    translate_os_errors,
)
from lola.storage.event_log import EventLog, event_log_path
from lola.storage.leases import lease
from lola.storage.stages import atomic_path


@pytest.fixture
def synced(monkeypatch):
    """What was synced, in order, by the paths that it had then."""
    paths, genuine = [], os.fsync

    def recording(number):
        paths.append(os.readlink(f"/proc/self/fd/{number}"))
        genuine(number)

    monkeypatch.setattr(os, "fsync", recording)
    return paths


def test_a_file_and_its_name_are_on_the_disk_before_it_counts(tmp_path, synced):
    target = tmp_path / "new" / "deep" / "file"
    with atomic_path(target) as partial:
        partial.write_text("whole")
        assert str(partial) not in synced
    folder = str(target.parent)
    assert synced == [str(tmp_path / "new"), str(tmp_path), str(partial), folder]


def test_a_folder_is_synced_with_all_that_is_below_it(tmp_path, synced):
    with atomic_path(tmp_path / "part") as partial:
        (partial / "inner").mkdir(parents=True)
        for name in ("a", "inner/b"):
            (partial / name).write_text(name)
    below = {str(partial / name) for name in ("a", "inner", "inner/b")}
    assert set(synced[:-2]) == below
    assert synced[-2:] == [str(partial), str(tmp_path)]


def test_a_file_that_cannot_be_synced_is_not_renamed(tmp_path, monkeypatch):
    def failing(number):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", failing)
    with (
        pytest.raises(StorageError, match=r"file \(Input/output error\)"),
        atomic_path(tmp_path / "file") as partial,
    ):
        partial.write_text("lost")
    assert list(tmp_path.iterdir()) == []


def test_a_filesystem_that_syncs_no_folders_is_used_as_it_is(tmp_path, monkeypatch):
    genuine = os.fsync

    def only_files(number):
        if stat.S_ISDIR(os.fstat(number).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        genuine(number)

    monkeypatch.setattr(os, "fsync", only_files)
    with atomic_path(tmp_path / "file") as partial:
        partial.write_text("whole")
    assert (tmp_path / "file").read_text() == "whole"


def test_a_record_waits_for_the_disk_but_for_its_metrics(tmp_path, synced):
    event_log = EventLog(tmp_path)
    event_log.metrics(1, {"a": 1.0})
    assert synced == []
    event_log.status("RUNNING")
    assert synced == [str(event_log_path(tmp_path))]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENOLCK, errno.EACCES])
def test_what_is_refused_is_one_line_with_its_cause(tmp_path, number):
    with pytest.raises(StorageError) as caught, translate_os_errors(tmp_path):
        raise OSError(number, os.strerror(number))
    assert str(caught.value) == f"cannot use {tmp_path} ({os.strerror(number)}); {REMEDIES[number]}"
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize("error", [FileNotFoundError(2, "gone"), ValueError("no"), OSError("no number")])
def test_other_errors_pass(error):
    assert describe_os_error(error) == ""
    with pytest.raises(type(error)), translate_os_errors("here"):
        raise error


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_filesystem_without_locks_is_named(tmp_path, monkeypatch, number):
    def refusing(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refusing)
    with pytest.raises(StorageError, match=r"\.lease .*has no locks; mount it"), lease(tmp_path / "stage"):
        pass


def test_a_rename_to_another_device_is_a_copy(tmp_path, monkeypatch):
    genuine = os.replace
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("new")
    target.write_text("old")

    def refusing(first, second):
        if first == source:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        genuine(first, second)

    monkeypatch.setattr(os, "replace", refusing)
    replace(source, target)
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    assert target.read_text() == "new"


@contextlib.contextmanager
def umask(mask):
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize("mask", [0o002, 0o022, 0o077])
def test_files_and_folders_take_the_modes_of_the_umask(tmp_path, mask):
    with umask(mask):
        folder = tmp_path / "kind" / "stage"
        with lease(folder):
            EventLog(folder).status("RUNNING")
            with atomic_path(folder / "file") as partial:
                partial.write_text("text")
    for path in (folder, folder.parent):
        assert stat.S_IMODE(path.stat().st_mode) == 0o777 & ~mask
    for name in ("file", ".lease", "events.jsonl"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o666 & ~mask


SECOND = """
import os, sys
from pathlib import Path
from lola.core.errors import StorageError
from lola.storage.leases import lease
from lola.storage.event_log import EventLog
from lola.storage.stages import atomic_path
os.umask(0o002)
os.setgroups([])
os.setgid(4242); os.setuid(int(sys.argv[2]))
folder = Path(sys.argv[1]) / "kind" / "stage"
try:
    with lease(folder).acquire(timeout=5):
        EventLog(folder).status("RUNNING")
        with atomic_path(folder / "file") as tmp_path:
            tmp_path.write_text("of " + sys.argv[2])
except StorageError as error:
    sys.exit(str(error))
"""


def second_user(root, user):
    command = [sys.executable, "-c", SECOND, str(root), str(user)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def shared(tmp_path):
    """A folder of a group, which a path of everybody's leads to."""
    if os.getuid() != 0:
        pytest.skip("needs to act as two users")
    for each in tmp_path.parents:
        if each.stat().st_uid == os.getuid() and not each.stat().st_mode & stat.S_IXOTH:
            each.chmod(each.stat().st_mode | stat.S_IXOTH)
    tmp_path.chmod(0o711)
    root = tmp_path / "shared"
    root.mkdir()
    os.chown(root, 1001, 4242)
    return root


@pytest.mark.slow
def test_users_of_a_group_share_a_root(shared):
    shared.chmod(0o2775)
    for user in (1001, 1002):
        ended = second_user(shared, user)
        assert ended.returncode == 0, ended.stderr
    folder = shared / "kind" / "stage"
    assert (folder / "file").read_text() == "of 1002"
    assert (folder / "events.jsonl").read_text().count("RUNNING") == 2
    assert {path.stat().st_gid for path in (folder, *folder.iterdir())} == {4242}


@pytest.mark.slow
def test_what_another_user_does_not_share_is_named_with_the_remedy(shared):
    assert second_user(shared, 1001).returncode == 0
    folder = shared / "kind" / "stage"
    for path in (folder, *folder.iterdir()):
        path.chmod(path.stat().st_mode & ~0o022)
    ended = second_user(shared, 1002)
    (line,) = ended.stderr.splitlines()
    assert (
        f"cannot use {folder / '.lease'} (Permission denied); give another --storage, or let its owner"
        in line
    )


def test_a_user_that_does_not_exist_is_named():
    with pytest.raises(StorageError, match="~nobody-of-this-name/x names the folder of a user"):
        expand("~nobody-of-this-name/x")


def test_a_folder_of_another_user_is_not_taken_for_our_own(tmp_path, monkeypatch):
    monkeypatch.setattr(filesystem.tempfile, "gettempdir", lambda: str(tmp_path))
    own = private_folder("lola-test")
    assert stat.S_IMODE(own.stat().st_mode) == 0o700
    own.rmdir()
    own.symlink_to(tmp_path)
    with pytest.raises(StorageError, match="belongs to another user; set TMPDIR"):
        private_folder("lola-test")


def test_a_lock_is_one_of_the_systems(tmp_path):
    make_folder(tmp_path / "a" / "b")
    with Lock(tmp_path / "a" / "b" / "lock"):
        with pytest.raises(TimeoutError):
            Lock(tmp_path / "a" / "b" / "lock").acquire(timeout=0.1)
        fsync_path(tmp_path)
