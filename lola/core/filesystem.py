"""What filesystems guarantee and what they refuse: data that survives a power cut, locks, errors in one line.

A file that was written is in memory only; after a power cut it may be empty, cut or full of zeros.
`fsync_path` returns when a file, or a folder with all below it, is on the disk, and `fsync_folder` when the
names in a folder are. A rename that is to survive takes the first before it and the second after it.
"""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock

from lola.core.errors import StorageError

SPACE_REMEDY = "free some space or give another --storage"
PERMISSION_REMEDY = (
    "give another --storage, or let its owner share it: a setgid folder, umask 002, and chmod -R g+rwX for "
    "what exists (experiments/README.md, Share a storage root)"
)
LOCK_REMEDY = (
    "its filesystem has no locks; mount it with them (Lustre: -o flock; NFS: version 4, or a running lockd), "
    "or give another --storage"
)
DISK_REMEDY = "check the disk or the network filesystem, and run again"
REMEDIES = {
    errno.ENOSPC: SPACE_REMEDY,
    errno.EDQUOT: SPACE_REMEDY,
    errno.EFBIG: "raise the limit on file sizes (ulimit -f), or give another --storage",
    errno.EROFS: "give another --storage",
    errno.EACCES: PERMISSION_REMEDY,
    errno.EPERM: PERMISSION_REMEDY,
    errno.ENOLCK: LOCK_REMEDY,
    errno.EOPNOTSUPP: LOCK_REMEDY,
    errno.ENOSYS: LOCK_REMEDY,
    errno.EXDEV: "two parts of it are on different devices; give another --storage",
    errno.ENOTDIR: "a file is where a folder should be; move it away, or give another --storage",
    errno.EISDIR: "a folder is where a file should be; move it away, or give another --storage",
    errno.ENAMETOOLONG: "give a shorter --storage",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "raise the system's limit on open files (fs.file-max)",
    errno.EIO: DISK_REMEDY,
    errno.ESTALE: DISK_REMEDY,
    errno.ETIMEDOUT: DISK_REMEDY,
}
"""What to do about what a local or shared filesystem refuses, by error number."""
NO_FOLDER_SYNC = (errno.EINVAL, errno.EBADF, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES)


def describe_os_error(error: BaseException, path: object = None, verb: str = "use") -> str:
    """One line on what a filesystem refused: path, reason, remedy; empty if it is another kind of error.

    Arguments:
        error: Whatever was raised.
        path: The file or folder; None is the one that the error names.
        verb: What cannot be done with it.
    """
    number = getattr(error, "errno", None)
    remedy = REMEDIES.get(number or 0)
    if not isinstance(error, OSError) or isinstance(error, StorageError) or remedy is None:
        return ""
    named = path if path is not None else error.filename
    thing = f"cannot {verb} {named}" if named is not None else "the filesystem refuses"
    return f"{thing} ({os.strerror(number or 0)}); {remedy}"


@contextlib.contextmanager
def translate_os_errors(path: object, verb: str = "use") -> Iterator[None]:
    """Turn what a filesystem refuses into one line.

    Raises:
        StorageError: It is full, read-only, another user's, without locks, or failing.
    """
    try:
        yield
    except OSError as error:
        line = describe_os_error(error, path, verb)
        if not line:
            raise
        raise StorageError(line) from error


def fsync_path(path: Path) -> None:
    """Return when a file, or a folder and all that is below it, is on the disk."""
    if not path.is_dir():
        _fsync(path)
        return
    for entry in path.iterdir():
        if not entry.is_symlink():
            fsync_path(entry)
    fsync_folder(path)


def fsync_folder(folder: Path) -> None:
    """Return when the names in a folder are on the disk; some network filesystems need no such call."""
    try:
        _fsync(folder)
    except OSError as error:
        if error.errno not in NO_FOLDER_SYNC:
            raise


def _fsync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def make_folder(folder: Path) -> None:
    """Make a folder and its missing parents so that they survive a power cut."""
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for created in missing:
        fsync_folder(created.parent)


def replace(source: Path, target: Path) -> None:
    """Rename a file to where it may replace another one, also on another device."""
    try:
        os.replace(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        tmp_path = target.with_name(f".{target.name}.{source.name}")
        shutil.copyfile(source, tmp_path)
        os.replace(tmp_path, target)
        source.unlink()


class Lock(filelock.FileLock):  # type: ignore[misc, valid-type]
    """A lock of the system's on a file, which ends with its holder; what is refused is a `StorageError`.

    The file takes the mode that the umask gives it, so that under 002 the users of a group share the lock.
    """

    def acquire(self, *arguments: Any, **options: Any) -> Any:
        with translate_os_errors(self.lock_file):
            return super().acquire(*arguments, **options)


def home() -> Path | None:
    """The user's folder; None where there is none, as in containers that run as an unknown user."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def expand(text: str) -> Path:
    """A path of this machine, absolute, `~` and `~user` being folders of users.

    Raises:
        StorageError: There is no such user, or this one has no folder.
    """
    try:
        return Path(text).expanduser().resolve()
    except RuntimeError as error:
        raise StorageError(
            f"{text} names the folder of a user that this machine does not know; give an absolute path"
        ) from error


def private_folder(name: str) -> Path:
    """A temporary folder of a name that belongs to this user alone, where there is no better one.

    Raises:
        StorageError: Another user made it, or it cannot be made.
    """
    folder = Path(tempfile.gettempdir()) / f"{name}-{os.getuid()}"
    with translate_os_errors(folder, "make"):
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.is_symlink() or folder.stat().st_uid != os.getuid():
            raise StorageError(f"{folder} belongs to another user; set TMPDIR to a folder of your own")
    return folder
