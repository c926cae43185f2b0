"""Storage roots on object stores: whole objects, and local copies for what must read a file.

A root is a `Path` or, on an object store, a `UPath`, which has the same interface. An object store has
neither renames nor appends nor locks, but an object appears whole or not at all. So a file is written
to a temporary path on this machine and uploaded when complete; the one that lists others comes last.

What reads files of the system (safetensors, memory maps, MLflow) is given a copy. A machine fetches an object
once, into the folder of `LOLA_CACHE`, else `~/.cache/lola`, under a name of its URL and version; processes
that want the same object wait for one download. The folder is never emptied automatically; remove it
whenever no program uses it.

Filesystems find their credentials themselves, in the environment; errors show locations alone.
Listings are never cached, since others write too.
"""

import contextlib
import errno
import functools
import hashlib
import logging
import os
import posixpath
import re
import shutil
import urllib.parse
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import filelock
import fsspec
from upath import UPath

from lola.core.errors import ConfigError, DataError, LolaError, StorageError
from lola.core.filesystem import Lock, describe_os_error, expand, home, private_folder, replace

AnyPath = Path | UPath
"""A path of a storage root, on a local or shared filesystem or on an object store."""

PARALLEL_TRANSFERS = 8  # objects that are fetched or uploaded at once
FILESYSTEM_PACKAGES = (
    *("fsspec", "s3fs", "botocore", "aiobotocore", "gcsfs", "google", "adlfs", "azure", "ossfs", "paramiko"),
    *("aiohttp", "requests", "urllib3", "http", "ssl", "smbprotocol", "pyarrow"),
)
"""Packages whose own errors, not all of which are `OSError`, are those of filesystems."""


def is_url(text: object) -> bool:
    """Whether a text, such as an option, is a URL of a remote filesystem."""
    return "://" in str(text) and not str(text).startswith("file://")


def redact_url(url: str) -> str:
    """A URL's scheme and host, to be shown where the rest may hold credentials."""
    parts = urllib.parse.urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def require_no_credentials(url: str, name: str) -> None:
    """Raise `StorageError`, which shows no secret, if a URL, perhaps chained, holds credentials."""
    for part in map(urllib.parse.urlsplit, url.split("::")):
        if part.query or "@" in part.netloc:
            raise StorageError(
                f"{name} {redact_url(part.geturl())} holds credentials or a query, which would be recorded; "
                "leave them out, and set them in the environment"
            )


def first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


@contextlib.contextmanager
def translate_fs_errors(location: object, remedy: str = "check its address") -> Iterator[None]:
    """Turn what a filesystem raises into one line that names the location, and a remedy if it is missing.

    Errors of programs, which no filesystem raises, pass.

    Raises:
        DataError: It does not exist.
        StorageError: It cannot be reached, its filesystem is not known, or it refuses access.
    """
    try:
        yield
    except LolaError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{location} is missing; {remedy}") from error
    except PermissionError as error:
        raise StorageError(
            f"{location} refuses access ({first_line(error)}); set its credentials in the environment"
        ) from error
    except Exception as error:
        if not _is_filesystem_error(error):
            raise
        raise StorageError(
            describe_os_error(error)
            or f"{location} cannot be reached ({first_line(error)}); check the address, the network and the "
            "credentials in the environment, and run again"
        ) from error


def _is_filesystem_error(error: BaseException) -> bool:
    """Whether a filesystem, or what it speaks with its server through, raised an error."""
    packages = {base.__module__.partition(".")[0] for base in type(error).__mro__}
    return isinstance(error, (OSError, EOFError)) or not packages.isdisjoint(FILESYSTEM_PACKAGES)


def remote_path(url: str) -> UPath:
    shown = redact_url(url)
    if not url.partition("://")[2].strip("/"):
        raise StorageError(f"{url} cannot be used: it names no bucket")
    with translate_url_errors(shown):
        fsspec.get_filesystem_class(url.partition("::")[0].partition("://")[0])  # else it is a local path
        path = UPath(url.rstrip("/"), use_listings_cache=False)
        path.fs  # noqa: B018 its package may not be installed
        return path


def open_filesystem(url: str, **options: Any) -> tuple[fsspec.AbstractFileSystem, str]:
    """The filesystem of a URL, and the path in it.

    Raises:
        StorageError: No filesystem has its scheme, or it cannot be reached.
    """
    with translate_url_errors(redact_url(url)):
        return fsspec.url_to_fs(url, **options)


@contextlib.contextmanager
def translate_url_errors(shown: str) -> Iterator[None]:
    """Turn what finding a URL's filesystem raises into one line that names the URL."""
    try:
        with translate_fs_errors(shown):
            yield
    except ImportError as error:
        raise StorageError(
            f"{shown} needs a package that is not installed ({first_line(error)}); pip install 'lola[remote]'"
        ) from error
    except ValueError as error:  # fsspec does not know the scheme
        if isinstance(error, LolaError):
            raise
        raise StorageError(f"{shown} cannot be reached ({first_line(error)}); check the address") from error


def refuse_mistyped_url(path: str, option: str) -> None:
    """Raise `StorageError` if what is taken for a path of this machine looks like a URL: `s3:/bucket`."""
    found = re.fullmatch(r"([A-Za-z][A-Za-z0-9+.-]*):/*(.*)", path)
    if path.startswith("file://"):
        return
    if found and found[1].lower() in fsspec.available_protocols() and not os.path.lexists(path):
        raise StorageError(f"--{option} {path} is no folder; did you mean {found[1].lower()}://{found[2]}?")


def to_path(location: str | Path) -> AnyPath:
    """A path of this machine, absolute, or of a URL; nothing needs to be there.

    Raises:
        StorageError: A URL holds credentials, or its filesystem is not known.
    """
    if not is_url(location):
        return expand(str(location))
    require_no_credentials(str(location), "the URL")
    return remote_path(str(location))


def open_root(url: str) -> UPath:
    """A storage root on an object store, which an object was written to.

    Raises:
        StorageError: The URL holds credentials, or cannot be written to.
    """
    require_no_credentials(url, "storage")
    if "::" in url:
        raise StorageError(f"storage {redact_url(url)} is a chain of filesystems; give a single one")
    path = remote_path(url)
    require_writable(path, "storage")
    return path


def require_writable(folder: UPath, option: str) -> None:
    """Raise `StorageError`, which names an option, unless an object can be written to its folder."""
    probe = folder / f".probe-{uuid.uuid4().hex}"
    try:
        with translate_fs_errors(folder):
            probe.write_bytes(b"lola")
            probe.unlink()
    except DataError as error:
        raise StorageError(
            f"{option} {folder} has no bucket yet; make it, or give another --{option}"
        ) from error


def is_same_file(path: AnyPath, other: AnyPath) -> bool:
    """Whether two paths are of one file, perhaps through links."""
    if isinstance(path, Path) and isinstance(other, Path) and path.exists() and other.exists():
        return path.samefile(other)
    return str(path) == str(other)


def require_new(path: AnyPath, overwrite: bool) -> None:
    """Raise `ConfigError` if an output exists, unless it may be replaced."""
    with translate_fs_errors(path):
        if not overwrite and path.exists():
            raise ConfigError(f"{path} exists; give another --output, or replace it with --overwrite")


def cache_folder() -> Path:
    """The folder of this machine's copies, for its owner alone."""
    named, own = os.environ.get("LOLA_CACHE"), home()
    folder = expand(named) if named else own / ".cache" / "lola" if own else private_folder("lola-cache")
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not named and not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        if not named:
            return private_folder("lola-cache")  # a container's user, whose home is another's
        raise StorageError(
            f"{folder} cannot be written ({error.strerror}); name a folder for copies of remote files with "
            "LOLA_CACHE"
        ) from error
    return folder


def local_cache_folder(path: UPath) -> Path:
    """The folder of this machine that belongs to a remote path, by its URL; it may not exist."""
    return cache_folder() / hashlib.sha256(str(path).encode()).hexdigest()[:24]


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder next to this machine's copies, removed when the block ends, or after its process died.

    Raises:
        StorageError: The disk is full or read-only.
    """
    parent = cache_folder() / "tmp"
    folder = parent / uuid.uuid4().hex
    lock = folder.with_suffix(".lock")
    try:
        parent.mkdir(exist_ok=True)
        _remove_abandoned(parent)
        with Lock(lock):
            try:
                folder.mkdir()
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
                lock.unlink(missing_ok=True)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        raise StorageError(
            f"cannot write in {cache_folder()} ({error.strerror}); name a larger folder for copies of remote "
            "files with LOLA_CACHE"
        ) from error


@functools.cache
def _remove_abandoned(parent: Path) -> None:
    """Remove temporary files of killed processes: those whose lock is free."""
    for lock in parent.glob("*.lock"):
        with contextlib.suppress(filelock.Timeout), Lock(lock, timeout=0):
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            lock.unlink(missing_ok=True)


def read_bytes(path: AnyPath) -> bytes:
    """The contents of a small file, as they were at one moment."""
    return path.fs.cat_file(path.path) if isinstance(path, UPath) else path.read_bytes()


def file_exists(path: AnyPath) -> bool:
    """Whether a small file is; one request, where looking for an object or a folder of its name takes two."""
    if not isinstance(path, UPath):
        return path.exists()
    with translate_fs_errors(path):
        try:
            read_bytes(path)
        except FileNotFoundError:
            return False
    return True


def local_copy(path: AnyPath) -> Path:
    """A file of this machine with the contents and the name of a path: the path itself if it is local.

    Raises:
        DataError: There is no such object.
        StorageError: It cannot be reached, or there is no space for the copy.
    """
    if not isinstance(path, UPath):
        return path
    with translate_fs_errors(path, "remove its stage's folder and run again"):
        found = path.fs.info(path.path)
        version = path.fs.ukey(path.path) if "ETag" not in found else found["ETag"]
        key = hashlib.sha256(f"{path} {version} {found['size']}".encode()).hexdigest()[:24]
        copy = cache_folder() / key / path.name
        if _is_whole(copy, found["size"]):
            return copy
        with Lock(cache_folder() / f".{key}.lock"), temporary_folder() as tmp_path:
            if not _is_whole(copy, found["size"]):
                path.fs.get_file(path.path, str(tmp_path / path.name))
                if (tmp_path / path.name).stat().st_size != found["size"]:
                    raise StorageError(f"{path} was replaced while it was read; run again")
                copy.parent.mkdir(exist_ok=True)
                replace(tmp_path / path.name, copy)
    return copy


def _is_whole(copy: Path, size: int) -> bool:
    """Whether there is a copy of a size; one that a power cut truncated is logged, and fetched again."""
    try:
        found = copy.stat().st_size
    except FileNotFoundError:
        return False
    if found != size:
        logging.getLogger(__name__).warning(
            "%s is corrupt (%d bytes, not %d) and is fetched again", copy, found, size
        )
    return found == size


def local_copies(paths: Iterable[AnyPath]) -> list[Path]:
    """Files of this machine, as for `local_copy`, several fetched at once."""
    with ThreadPoolExecutor(PARALLEL_TRANSFERS) as threads:
        return list(threads.map(local_copy, paths))


def find_relative_paths(folder: AnyPath) -> list[str]:
    """The files of a folder and of those below it, by their paths within it, in order; or none."""
    if not isinstance(folder, UPath):
        return [os.path.relpath(str(path), str(folder)) for path in find_files(folder)]
    with translate_fs_errors(folder):
        return sorted(posixpath.relpath(name, folder.path) for name in folder.fs.find(folder.path))


def find_files(folder: AnyPath) -> list[AnyPath]:
    """The files of a folder and of those below it, in order; none if there is no such folder.

    What other processes rename or remove meanwhile may be there or not.
    """
    if not isinstance(folder, UPath):
        return sorted(Path(parent, name) for parent, _, names in os.walk(folder) for name in names)
    return [folder / name for name in find_relative_paths(folder)]


@contextlib.contextmanager
def local_folder_copy(folder: AnyPath) -> Iterator[Path]:
    """A folder of this machine with the files of a folder and of those below: itself if it is local."""
    if not isinstance(folder, UPath):
        yield folder
        return
    with temporary_folder() as tmp_path:
        for name in find_relative_paths(folder):
            path, copy = folder / name, tmp_path / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            with translate_fs_errors(path):
                path.fs.get_file(path.path, str(copy))
        yield tmp_path


def upload(source: Path, path: UPath, last: str = "") -> None:
    """Upload a file, or a folder with the files below it, of which `last` comes last."""
    if not source.is_dir():
        with translate_fs_errors(path):
            path.fs.put_file(str(source), path.path)
        return
    for name in sorted(find_relative_paths(source), key=lambda name: (name == last, name)):
        upload(source / name, path / name)
