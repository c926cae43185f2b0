"""Whether the files of a finished stage are as its manifest says: there, and of the size that they had.

Sizes find what a power cut, a full disk or an interrupted copy leaves: files that are missing, empty or cut.
They cost one look at each file, once per process and stage. What is read is checked further by its format.
"""

import json
import os
import posixpath
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from upath import UPath

from lola.core.errors import StorageError
from lola.storage.remote import AnyPath, translate_fs_errors

DECODE_ERRORS = (
    *(OSError, EOFError, LookupError, AttributeError, TypeError, ValueError),
    *(ArithmeticError, RuntimeError, MemoryError),
)
"""What decoders (h5py, pyarrow, YAML, torch) raise where a file is corrupt, including `LolaError`."""
NOT_RESULTS = ("manifest.json", "events.jsonl", "error.txt")
NOT_RESULT_FOLDERS = ("parts", "checkpoints")  # what a stage is resumed from


def result_sizes(folder: AnyPath) -> dict[str, int]:
    """The bytes of the results in a stage's folder, by their paths within it, in order of these.

    Left out are hidden files, the record, and what a stage is resumed from.
    """
    if isinstance(folder, UPath):
        with translate_fs_errors(folder):
            found = folder.fs.find(folder.path, detail=True)
        sizes = {posixpath.relpath(name, folder.path): int(info["size"]) for name, info in found.items()}
    else:
        sizes = {}
        for parent, folders, names in os.walk(folder):
            if Path(parent) == folder:
                folders[:] = [name for name in folders if name not in NOT_RESULT_FOLDERS]
            for name in names:
                path = Path(parent, name)
                sizes[path.relative_to(folder).as_posix()] = path.stat().st_size
    return {name: sizes[name] for name in sorted(sizes) if _is_result(name)}


def _is_result(name: str) -> bool:
    parts = name.split("/")
    hidden = any(part.startswith(".") for part in parts)
    return not hidden and name not in NOT_RESULTS and parts[0] not in NOT_RESULT_FOLDERS


def listed_sizes(manifest: Mapping[str, Any]) -> dict[str, int]:
    """The bytes of the files that a manifest lists; earlier ones list latent shards alone."""
    shards = {
        f"{split}/{shard['name']}": int(shard["bytes"])
        for split, described in manifest.get("splits", {}).items()
        for shard in described["shards"]
    }
    return manifest.get("files", shards)


def find_damage(folder: AnyPath, text: bytes) -> str:
    """What is wrong with the files of a stage whose manifest is `text`, in one line; empty if nothing is."""
    if not text.strip(b"\0 \n"):
        return f"{folder}/manifest.json is empty"
    try:
        manifest = json.loads(text)
    except ValueError:
        return f"{folder}/manifest.json is corrupt (not JSON)"
    if not isinstance(manifest, dict) or "fingerprint" not in manifest:
        return f"{folder}/manifest.json is corrupt (no fingerprint)"
    if isinstance(folder, UPath):  # objects appear whole, and each look would be a request
        return ""
    for name, size in listed_sizes(manifest).items():
        try:
            found = (folder / name).stat().st_size
        except FileNotFoundError:
            return f"{folder}/{name} is missing"
        if found != size:
            return f"{folder}/{name} is corrupt ({found} bytes, not {size})"
    return ""


def require_fingerprint(folder: AnyPath, text: bytes, fingerprint: str) -> None:
    """Raise `StorageError` unless a manifest has a fingerprint, of which the folder's name is the start."""
    found = json.loads(text)["fingerprint"]
    if found != fingerprint:
        raise StorageError(
            f"{folder} holds another stage: its fingerprint is {found}, not {fingerprint}, and both start "
            "alike; move the folder away, or give another --storage"
        )
