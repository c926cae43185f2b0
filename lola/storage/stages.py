"""Where results live: the storage root, atomic files, content-addressed stages and their leases.

A stage is one folder `<root>/<kind>/<system>-<what>-<fingerprint8>/`. It is finished when its
`manifest.json` exists: the manifest is written last, to a temporary path, and renamed. Everything else in the
folder is either whole (renamed into place) or resumable. On an object store, files are uploaded instead of
renamed (`lola/storage/remote.py`), and leases are objects that expire (`lola/storage/leases.py`).

What `atomic_path` has written survives a power cut: file, folder and name are on the disk when it returns,
and the manifest comes after everything that it lists. The record of events may lose its last metrics, no
more. Disks lie, and roots are copied: a stage whose manifest is not whole, or whose files are not of the size
that it lists, is not finished, and is made again after a warning.
"""

import contextlib
import dataclasses
import difflib
import functools
import importlib.metadata
import logging
import os
import platform
import re
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import filelock
from upath import UPath

from lola.core.config import Config, fingerprint
from lola.core.errors import CorruptError, DataError, StorageError
from lola.core.filesystem import (
    describe_os_error,
    expand,
    fsync_folder,
    fsync_path,
    home,
    make_folder,
    translate_os_errors,
)
from lola.core.strict_json import dumps, loads
from lola.core.waiting import Log
from lola.storage.integrity import find_damage, require_fingerprint, result_sizes
from lola.storage.leases import ObjectLease, lease, logged_lease
from lola.storage.remote import (
    AnyPath,
    is_url,
    open_root,
    read_bytes,
    refuse_mistyped_url,
    require_no_credentials,
    temporary_folder,
    translate_fs_errors,
    upload,
)

SCHEMA_VERSION = 1
WEIGHTS, EMA_WEIGHTS = "model.safetensors", "model_ema.safetensors"
STREAMS = "splitmix64"
"""The streams of samples that random results come of: another name where the same keys give other numbers."""
_verified: dict[tuple[str, str], tuple[int, ...]] = {}
"""Stages whose files this process has checked, by folder and fingerprint: checking costs time."""
_warned: set[str] = set()
"""Warnings that this process has logged."""
TEMPORARY_NAME = re.compile(r"\..+\.[0-9a-f]{8}")
Kind = Literal["statistics", "autoencoders", "latents", "emulators", "evaluations", "reports"]
Location = Path | str
"""A local path, or a URL of any filesystem that fsspec knows."""


def resolve_storage(option: str | None, *, create: bool = True) -> AnyPath:
    """The storage root: the option, else `LOLA_STORAGE`, else `~/lola-storage`, absolute and writable.

    Arguments:
        create: Whether a folder that does not exist is made.

    Raises:
        StorageError: The root cannot be written, its URL holds credentials, or it does not exist.
    """
    root = option or os.environ.get("LOLA_STORAGE")
    if not root:
        folder = home()
        if folder is None:
            raise StorageError(
                "this user has no home folder to keep results in; name one with --storage or LOLA_STORAGE"
            )
        root = str(folder / "lola-storage")
    if is_url(root):
        return open_root(root)
    root = root.removeprefix("file://")
    if not create and not expand(root).exists():
        raise StorageError(f"storage: {expand(root)} does not exist; give another --storage")
    return open_folder(root, "storage")


def open_folder(text: str, option: str) -> Path:
    """The folder of this machine that an option names, absolute and writable; it is made if it is missing.

    Raises:
        StorageError: It cannot be written.
    """
    refuse_mistyped_url(text, option)
    path = expand(text)
    probe = path / f".probe-{uuid.uuid4().hex}"
    try:
        make_folder(path)
        probe.write_bytes(b"lola")
        probe.unlink()
    except OSError as error:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
        line = (
            describe_os_error(error, path)
            or f"cannot use {path} ({error.strerror or error}); give another --{option}"
        )
        raise StorageError(f"{option}: {line}") from error
    return path


def to_location(text: str | Path) -> Location:
    """A URL as it is, or an absolute path of this machine, `~` and `~user` being folders of users."""
    return str(text) if "://" in str(text) else expand(str(text))


def well_folder(storage: AnyPath, option: str) -> Location:
    """The folder of Well datasets: under the storage root, an absolute path that exists, or a URL.

    Raises:
        StorageError: An absolute path is no folder, or a URL holds credentials.
    """
    if is_url(option):
        require_no_credentials(option, "--well")
        return option.rstrip("/")
    refuse_mistyped_url(option, "well")
    option = option.removeprefix("file://")
    option = str(expand(option)) if option.startswith("~") else option
    if isinstance(storage, UPath) and not Path(option).is_absolute():
        return str(storage / option)
    folder = Path(option) if isinstance(storage, UPath) else storage / option
    if Path(option).is_absolute() and not folder.is_dir():
        siblings = [path.name for path in folder.parent.glob("*/")]
        near = difflib.get_close_matches(folder.name, siblings, 1)
        advice = f" (did you mean {folder.parent / near[0]}?)" if near else ""
        raise StorageError(
            f"{folder} is no folder{advice}; name the folder that holds The Well's datasets with --well"
        )
    return folder


@contextlib.contextmanager
def atomic_path(path: AnyPath, last: str = "", *, durable: bool = True) -> Iterator[Path]:
    """A temporary path that becomes `path` when the block ends without an error, and survives a power cut.

    It is in the folder of a local path, and renamed; that of an object is elsewhere on this machine, and
    uploaded. Then a folder does not appear at once, but file by file, `last` at the end.

    Arguments:
        path: The file or folder that is written.
        last: The file of a folder that is uploaded last.
        durable: Whether it is on the disk when the block ends; if not, the caller syncs its folder.

    Raises:
        StorageError: The storage is full, read-only or out of reach; nothing is left behind.
    """
    if isinstance(path, UPath):
        with temporary_folder() as folder:
            yield folder / path.name
            upload(folder / path.name, path, last)
        return
    tmp_path = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with translate_os_errors(path, "write"):
            make_folder(path.parent)
            yield tmp_path
            if durable:
                fsync_path(tmp_path)
            os.replace(tmp_path, path)
            if durable:
                fsync_folder(path.parent)
    finally:
        if tmp_path.is_dir():
            shutil.rmtree(tmp_path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):  # report the first error
                tmp_path.unlink(missing_ok=True)


@contextlib.contextmanager
def output_folder(folder: AnyPath) -> Iterator[Path]:
    """A folder of this machine whose files are in `folder` when the block ends; itself if it is local."""
    if not isinstance(folder, UPath):
        yield folder
        return
    with temporary_folder() as tmp_path:
        yield tmp_path
        upload(tmp_path, folder)


def remove_temporary_paths(folder: AnyPath) -> None:
    """Remove temporary files of killed processes in a folder and below, where no process may be writing.

    Those of uploads are elsewhere.
    """
    if isinstance(folder, UPath):
        return
    for parent, folders, names in os.walk(folder):
        for name in filter(TEMPORARY_NAME.fullmatch, folders):
            shutil.rmtree(Path(parent, name), ignore_errors=True)
        for name in filter(TEMPORARY_NAME.fullmatch, names):
            Path(parent, name).unlink(missing_ok=True)


def write_json(path: AnyPath, value: Any) -> None:
    """Write JSON atomically, for people to read as well.

    Raises:
        DivergedError: A number is not finite; nothing is written.
        StorageError: The storage is full, read-only or out of reach.
    """
    text = dumps(value, indent=2) + "\n"
    with atomic_path(path) as tmp_path:
        tmp_path.write_text(text)


@functools.cache
def software() -> dict[str, str]:
    """The versions that a result depends on."""
    names = ("lola", "torch", "ray", "azula", "heavyball", "numpy", "pyarrow", "h5py")
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in names}


def git_commit() -> str:
    """The commit of the source, or `unknown` outside a checkout."""
    here = Path(__file__).parent
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return answer.stdout.strip()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """A content-addressed unit of work."""

    root: AnyPath  # of the storage
    kind: Kind  # the folder under the root
    system: str
    what: str  # a short name for people, such as `diffusion-f16c64`
    config: Config  # what the stage computes
    inputs: Mapping[str, str]  # fingerprints of what it reads, by role

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of configuration, inputs, schema version and, if numbers are drawn, the streams."""
        streams = (STREAMS,) if self.config.random else ()
        return fingerprint(SCHEMA_VERSION, self.kind, self.system, self.config, dict(self.inputs), *streams)

    @property
    def name(self) -> str:
        """The folder's name, unique within its kind."""
        return f"{self.system}-{self.what}-{self.fingerprint[:8]}"

    @property
    def folder(self) -> AnyPath:
        return self.root / self.kind / self.name

    @property
    def finished(self) -> bool:
        """Whether the manifest, which is written last, and all files that it lists exist and are whole.

        Damage is logged as a warning, once.

        Raises:
            StorageError: The folder holds another stage, or cannot be reached.
        """
        key, state = (str(self.folder), self.fingerprint), self._state()
        if state is None:
            return False
        if _verified.get(key) == state:
            return True
        try:
            text = _read_manifest_bytes(self.folder)
        except (FileNotFoundError, DataError):
            return False
        fault = find_damage(self.folder, text)
        if fault:
            _warn(f"{fault}; {self.name} is made again")
            return False
        require_fingerprint(self.folder, text, self.fingerprint)
        _verified[key] = state
        return True

    def _state(self) -> tuple[int, ...] | None:
        """Time, size and inode of the manifest; None if there is none, empty on an object store."""
        if isinstance(self.folder, UPath):
            return ()
        try:
            status = os.stat(self.folder / "manifest.json")
        except (FileNotFoundError, NotADirectoryError):
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino

    def manifest(self) -> dict[str, Any]:
        return read_manifest(self.folder)

    def lease(self) -> filelock.BaseFileLock | ObjectLease:
        return lease(self.folder)

    def logged_lease(self, log: Log) -> contextlib.AbstractContextManager[None]:
        """The lease, as a context that says after some seconds who has it."""
        return logged_lease(self.folder, log)

    def commit(self, **counts: Any) -> None:
        """Write the manifest, which finishes the stage; under its lease, since temporary files are removed.

        Arguments:
            counts: What was made: sizes, counts, statistics, timings, as JSON values.
        """
        remove_temporary_paths(self.folder)
        files = result_sizes(self.folder)
        write_json(
            self.folder / "manifest.json",
            {
                "schema": SCHEMA_VERSION,
                "fingerprint": self.fingerprint,
                "kind": self.kind,
                "system": self.system,
                "what": self.what,
                "config": {"type": type(self.config).__name__, **self.config.to_json()},
                "inputs": dict(self.inputs),
                "software": software(),
                "files": files,
                **counts,
            },
        )


def _warn(line: str) -> None:
    if line not in _warned:
        _warned.add(line)
        logging.getLogger(__name__).warning("%s", line)


def manifests(root: AnyPath, kind: str) -> list[AnyPath]:
    """The manifests of the finished stages of a kind, in order of their names."""
    if not isinstance(root, UPath):
        return sorted((root / kind).glob("*/manifest.json"), key=str)
    folder = root / kind  # not by a pattern: the root may hold brackets
    with translate_fs_errors(root):
        names = folder.fs.find(folder.path, maxdepth=2)
    return [
        root / kind / name.rsplit("/", 2)[1] / "manifest.json"
        for name in sorted(names)
        if name.endswith("/manifest.json")
    ]


def read_manifests(root: AnyPath, kind: str) -> Iterator[tuple[AnyPath, dict[str, Any]]]:
    """Folder and manifest of the finished stages of a kind; a corrupt one is logged and left out."""
    for path in manifests(root, kind):
        try:
            yield path.parent, read_manifest(path.parent)
        except CorruptError as error:
            _warn(str(error))


def read_manifest(folder: AnyPath) -> dict[str, Any]:
    """The manifest of a finished stage's folder.

    Raises:
        StorageError: There is none, it is corrupt, cannot be reached, or another schema version wrote it.
    """
    try:
        text = _read_manifest_bytes(folder)
    except (FileNotFoundError, NotADirectoryError, DataError) as error:
        raise StorageError(f"{folder} has no manifest.json: it is no finished stage") from error
    try:
        manifest = loads(text)
        schema = manifest.get("schema")
    except (ValueError, AttributeError) as error:
        raise CorruptError(
            f"{folder}/manifest.json is corrupt (not JSON); remove it and run again to make the stage again"
        ) from error
    if schema != SCHEMA_VERSION:
        raise StorageError(
            f"{folder} has schema {schema}, not {SCHEMA_VERSION}; use the version of lola that wrote it"
        )
    return manifest


def _read_manifest_bytes(folder: AnyPath) -> bytes:
    with translate_fs_errors(folder) if isinstance(folder, UPath) else translate_os_errors(folder):
        return read_bytes(folder / "manifest.json")
