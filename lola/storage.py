"""Where results live: the storage root, atomic files, content-addressed stages and their leases.

A stage is one folder `<root>/<kind>/<system>-<what>-<fingerprint8>/`. It is finished when its
`manifest.json` exists: the manifest is written last, aside, and renamed. Everything else in the folder
is either whole (renamed into place) or resumable. On an object store, files are uploaded instead of renamed
(`lola/remote.py`), and leases are objects that expire (`lola/lease.py`).
"""

import contextlib
import dataclasses
import functools
import importlib.metadata
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

from lola.config import Config, fingerprint
from lola.errors import DataError, StorageError
from lola.lease import ObjectLease, lease
from lola.remote import AnyPath, is_there, is_url, open_root, reaching, read_whole, scratch, secret_of, upload
from lola.strict_json import dumps, loads

SCHEMA_VERSION = 1
FINISHED: set[str] = set()
"""Manifests on object stores that this process has seen: they stay, and looking costs requests."""
ASIDE = re.compile(r"\..+\.[0-9a-f]{8}")
Kind = Literal["statistics", "autoencoders", "latents", "emulators", "evaluations", "reports"]
Location = Path | str
"""A local path, or a URL of any filesystem that fsspec knows."""


def resolve_storage(option: str | None) -> AnyPath:
    """The storage root: the option, else `LOLA_STORAGE`, else `~/lola-storage`, absolute and writable.

    Raises:
        StorageError: The root cannot be written, or its URL holds credentials.
    """
    root = option or os.environ.get("LOLA_STORAGE") or "~/lola-storage"
    if is_url(root):
        return open_root(root)
    path = Path(root.removeprefix("file://")).expanduser().resolve()
    probe = path / f".probe-{uuid.uuid4().hex}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"lola")
        probe.unlink()
    except OSError as error:
        reason = error.strerror or error
        raise StorageError(
            f"storage {path} cannot be written ({reason}); give another with --storage"
        ) from None
    return path


def well_folder(storage: AnyPath, option: str) -> Location:
    """The folder of Well datasets: under the storage root, an absolute path that exists, or a URL.

    Raises:
        StorageError: An absolute path is no folder, or a URL holds credentials.
    """
    if is_url(option):
        shown = secret_of(option)
        if shown is not None:
            raise StorageError(
                f"the URL {shown} of --well holds credentials or a query, which "
                "would be recorded; leave them out, and set them in the environment"
            )
        return option.rstrip("/")
    option = option.removeprefix("file://")
    if isinstance(storage, UPath) and not Path(option).is_absolute():
        return str(storage / option)
    folder = Path(option) if isinstance(storage, UPath) else storage / option
    if Path(option).is_absolute() and not folder.is_dir():
        raise StorageError(
            f"{folder} is no folder; name the folder that holds The Well's datasets with --well"
        )
    return folder


@contextlib.contextmanager
def atomic_path(path: AnyPath, last: str = "") -> Iterator[Path]:
    """A path aside that becomes `path` when the block ends without an error.

    It is in the folder of a local path, and renamed; that of an object is elsewhere on this machine, and
    uploaded. A folder is not there at once then: its files appear one by one, `last` at the end.

    Raises:
        StorageError: The storage is full, read-only or out of reach; nothing is left behind.
    """
    if isinstance(path, UPath):
        with scratch() as folder:
            yield folder / path.name
            upload(folder / path.name, path, last)
        return
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        os.replace(aside, path)
    except OSError as error:
        if error.errno is None:
            raise
        raise StorageError(
            f"cannot write {path} ({error.strerror}); free some space or give another --storage"
        ) from error
    finally:
        if aside.is_dir():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.unlink(missing_ok=True)


@contextlib.contextmanager
def writing_into(folder: AnyPath) -> Iterator[Path]:
    """A folder of this machine whose files are in `folder` when the block ends; itself if it is local."""
    if not isinstance(folder, UPath):
        yield folder
        return
    with scratch() as aside:
        yield aside
        upload(aside, folder)


def remove_asides(folder: AnyPath) -> None:
    """Remove what processes that were killed had aside in a folder and below; nobody may be writing there.

    What is uploaded is aside elsewhere.
    """
    if isinstance(folder, UPath):
        return
    for parent, folders, names in os.walk(folder):
        for name in filter(ASIDE.fullmatch, folders):
            shutil.rmtree(Path(parent, name), ignore_errors=True)
        for name in filter(ASIDE.fullmatch, names):
            Path(parent, name).unlink(missing_ok=True)


def write_json(path: AnyPath, value: Any) -> None:
    """Write JSON atomically, for people to read as well.

    Raises:
        DivergedError: A number is not finite; nothing is written.
        StorageError: The storage is full, read-only or out of reach.
    """
    text = dumps(value, indent=2) + "\n"
    with atomic_path(path) as aside:
        aside.write_text(text)


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
    """A content-addressed unit of work.

    Arguments:
        root: The storage root.
        kind: The folder under the root.
        system: The physical system.
        what: A short name for people, such as `diffusion-f16c64`.
        config: What the stage computes.
        inputs: Fingerprints of what it reads, by role.
    """

    root: AnyPath
    kind: Kind
    system: str
    what: str
    config: Config
    inputs: Mapping[str, str]

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of the configuration, the inputs' fingerprints and the schema version."""
        return fingerprint(SCHEMA_VERSION, self.kind, self.system, self.config, dict(self.inputs))

    @property
    def name(self) -> str:
        """The folder's name, unique within its kind."""
        return f"{self.system}-{self.what}-{self.fingerprint[:8]}"

    @property
    def folder(self) -> AnyPath:
        """Where the stage's files are."""
        return self.root / self.kind / self.name

    @property
    def finished(self) -> bool:
        """Whether the manifest is there: it is written last."""
        manifest = self.folder / "manifest.json"
        if str(manifest) in FINISHED:
            return True
        there = is_there(manifest)
        if there and isinstance(manifest, UPath):
            FINISHED.add(str(manifest))
        return there

    def manifest(self) -> dict[str, Any]:
        """The finished stage's manifest."""
        return read_manifest(self.folder)

    def lease(self) -> filelock.BaseFileLock | ObjectLease:
        """A context for one process at a time; the lease of a process that died ends."""
        return lease(self.folder)

    def commit(self, **counts: Any) -> None:
        """Write the manifest, which finishes the stage; under its lease, since what was aside is removed.

        Arguments:
            counts: What was made: sizes, counts, statistics, timings, as JSON values.
        """
        remove_asides(self.folder)
        write_json(
            self.folder / "manifest.json",
            {
                "schema": SCHEMA_VERSION,
                "fingerprint": self.fingerprint,
                "kind": self.kind,
                "system": self.system,
                "what": self.what,
                "config": {"type": type(self.config).__name__, **self.config.what()},
                "inputs": dict(self.inputs),
                "software": software(),
                **counts,
            },
        )


def manifests(root: AnyPath, kind: str) -> list[AnyPath]:
    """The manifests of the finished stages of a kind, in order of their names."""
    with reaching(root) if isinstance(root, UPath) else contextlib.nullcontext():
        return sorted((root / kind).glob("*/manifest.json"), key=str)


def read_manifest(folder: AnyPath) -> dict[str, Any]:
    """The manifest of a finished stage's folder.

    Raises:
        StorageError: There is none, it is torn, cannot be reached, or another schema version wrote it.
    """
    try:
        with reaching(folder) if isinstance(folder, UPath) else contextlib.nullcontext():
            text = read_whole(folder / "manifest.json")
        manifest = loads(text)
    except (FileNotFoundError, DataError):
        raise StorageError(f"{folder} holds no manifest.json: it is no finished stage") from None
    except ValueError:
        raise StorageError(f"{folder}/manifest.json is not JSON; remove the folder and run again") from None
    if manifest.get("schema") != SCHEMA_VERSION:
        raise StorageError(
            f"{folder} has schema {manifest.get('schema')}, not {SCHEMA_VERSION}; "
            "use the version of lola that wrote it"
        )
    return manifest
