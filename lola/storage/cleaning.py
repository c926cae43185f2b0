"""Freeing space in a storage root: what no finished sweep needs, and what killed processes left.

A finished sweep keeps the stages and the report that its event log names, and these keep their inputs, by the
fingerprints in their manifests. So the inputs of what is kept are kept, and the dependents of what is unused
are unused as well: they are deleted first, so that an interruption leaves no stage without its inputs.
"""

import contextlib
import dataclasses
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import get_args

from upath import UPath

from lola.core.config import Config, require, runtime_field
from lola.core.errors import StorageError
from lola.core.waiting import Log
from lola.storage.event_log import event_log_path, last_status, read_events
from lola.storage.inventory import FAULTS, dataset_folders, readable_manifest, unknown_files
from lola.storage.leases import describe_holder, try_lease
from lola.storage.remote import AnyPath, translate_fs_errors
from lola.storage.stages import TEMPORARY_NAME, Kind, resolve_storage
from lola.storage.sweep_log import sweep_folders

TEMPORARY = re.compile(rf"{TEMPORARY_NAME.pattern}|\.tune-[0-9a-f]{{8}}|\.(probe|tmp)-[0-9a-f]{{32}}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CleanConfig(Config):
    """Which files to list and to delete.

    Arguments:
        unused: List stages that no finished sweep needs; default: only temporary and unknown files.
        interrupted: Also list stages as unused if only sweeps that neither finished nor run now need them.
        delete: Delete what is listed as unused or temporary, after listing it.
        paths: Unknown files or folders to delete as well, relative to the storage root.
        storage: The storage root, a folder or a URL; else LOLA_STORAGE, else ~/lola-storage.
    """

    unused: bool = runtime_field(False)
    interrupted: bool = runtime_field(False)
    delete: bool = runtime_field(False)
    paths: tuple[str, ...] = runtime_field(())
    storage: str | None = runtime_field(None)


def clean(config: CleanConfig, log: Log) -> None:
    """List what a storage root does not need, with sizes, and delete it if that is asked for.

    Raises:
        ConfigError: A path that is named is no unknown file or folder of such.
        StorageError: Another process holds the lease of what should be deleted; the rest is deleted.
    """
    root = resolve_storage(config.storage, create=False)
    found = Unneeded(root, config.interrupted)
    stages = found.stages if config.unused else []
    named = found.named(config.paths)
    lists = {
        "unused stages": [(name, found.reason(name)) for name in stages],
        "temporary files": [
            (name, "left by a process that was killed, or being written") for name in found.temporary
        ],
        "unknown files": [
            (name, "" if name in named else "kept unless --paths names it") for name in found.unknown
        ],
    }
    if not config.unused:
        del lists["unused stages"]
        log("unused stages: not searched for; --unused lists them")
    for title, entries in lists.items():
        log(f"{title}: {len(entries)}, {_gigabytes(found.size(name for name, _ in entries))}")
        for name, reason in entries:
            log(f"  {_gigabytes(found.size([name])):>12}  {name}" + (f"  ({reason})" if reason else ""))
    chosen = [*found.temporary, *stages, *named]
    verb = "deleting" if config.delete else "--delete frees"
    log(f"{verb} {_gigabytes(found.size(chosen))} in {root}")
    if config.delete:
        refused = [*found.delete_temporary(), *found.delete_stages(stages)]
        for name in named:
            _remove(root, [name])
        if refused:
            raise StorageError(f"kept {'; '.join(refused)}; run again when it has ended")


class Unneeded:
    """What a storage root holds that no finished sweep needs; names are paths relative to the root.

    If `interrupted`, sweeps that have neither finished nor run now need nothing.
    """

    def __init__(self, root: AnyPath, interrupted: bool = False) -> None:
        self.root = root
        self.sizes = _sizes(root)
        datasets = dataset_folders(self.sizes)
        prefixes = {name: _temporary_prefix(name, datasets) for name in self.sizes}
        self.temporary = list(dict.fromkeys(filter(None, prefixes.values())))
        folders = dict.fromkeys(
            "/".join(parts[:2])
            for name in self.sizes
            if (parts := name.split("/"))[0] in get_args(Kind) and len(parts) > 2 and parts[1][0] != "."
        )
        self.manifests = {name: readable_manifest(root / name) for name in folders}
        fingerprints = {m["fingerprint"]: name for name, m in self.manifests.items() if "fingerprint" in m}
        self.inputs = {
            name: [fingerprints[key] for key in manifest.get("inputs", {}).values() if key in fingerprints]
            for name, manifest in self.manifests.items()
        }
        self.sweeps: dict[str, list[str]] = {}  # those that name a stage
        kept: list[str] = []
        for folder in sweep_folders(root):
            named = [
                event["path"] for _, event in read_events(folder) if event["kind"] in ("stage", "report")
            ]
            for name in named:
                self.sweeps.setdefault(name, []).append(folder.name)
            if last_status(folder) == "FINISHED" or not interrupted or _is_held(folder):
                kept += named
        needed: set[str] = set()
        while kept:
            if (name := kept.pop()) not in needed:
                needed.add(name)
                kept += self.inputs.get(name, [])
        needed |= {name for name in self.inputs if self._searched(name) in needed}
        self.stages = [name for name in _dependents_first(self.inputs) if name not in needed]
        elsewhere = (*(f"{name}/" for name in folders if name in self.stages or not self.manifests[name]),)
        unknown = (os.path.relpath(str(path), str(root)) for path in unknown_files(root))
        self.unknown = [name for name in unknown if not name.startswith(elsewhere) and not prefixes.get(name)]

    def _searched(self, stage: str) -> str | None:
        """The statistics beside which a search for faults was made, which keep it; None of other stages."""
        inputs = self.inputs[stage]
        return inputs[0] if inputs and self.manifests[stage].get("what") == FAULTS else None

    def reason(self, stage: str) -> str:
        """Why a stage is unused."""
        sweeps = self.sweeps.get(stage, [])
        return (
            f"only of sweeps that have not finished: {', '.join(sweeps)}"
            if sweeps
            else "of no sweep, made by another command"
        )

    def size(self, names: Iterable[str]) -> int:
        """The bytes of files, and of the files of folders."""
        names = tuple(names)
        folders = tuple(f"{name}/" for name in names)
        return sum(size for name, size in self.sizes.items() if name in names or name.startswith(folders))

    def named(self, paths: Iterable[str]) -> list[str]:
        """The unknown files that paths name.

        Raises:
            ConfigError: A path names none.
        """
        chosen = []
        for path in paths:
            own = [name for name in self.unknown if name == path or name.startswith(f"{path.rstrip('/')}/")]
            require(bool(own), f"--paths {path} is no unknown file or folder of {self.root}; see the list")
            chosen += own
        return chosen

    def delete_stages(self, stages: Iterable[str]) -> Iterator[str]:
        """Delete stages, dependents first; yields those kept, in use or an input of such, and why."""
        kept: set[str] = set()
        for name in stages:
            if name in kept:
                yield f"{name}, an input of what is kept"
            elif busy := _delete_under_lease(self.root, name, _within(self.sizes, name)):
                yield busy
            else:
                continue
            kept.update(self.inputs[name])

    def delete_temporary(self) -> Iterator[str]:
        """Delete temporary files; yields those kept, since a process may be writing them, and why."""
        for name in self.temporary:
            parts = name.split("/")
            owners = [self.root / parts[0]] if len(parts) > 1 else []  # a folder of datasets has one lease
            if parts[0] in get_args(Kind):
                owners = [self.root / "/".join(parts[:2])]
            if parts[-1].startswith(".tune-"):
                sweep = parts[-1].removeprefix(".tune-")
                owners = [folder for folder in sweep_folders(self.root) if folder.name.endswith(sweep)]
            busy = [folder for folder in owners if _is_held(folder)]
            if busy:
                yield f"{name} ({describe_holder(busy[0])} has the lease of {busy[0]})"
            else:
                _remove(self.root, _within(self.sizes, name), name)


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.3f} GB"


def _sizes(root: AnyPath) -> dict[str, int]:
    """The bytes of all files of a root, in order of their names."""
    if isinstance(root, UPath):
        with translate_fs_errors(root):
            found = root.fs.find(root.path, detail=True)
        return {os.path.relpath(name, root.path): int(info["size"]) for name, info in sorted(found.items())}
    sizes = {}
    for parent, _, names in os.walk(root):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                path = Path(parent, name)
                sizes[path.relative_to(root).as_posix()] = path.lstat().st_size
    return dict(sorted(sizes.items()))


def _temporary_prefix(name: str, datasets: set[str]) -> str:
    """The temporary file or folder that a name is, or is in; empty if there is none."""
    parts = name.split("/")
    if len(parts) > 1 and parts[0] not in {*get_args(Kind), *datasets}:  # these have leases
        return ""
    for i, part in enumerate(parts):
        if TEMPORARY.fullmatch(part):
            return "/".join(parts[: i + 1])
    return ""


def _dependents_first(inputs: dict[str, list[str]]) -> list[str]:
    """Stages, each before its inputs."""
    order: dict[str, None] = {}

    def visit(name: str) -> None:
        if name not in order:
            for dependency in inputs[name]:
                visit(dependency)
            order[name] = None

    for name in inputs:
        visit(name)
    return list(order)[::-1]


def _within(names: Iterable[str], folder: str) -> list[str]:
    """The names of a file, or of the files of a folder."""
    return [name for name in names if name == folder or name.startswith(f"{folder}/")]


def _is_held(folder: AnyPath) -> bool:
    """Whether another process holds the lease of a folder."""
    with try_lease(folder) as acquired:
        return not acquired


def _delete_under_lease(root: AnyPath, stage: str, names: list[str]) -> str:
    """Delete a stage, its manifest first; returns which process is making it, if one is."""
    folder = root / stage
    with try_lease(folder) as acquired:
        if not acquired:
            return f"{stage} ({describe_holder(folder)} has its lease)"
        _remove(root, sorted(names, key=lambda name: not name.endswith("/manifest.json")), stage)
        event_log_path(folder).unlink(missing_ok=True)  # this machine's copy of an object
    return ""


def _remove(root: AnyPath, names: Iterable[str], folder: str = "") -> None:
    """Remove files in order, but for leases, and what is left of a local folder."""
    for name in names:
        if not name.endswith("/.lease"):
            with contextlib.suppress(FileNotFoundError):
                (root / name).unlink()
    if folder and isinstance(root, Path):
        shutil.rmtree(root / folder, ignore_errors=True)
