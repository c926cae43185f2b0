"""Files of datasets, wherever they are: local paths, and URLs of any filesystem that fsspec knows.

HDF5 reads its metadata in many small pieces and arrays in few large ones. On a remote file, small pieces come
from a cache of the blocks that were fetched last, and a large piece is one request of exactly its bytes, so
that a slice of an array costs no more than itself.

Filesystems find their credentials themselves, in the environment; errors show locations alone.
"""

import atexit
import contextlib
import errno
import functools
import importlib
import io
import os
import posixpath
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import h5py
from fsspec.caching import BlockCache, register_cache

from lola.core.errors import DataError, LolaError, MissingDataError, StorageError
from lola.core.filesystem import describe_os_error
from lola.data.hdf5_check import check_hdf5, is_ray_worker
from lola.storage.remote import AnyPath, first_line, open_filesystem, translate_fs_errors
from lola.storage.stages import Location

with contextlib.suppress(ImportError):  # HDF5 finds the filters of this package, if it is installed
    importlib.import_module("hdf5plugin")

SUFFIXES = (".hdf5", ".h5")
BLOCK_BYTES = 2**18  # bytes of a remote block
CACHED_BLOCKS = 16  # blocks kept of each open file
MAX_OPEN_FILES = 64  # files that a process keeps open
SHOWN = 12  # entries of a folder that an error lists
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
FILTERS = {
    **{307: "bzip2", 32001: "blosc", 32004: "lz4", 32008: "bitshuffle", 32013: "zfp", 32015: "zstd"},
    **{32017: "sz", 32024: "sz3", 32026: "blosc2"},
}
"""Filters that are no part of HDF5, by their registered number."""


def file_name(location: Location) -> str:
    return posixpath.basename(str(location))


def join(folder: Location, *parts: str) -> Location:
    """A location within a folder."""
    return folder.joinpath(*parts) if isinstance(folder, Path) else "/".join([folder.rstrip("/"), *parts])


def list_files(folder: Location) -> list[Location]:
    """The HDF5 files of a folder, by name; none if there is no such folder.

    Left out are folders, hidden and temporary files, and what is called README or LICENSE.

    Raises:
        StorageError: The folder cannot be reached.
    """
    if isinstance(folder, Path):
        return sorted(path for path in folder.glob("*") if is_data_file(path.name) and not path.is_dir())
    with translate_fs_errors(folder):
        system, path = open_filesystem(folder)
        system.invalidate_cache(path)  # another process may have written there
        try:
            names = sorted(posixpath.basename(entry) for entry in system.ls(path, detail=False))
        except (FileNotFoundError, NotADirectoryError):
            return []
    return [join(folder, name) for name in names if is_data_file(name)]


def is_data_file(name: str) -> bool:
    """Whether a file is one of data, by its name."""
    stem, suffix = posixpath.splitext(name)
    temporary = stem.lower().endswith((".tmp", ".temp", ".part", ".partial", "~")) or name.startswith(
        ("tmp.", "temp.", "~")
    )
    about = stem.lower().startswith(("readme", "license"))
    return suffix in SUFFIXES and not (name.startswith((".", "_")) or temporary or about)


def exists(location: Location) -> bool:
    """Whether there is something at a location, or under it; not in a folder that may not be read."""
    if isinstance(location, Path):
        return os.path.exists(location)  # `Path.exists` raises PermissionError
    with translate_fs_errors(location):
        system, path = open_filesystem(location)
        return bool(system.exists(path))


def file_size(location: Location) -> int:
    with translate_fs_errors(location):
        if isinstance(location, Path):
            return location.stat().st_size
        system, path = open_filesystem(location)
        return int(system.size(path))


def open_cached(location: Location) -> h5py.File:
    """A file that this process keeps open, with the last few others.

    A local file that was replaced is opened again. Remote ones are taken to stay as they are.

    Raises:
        DataError: The file is missing, truncated or not HDF5.
        StorageError: The file cannot be reached.
    """
    version = (0, 0)
    if isinstance(location, Path):
        try:
            status = os.stat(location)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise DataError(f"{location} does not exist; check its path") from error
        except OSError as error:
            raise StorageError(describe_os_error(error, location, "read") or str(error)) from error
        version = (status.st_ino, status.st_mtime_ns)
    return _keep_open(location, os.getpid(), version)


@functools.lru_cache(maxsize=MAX_OPEN_FILES)
def _keep_open(location: Location, process: int, version: tuple[int, int]) -> h5py.File:
    return open_hdf5(location)


atexit.register(_keep_open.cache_clear)  # HDF5 must not reach for remote files after Python has ended


def open_hdf5(location: Location | AnyPath) -> h5py.File:
    """Open a file for reading; the caller closes it.

    Raises:
        DataError: The file is missing, truncated, not HDF5 or, as far as it is of this machine, crashes HDF5.
        StorageError: The file cannot be reached.
    """
    try:
        if isinstance(location, Path):
            if not is_ray_worker():
                check_hdf5(location)
            return open_local_hdf5(location, "r")
        return h5py.File(RemoteFile(str(location)), "r")
    except LolaError:
        raise
    except OSError as error:
        if isinstance(location, Path) and describe_os_error(error):
            raise StorageError(describe_os_error(error, location, "read")) from error
        raise DataError(_opening_error(location, error)) from error


def _opening_error(location: Location | AnyPath, error: OSError) -> str:
    """Why a file cannot be opened; only one whose bytes are wrong is to be replaced."""
    reason, name = first_line(error), posixpath.basename(str(location))
    if isinstance(location, Path) and not location.exists():
        return f"{location} does not exist; check its path"
    if "already open for write" in reason or "consistency flags" in reason:
        return (
            f"{location} is being written, or its writer ended without closing it; wait until it is closed, "
            f"or clear the mark with `h5clear -s {name}`"
        )
    if "signature not found" in reason:
        start = _first_bytes(location)
        found = f"begins with {start!r}" if start else "is empty"
        return (
            f"{location} cannot be opened as HDF5 (it {found}); leave it out with --exclude {name}, or copy "
            "it again if it should hold data"
        )
    if "truncated" in reason:
        return f"{location} cannot be opened as HDF5 ({reason}): its copy is incomplete; fetch it again"
    return f"{location} cannot be opened as HDF5 ({reason}); leave it out with --exclude {name}"


def _first_bytes(location: Location | AnyPath) -> bytes:
    with open(location, "rb") if isinstance(location, Path) else RemoteFile(str(location)) as file:
        return bytes(file.read(8) or b"")


def open_local_hdf5(path: Path, mode: Literal["r", "r+", "w"]) -> h5py.File:
    """Open a file of this machine; without HDF5's lock where that is refused, which some filesystems do.

    There the caller answers for it that no process writes what another one has open. What is written here has
    a temporary name until it is complete, but other programs may write to a file that has its final name:
    while one does, HDF5 refuses the lock.

    Raises:
        StorageError: Another process writes to the file or, if it is to be written, has it open; or it can be
            opened with its lock alone, which is refused.
    """
    try:
        return h5py.File(path, mode)
    except OSError as error:
        if error.errno == errno.EAGAIN or f"unable to lock file, errno = {errno.EAGAIN}," in str(error):
            raise StorageError(
                f"{path} is being written by another process; run again when that has closed it, or set "
                "HDF5_USE_FILE_LOCKING=FALSE on all nodes if it is only open there"
            ) from error
        if error.errno not in NO_LOCKS and "unable to lock file" not in str(error):
            raise
    try:
        return h5py.File(path, mode, locking=False)
    except OSError as error:
        if "lock" not in str(error):
            raise
        raise StorageError(
            f"{path} cannot be locked ({first_line(error)}); set HDF5_USE_FILE_LOCKING=FALSE on all nodes"
        ) from error


def missing_filter(file: h5py.File) -> str:
    """Which array of a file is compressed by what HDF5 lacks, and what to do about it; empty if none is."""
    found = ""

    def look(name: str, array: h5py.Dataset | h5py.Group) -> str | None:
        if not isinstance(array, h5py.Dataset):
            return None
        properties = array.id.get_create_plist()
        for number in range(properties.get_nfilters()):
            code, _, _, described = properties.get_filter(number)
            if not h5py.h5z.filter_avail(code):
                title = described.decode(errors="replace").split(";")[0] or FILTERS.get(code, "unnamed")
                return (
                    f"{name} is compressed with HDF5 filter {code} ({title}), which is not installed; on all "
                    "nodes, pip install hdf5plugin"
                )
        return None

    with contextlib.suppress(OSError, RuntimeError, KeyError):  # damage is reported by what reads
        found = file.visititems(look) or ""
    return found


class RemoteFile(io.RawIOBase):
    """A remote file to read from, whose failures are all `LolaError`s.

    Raises:
        DataError: It does not exist.
        StorageError: It cannot be reached.
    """

    def __init__(self, location: str) -> None:
        super().__init__()
        self.location = location
        with translate_fs_errors(location):
            system, path = open_filesystem(location)
            self.inner = system.open(
                path,
                "rb",
                block_size=BLOCK_BYTES,
                cache_type=LargeReadCache.name,
                cache_options={"maxblocks": CACHED_BLOCKS},
            )

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        """Fill a buffer from the position on; the number of bytes that there were."""
        with translate_fs_errors(self.location):
            return int(self.inner.readinto(buffer))

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self.inner.seek(offset, whence))

    def tell(self) -> int:
        return int(self.inner.tell())

    def close(self) -> None:
        if not self.closed:
            self.inner.close()
        super().close()


class LargeReadCache(BlockCache):
    """The blocks that were fetched last; what is as large as a block is fetched separately and not kept."""

    name = "lola-pieces"

    def _fetch(self, start: int | None, end: int | None) -> bytes:
        first, last = start or 0, self.size if end is None else min(end, self.size)
        if last - first >= self.blocksize:
            return bytes(self.fetcher(first, last))
        return super()._fetch(first, last)


register_cache(LargeReadCache, clobber=True)


def missing_files_error(
    root: Location, datasets: Sequence[str], split: str, filtered: bool, simulated: bool
) -> MissingDataError:
    """The error that a folder has none of some datasets; it names sibling folders that have one.

    Arguments:
        filtered: Whether files were left out by their names.
        simulated: Whether there is a simulator of them.
    """
    if isinstance(root, str) and not exists(root):
        return MissingDataError(
            f"{root} does not exist; name the folder that holds The Well's datasets with --well"
        )
    folders = " or ".join(f"{dataset}/data/{split}" for dataset in datasets)
    chosen = " that match the filters" if filtered else ""
    others = [] if isinstance(root, str) else _neighbours(root, datasets, split)
    advice = f", or name {' or '.join(others)} with --well" if others else ""
    remedy = "a dataset needs the splits train, valid and test: fetch its files, or move some there"
    if simulated:
        remedy = "fetch them, or let a sweep simulate them (--simulate)"
    return MissingDataError(
        f"{root} has no HDF5 files{chosen} in {folders}{_content(root)}; {remedy}{advice}"
    )


def _content(root: Location) -> str:
    """What a folder holds instead."""
    if isinstance(root, str):
        return ""
    if not root.is_dir():
        return " (it does not exist)"
    return f" (it holds {list_names(sorted(path.name for path in root.iterdir()))})"


def list_names(names: Sequence[str]) -> str:
    """The first of some names, for errors."""
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "") or "nothing"


def _neighbours(root: Path, datasets: Sequence[str], split: str) -> list[str]:
    """The folders a level below or above one that hold a split of some datasets, else a few next to it."""
    here = Path.cwd() / root.name  # relative names are under the storage root
    for places in ([*root.glob("*"), root.parent, *root.parents[1:3], here], [*root.parent.glob("*")]):
        found = {
            str(place)
            for place in places
            if place != root and any(exists(place / dataset / "data" / split) for dataset in datasets)
        }
        if found:
            return sorted(found)[:SHOWN]
    return []
