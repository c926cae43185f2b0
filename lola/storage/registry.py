"""Finding trained models: finished stages by folder, name or fingerprint, and what MLflow knows."""

import shutil
import tempfile
from pathlib import Path
from typing import Literal

from lola.core.errors import DataError, StorageError, TrackingError
from lola.storage.remote import AnyPath, to_path
from lola.storage.stages import (
    EMA_WEIGHTS,
    WEIGHTS,
    atomic_path,
    manifests,
    read_manifest,
    read_manifests,
    resolve_storage,
)

ModelKind = Literal["autoencoders", "emulators"]
NAMES: dict[str, str] = {"autoencoders": "autoencoder", "emulators": "emulator"}


def find_root(option: str | None, reference: str) -> AnyPath:
    """The storage root, as of `resolve_storage`, for what `find_stage` takes.

    Where a stage's folder is named no root is made: without an option or another root it is the folder's own.

    Raises:
        StorageError: As for `resolve_storage`.
    """
    folder = to_path(reference)
    if option is None and (folder / "manifest.json").exists():
        try:
            return resolve_storage(option, create=False)
        except StorageError:
            return folder.parents[1]
    return resolve_storage(option)


def find_stage(root: AnyPath, reference: str, kind: ModelKind) -> AnyPath:
    """The folder of a finished autoencoder or emulator.

    Arguments:
        root: The storage root.
        reference: The folder, a path or a URL; or the name or the fingerprint (8 digits or more) of a stage
            of the storage root; or a model that MLflow knows, as for `fetch_model`, which becomes a stage of
            the root.
        kind: Which kind of model is meant.

    Raises:
        DataError: What was found is a model of another kind.
        StorageError: A URL holds credentials, or cannot be reached.
        TrackingError: Nothing was found, nor does MLflow know it.
    """
    given = to_path(reference)
    named = [path.parent for path in manifests(root, kind) if path.parent.name == reference]
    if not named and len(reference) >= 8:
        stages = read_manifests(root, kind)
        named = [folder for folder, manifest in stages if manifest["fingerprint"].startswith(reference)]
    if (given / "manifest.json").exists():
        folder = given
    elif named:
        folder = named[0]
    elif isinstance(given, Path) and given.is_dir():
        raise StorageError(f"{given} has no manifest.json: it is no finished stage")
    else:
        return _fetch(root, reference, kind)
    _require_kind(folder, reference, kind)
    return folder


def find_emulator(root: AnyPath, reference: str) -> AnyPath:
    """The folder of a finished emulator, as for `find_stage`; its autoencoder is fetched too if need be."""
    folder = find_stage(root, reference, "emulators")
    manifest = read_manifest(folder)
    name = manifest["autoencoder"]
    if name and not (folder.parents[1] / "autoencoders" / name / "manifest.json").exists():
        from lola.storage.tracking import fetch_stage  # here, since MLflow is large

        with tempfile.TemporaryDirectory() as tmp_path:
            found = fetch_stage(root, manifest["inputs"]["autoencoder"], Path(tmp_path))
            _adopt(folder.parents[1], found, "autoencoders")
    return folder


def _fetch(root: AnyPath, reference: str, kind: ModelKind) -> AnyPath:
    """Make a model of MLflow's a stage of the storage root, unless it is one already."""
    from lola.storage.tracking import fetch_model  # here, since MLflow is large

    with tempfile.TemporaryDirectory() as tmp_path:
        try:
            found = fetch_model(root, reference, Path(tmp_path))
        except TrackingError as error:
            raise TrackingError(
                f"{reference} is no {NAMES[kind]} of {root}, and {error}; name a stage's folder, its name or "
                "fingerprint, runs:/RUN_ID or a registered model"
            ) from error
        _require_kind(found, reference, kind)
        return _adopt(root, found, kind)


def _adopt(root: AnyPath, found: Path, kind: ModelKind) -> AnyPath:
    manifest = read_manifest(found)
    folder = root / kind / f"{manifest['system']}-{manifest['what']}-{manifest['fingerprint'][:8]}"
    if not (folder / "manifest.json").exists():
        for file in (WEIGHTS, EMA_WEIGHTS, "manifest.json"):
            if (found / file).exists() or file != EMA_WEIGHTS:
                with atomic_path(folder / file) as path:
                    shutil.copyfile(found / file, path)
    return folder


def _require_kind(folder: AnyPath, reference: str, kind: ModelKind) -> None:
    found = read_manifest(folder)["kind"]
    if found != kind:
        raise DataError(f"{reference} is one of {found}, not an {NAMES[kind]}; name the {NAMES[kind]}")
