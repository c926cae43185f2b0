"""What a storage root holds that nothing accounts for: leftovers, and files that other programs put there.

A finished stage accounts for its manifest, its record, its lease, and what its manifest and kind say. A
folder without a manifest accounts for nothing: it is a stage that was not finished.
"""

import contextlib
import functools
import json
import re
from collections.abc import Iterable
from typing import Any, get_args

from lola.storage.integrity import listed_sizes
from lola.storage.remote import AnyPath, find_relative_paths
from lola.storage.stages import Kind

COMMON = ("manifest.json", "events.jsonl", ".lease")
UNLISTED = {
    "evaluations": r"parts/\d+-\d+/((metrics|spectra)\.parquet|(example|moments)\.npy|seconds)",
    "reports": r"[^./][^/]*",
}
"""What finished stages of a kind hold in addition to the files that their manifests list."""
DATASET = re.compile(r"[^/]+/(stats\.yaml|\.parts/[^/]+\.hdf5|data/[^/]+/[^./][^/]*\.(hdf5|h5))|\.lease")
SIMULATION = re.compile(r"(?:(.+)/)?[^/]+/data/[^/]+/[^./][^/]*\.(?:hdf5|h5)")
WELL = re.compile(r"well(-\w+)?")
TRACKING = "mlflow"
SWEEPS = re.compile(r"sweeps/[^/]+/(events\.jsonl|\.lease)|throughput/[^./][^/]*\.json")


def dataset_folders(names: Iterable[str]) -> set[str]:
    """The folders that hold Well datasets, whatever they are called, and those of the presets' names.

    Arguments:
        names: The files of a storage root, relative to it.

    Returns:
        Folders relative to the storage root; the empty name is the root itself.
    """
    names = list(names)
    presets = {parts[0] for name in names if len(parts := name.split("/")) > 1 and WELL.fullmatch(parts[0])}
    return presets | {match[1] or "" for name in names if (match := SIMULATION.fullmatch(name))}


FAULTS = "faults"
"""What stages are called that searched splits for faults: no other stage reads them."""


def unknown_files(root: AnyPath) -> list[AnyPath]:
    """The files of a storage root that nothing accounts for, in order."""
    names = list(find_relative_paths(root))
    datasets = [f"{folder}/" if folder else "" for folder in dataset_folders(names)]
    known_files = functools.cache(_known_files)
    unknown = []
    for name in names:
        parts = name.split("/")
        if (
            parts[0] == TRACKING
            or SWEEPS.fullmatch(name)
            or any(name.startswith(folder) and DATASET.fullmatch(name[len(folder) :]) for folder in datasets)
        ):
            known = True
        elif parts[0] in get_args(Kind) and len(parts) > 2:
            inner = "/".join(parts[2:])
            files = known_files(root / parts[0] / parts[1])
            known = inner in files or bool(files and re.fullmatch(UNLISTED.get(parts[0], ""), inner))
        else:
            known = False
        if not known:
            unknown.append(root / name)
    return unknown


def _known_files(folder: AnyPath) -> set[str]:
    """The files of a stage's folder that its manifest accounts for; empty if it is not finished."""
    manifest = readable_manifest(folder)
    return {*COMMON, *listed_sizes(manifest)} if manifest else set()


def readable_manifest(folder: AnyPath) -> dict[str, Any]:
    """A stage's manifest; empty if it has none that can be read."""
    with contextlib.suppress(OSError, ValueError):
        manifest = json.loads((folder / "manifest.json").read_text())
        return manifest if isinstance(manifest, dict) else {}
    return {}
