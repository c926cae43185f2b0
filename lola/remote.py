"""Storage roots on object stores: whole objects, and local copies for what must read a file.

A root is a `Path` or, on an object store, a `UPath`, which has the same interface. An object store has
neither renames nor appends nor locks, but an object appears whole or not at all. So a file is written aside
on this machine and uploaded when it is whole, and of several the one that tells of the others comes last.

What reads files of the system (safetensors, memory maps, MLflow) is given a copy. A machine fetches an object
once, into the folder of `LOLA_CACHE`, else `~/.cache/lola`, under a name of its URL and version; processes
that want the same object wait for one download. Nobody empties the folder: it may be removed whenever no
program uses it.

Filesystems find their credentials themselves, in the environment; no error tells more than a location.
Listings are never cached, since others write too.
"""

import contextlib
import errno
import functools
import hashlib
import os
import posixpath
import shutil
import urllib.parse
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import filelock
from upath import UPath

from lola.errors import DataError, LolaError, StorageError

AnyPath = Path | UPath
"""A path of a storage root, on a local or shared filesystem or on an object store."""

AT_ONCE = 8  # objects that are fetched or uploaded at once


def is_url(text: object) -> bool:
    """Whether a text, such as an option, is a URL of a remote filesystem."""
    return "://" in str(text) and not str(text).startswith("file://")


def without_secrets(url: str) -> str:
    """A URL's scheme and host, to be shown where the rest may hold credentials."""
    parts = urllib.parse.urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def secret_of(url: str) -> str | None:
    """The part of a URL, perhaps chained, that holds credentials or a query, without them; else None."""
    for part in map(urllib.parse.urlsplit, url.split("::")):
        if part.query or "@" in part.netloc:
            return without_secrets(part.geturl())
    return None


def reason(error: BaseException) -> str:
    """The first line of an error."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


@contextlib.contextmanager
def reaching(location: object, remedy: str = "simulate or fetch it again") -> Iterator[None]:
    """Turn whatever a filesystem raises into one line that names the location, and a remedy if it is missing.

    Raises:
        DataError: It does not exist.
        StorageError: It cannot be reached, its filesystem is not known, or it refuses access.
    """
    try:
        yield
    except LolaError:
        raise
    except FileNotFoundError:
        raise DataError(f"{location} is missing; {remedy}") from None
    except ImportError as error:
        raise StorageError(
            f"{location} needs a package that is not installed ({reason(error)}); pip install 'lola[remote]'"
        ) from None
    except PermissionError as error:
        raise StorageError(
            f"{location} refuses access ({reason(error)}); set its credentials in the environment"
        ) from None
    except Exception as error:  # every filesystem has errors of its own
        raise StorageError(
            f"{location} cannot be reached ({reason(error)}); see to the address, the network and the "
            "credentials in the environment, and run again"
        ) from None


def remote_path(url: str) -> UPath:
    """The path of a URL."""
    with reaching(without_secrets(url)):
        path = UPath(url.rstrip("/"), use_listings_cache=False)
        path.fs  # noqa: B018 its package may not be installed
        return path


def any_path(location: str | Path) -> AnyPath:
    """A path of this machine, absolute, or of a URL; nothing needs to be there.

    Raises:
        StorageError: A URL holds credentials, or its filesystem is not known.
    """
    if not is_url(location):
        return Path(location).expanduser().resolve()
    shown = secret_of(str(location))
    if shown is not None:
        raise StorageError(
            f"{shown} holds credentials or a query; leave them out, and set them in the environment"
        )
    return remote_path(str(location))


def open_root(url: str) -> UPath:
    """A storage root on an object store, which an object was written to.

    Raises:
        StorageError: The URL holds credentials, or cannot be written to.
    """
    shown = secret_of(url)
    if shown is not None:
        raise StorageError(
            f"storage {shown} holds credentials or a query, which would be recorded; leave them out, and set "
            "them in the environment"
        )
    if "::" in url:
        raise StorageError(f"storage {without_secrets(url)} is a chain of filesystems; give a single one")
    path = remote_path(url)
    require_writable(path, "storage")
    return path


def require_writable(folder: UPath, option: str) -> None:
    """Raise `StorageError`, which names an option, unless an object can be written to its folder."""
    probe = folder / f".probe-{uuid.uuid4().hex}"
    try:
        with reaching(folder):
            probe.write_bytes(b"lola")
            probe.unlink()
    except DataError:
        raise StorageError(
            f"{option} {folder} has no bucket yet; make it, or give another --{option}"
        ) from None


def cache_folder() -> Path:
    """The folder of this machine's copies, for its owner alone."""
    named = os.environ.get("LOLA_CACHE")
    folder = Path(named).expanduser().resolve() if named else Path.home() / ".cache" / "lola"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StorageError(
            f"{folder} cannot be written ({error.strerror}); name a folder for copies of remote files with "
            "LOLA_CACHE"
        ) from None
    return folder


def mirrored(path: UPath) -> Path:
    """The folder of this machine that belongs to a remote path, by its URL; it may not exist."""
    return cache_folder() / hashlib.sha256(str(path).encode()).hexdigest()[:24]


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder on this machine, where the copies are; it is removed in the end, or after its process died.

    Raises:
        StorageError: The disk is full or read-only.
    """
    asides, name = cache_folder() / "asides", uuid.uuid4().hex
    try:
        asides.mkdir(exist_ok=True)
        _remove_abandoned(asides)
        with filelock.FileLock(asides / f"{name}.lock"):
            try:
                (asides / name).mkdir()
                yield asides / name
            finally:
                shutil.rmtree(asides / name, ignore_errors=True)
                (asides / f"{name}.lock").unlink(missing_ok=True)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        raise StorageError(
            f"cannot write in {cache_folder()} ({error.strerror}); name a larger folder for copies of remote "
            "files with LOLA_CACHE"
        ) from error


@functools.cache
def _remove_abandoned(asides: Path) -> None:
    """Remove what processes that were killed had aside: nobody holds its lock."""
    for lock in asides.glob("*.lock"):
        with contextlib.suppress(filelock.Timeout), filelock.FileLock(lock, timeout=0):
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            lock.unlink(missing_ok=True)


def read_whole(path: AnyPath) -> bytes:
    """The contents of a small file, as they were at one moment."""
    return path.fs.cat_file(path.path) if isinstance(path, UPath) else path.read_bytes()


def is_there(path: AnyPath) -> bool:
    """Whether a small file is; one request, where looking for an object or a folder of its name takes two."""
    if not isinstance(path, UPath):
        return path.exists()
    with reaching(path):
        try:
            read_whole(path)
        except FileNotFoundError:
            return False
    return True


def local_copy(path: AnyPath) -> Path:
    """A file of this machine with the contents and the name of a path: the path itself if it is local.

    Raises:
        DataError: There is no such object.
        StorageError: It cannot be reached, or there is no room for the copy.
    """
    if not isinstance(path, UPath):
        return path
    with reaching(path, "remove its stage's folder and run again"):
        found = path.fs.info(path.path)
        version = path.fs.ukey(path.path) if "ETag" not in found else found["ETag"]
        key = hashlib.sha256(f"{path} {version} {found['size']}".encode()).hexdigest()[:24]
        copy = cache_folder() / key / path.name
        if copy.exists():
            return copy
        with filelock.FileLock(cache_folder() / f".{key}.lock"), scratch() as aside:
            if not copy.exists():
                path.fs.get_file(path.path, str(aside / path.name))
                if (aside / path.name).stat().st_size != found["size"]:
                    raise StorageError(f"{path} was replaced while it was read; run again")
                copy.parent.mkdir(exist_ok=True)
                os.replace(aside / path.name, copy)
    return copy


def local_copies(paths: Iterable[AnyPath]) -> list[Path]:
    """Files of this machine, as for `local_copy`, several fetched at once."""
    with ThreadPoolExecutor(AT_ONCE) as threads:
        return list(threads.map(local_copy, paths))


def names_below(folder: AnyPath) -> list[str]:
    """The files of a folder and of those below it, by their paths within it, in order; or none."""
    if not isinstance(folder, UPath):
        return [os.path.relpath(str(path), str(folder)) for path in files_below(folder)]
    with reaching(folder):
        return sorted(posixpath.relpath(name, folder.path) for name in folder.fs.find(folder.path))


def files_below(folder: AnyPath) -> list[AnyPath]:
    """The files of a folder and of those below it, in order; none if there is no such folder.

    What other processes rename or remove meanwhile may be there or not.
    """
    if not isinstance(folder, UPath):
        return sorted(Path(parent, name) for parent, _, names in os.walk(folder) for name in names)
    return [folder / name for name in names_below(folder)]


@contextlib.contextmanager
def local_folder(folder: AnyPath) -> Iterator[Path]:
    """A folder of this machine with the files of a folder and of those below: itself if it is local."""
    if not isinstance(folder, UPath):
        yield folder
        return
    with scratch() as aside:
        for name in names_below(folder):
            path, copy = folder / name, aside / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            with reaching(path):
                path.fs.get_file(path.path, str(copy))
        yield aside


def upload(source: Path, path: UPath, last: str = "") -> None:
    """Upload a file, or a folder with the files below it, of which `last` comes last."""
    if not source.is_dir():
        with reaching(path):
            path.fs.put_file(str(source), path.path)
        return
    for name in sorted(names_below(source), key=lambda name: (name == last, name)):
        upload(source / name, path / name)
