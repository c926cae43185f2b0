"""What a storage root holds that nothing accounts for: leftovers, and what somebody else put there.

A finished stage accounts for its manifest, its record, its lease, and what its manifest and kind say. A
folder without a manifest accounts for nothing: it is a stage that was not finished.
"""

import json
import re
from collections.abc import Iterable
from typing import Any, get_args

from lola.storage.remote import AnyPath, find_relative_paths
from lola.storage.stages import Kind

COMMON = ("manifest.json", "events.jsonl", ".lease")
OF_KIND = {
    "statistics": (r"stats\.yaml",),
    "autoencoders": (),
    "latents": (),
    "emulators": (),
    "evaluations": (
        r"(metrics|spectra)\.parquet",
        r"(example|moments)\.npy",
        r"parts/\d+-\d+/((metrics|spectra)\.parquet|(example|moments)\.npy|seconds)",
    ),
    "reports": (r"[^./][^/]*",),
}
DATASET = re.compile(r"[^/]+/(stats\.yaml|data/[^/]+/[^./][^/]*\.(hdf5|h5))|\.lease")
SIMULATION = re.compile(r"(?:(.+)/)?[^/]+/data/[^/]+/[^./][^/]*\.(?:hdf5|h5)")
WELL = re.compile(r"well(-\w+)?")
TRACKING = "mlflow"
SWEEPS = re.compile(r"sweeps/[^/]+/(events\.jsonl|\.lease)")


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


def unknown_files(root: AnyPath) -> list[AnyPath]:
    """The files of a storage root that nothing accounts for, in order."""
    names = list(find_relative_paths(root))
    datasets = [f"{folder}/" if folder else "" for folder in dataset_folders(names)]
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
            known = _known_to_stage(root / parts[0] / parts[1], parts[0], "/".join(parts[2:]))
        else:
            known = False
        if not known:
            unknown.append(root / name)
    return unknown


def _known_to_stage(folder: AnyPath, kind: str, name: str) -> bool:
    """Whether a finished stage accounts for a file of its folder."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
    except (OSError, ValueError):
        return False
    if name in COMMON or any(re.fullmatch(pattern, name) for pattern in OF_KIND[kind]):
        return True
    return name in _named(manifest, kind)


def _named(manifest: dict[str, Any], kind: str) -> set[str]:
    """The files that a manifest names."""
    if kind == "latents":
        return {
            f"{split}/{shard['name']}"
            for split, described in manifest["splits"].items()
            for shard in described["shards"]
        }
    if kind in ("autoencoders", "emulators"):
        return set(manifest.get("weights", {"raw": "model.safetensors"}).values())
    return set()
