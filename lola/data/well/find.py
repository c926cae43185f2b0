"""Finding a system and its data by what a user names: a system, a dataset's folder, or a description file."""

import dataclasses
import difflib
import posixpath
from pathlib import Path

from lola.core.errors import ConfigError, MissingDataError, did_you_mean
from lola.core.filesystem import expand
from lola.data.description import (
    FILE_NAME,
    PAPER,
    Description,
    build_system,
    described_systems,
    get_system,
    read_description,
)
from lola.data.hdf5 import exists, file_name, join, list_files, list_names
from lola.data.systems import SPLITS, System
from lola.data.well.datasets import Datasets
from lola.storage.remote import AnyPath, is_url, remote_path, translate_fs_errors
from lola.storage.stages import Location


def find_system(reference: str, datasets: Datasets) -> tuple[System, Datasets]:
    """A system and the datasets that hold its files.

    Arguments:
        reference: The name of a system whose description comes with this package, unless there is another
            one in the folder of that name in `datasets`; the name of a dataset of `datasets`; a folder that
            holds `data/train/*.hdf5`, perhaps with a description `system.yaml`; or a description file.
        datasets: Where datasets are looked for by name, and which files of them count.

    Returns:
        The system, and the datasets: those of the parent folder of the dataset that was named.

    Raises:
        ConfigError: A description is faulty, nothing has the name, or it is that of a system of the paper.
        DataError: The files of the dataset are not of The Well's layout.
        MissingDataError: The folder has no dataset; the error lists what it has.
    """
    system, datasets = _find(reference, datasets)
    if system.described and system.name in PAPER:
        raise ConfigError(
            f"--system {reference}: {system.name} is the name of a system of the paper; give this one "
            f"another, as the key name of its {FILE_NAME}"
        )
    return system, datasets


def _find(reference: str, datasets: Datasets) -> tuple[System, Datasets]:
    if reference in described_systems():
        folder = join(datasets.root, reference)
        if not exists(join(folder, FILE_NAME)):
            return get_system(reference), datasets
        if reference in PAPER:
            raise ConfigError(
                f"--system {reference} is a system of the paper, and {join(folder, FILE_NAME)} describes "
                f"another one; give --system {folder}, or remove the file"
            )
        return _of_folder(folder, datasets)
    if reference.endswith((".yaml", ".yml")):
        return _of_file(reference, datasets)
    if "/" not in reference and not reference.startswith((".", "~")):
        if exists(join(datasets.root, reference, "data")):
            return _of_folder(join(datasets.root, reference), datasets)
        if not Path(reference).is_dir():
            raise ConfigError(_unknown(reference, datasets.root))
    return _of_folder(_location(reference), datasets)


def _location(reference: str) -> Location:
    return reference.rstrip("/") if is_url(reference) else expand(reference)


def _of_file(reference: str, datasets: Datasets) -> tuple[System, Datasets]:
    """The system of a description file; of the dataset in whose folder it is, if it is in one."""
    location = _location(reference)
    folder = location.parent if isinstance(location, Path) else posixpath.dirname(location)
    description = read_description(_text(location), str(location))
    if exists(join(folder, "data")):
        datasets = dataclasses.replace(datasets, root=_parent(folder))
        _require_datasets(description, location, datasets.root)
        return build_system(description, str(location), datasets.infer(file_name(folder))), datasets
    for dataset in description.datasets or ():
        if exists(join(datasets.root, dataset, "data")):
            _require_datasets(description, location, datasets.root)
            inferred = datasets.infer(dataset)
            inferred = dataclasses.replace(inferred, datasets=tuple(description.datasets or ()))
            return build_system(description, str(location), inferred), datasets
    return build_system(description, str(location)), datasets


def _of_folder(folder: Location, datasets: Datasets) -> tuple[System, Datasets]:
    """The system of a dataset's folder: described by a file in it, by this package, or by its data alone."""
    if not any(list_files(join(folder, "data", split)) for split in SPLITS):
        raise MissingDataError(describe_folder(folder))
    datasets = dataclasses.replace(datasets, root=_parent(folder))
    name = file_name(folder)
    if exists(join(folder, FILE_NAME)):
        path = join(folder, FILE_NAME)
        description = read_description(_text(path), str(path))
        _require_datasets(description, path, datasets.root)
        return build_system(description, str(path), datasets.infer(name)), datasets
    for known in map(get_system, described_systems()):
        if name in known.datasets:  # of its datasets, the one that was named
            return dataclasses.replace(known, datasets=(name,)), datasets
    return datasets.infer(name), datasets


def _require_datasets(description: Description, source: Location, root: Location) -> None:
    """Raise `ConfigError` unless a folder has all datasets that a description names."""
    for name in description.datasets or ():
        if not exists(join(root, name, "data")):
            raise ConfigError(
                f"{source}: datasets names {name}, which {root} does not hold"
                f"{did_you_mean(name, _entries(root)) or f'; it holds {list_names(_entries(root))}'}"
            )


def _parent(folder: Location) -> Location:
    return folder.parent if isinstance(folder, Path) else posixpath.dirname(folder)


def _text(location: Location) -> str:
    path: AnyPath = location if isinstance(location, Path) else remote_path(location)
    with translate_fs_errors(location):
        try:
            return path.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise ConfigError(f"--system {location} does not exist; name a description file") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"{location} is no text file; experiments/describe.py writes one") from error


def describe_folder(folder: Location) -> str:
    """Why a folder is no dataset: what it holds, and the nearest folder that is one."""
    if not exists(folder):
        near = _nearest(folder)
        return f"{folder} does not exist; {near or 'name the folder that holds data/train/*.hdf5'}"
    if isinstance(folder, Path) and folder.is_file():
        parent = folder.parents[2] if folder.parent.parent.name == "data" else folder.parent
        return f"{folder} is a file; name the folder of its dataset, such as {parent}"
    names = _entries(folder)
    inside = [name for name in names if exists(join(folder, name, "data"))]
    path = folder if isinstance(folder, Path) else None
    advice = "a dataset's folder holds data/train, data/valid and data/test with files *.hdf5"
    if inside:
        advice = f"did you mean {' or '.join(str(join(folder, name)) for name in inside[:3])}?"
    elif path is not None and path.name == "data":
        advice = f"did you mean {path.parent}?"
    elif path is not None and path.parent.name == "data":
        advice = f"did you mean {path.parents[1]}?"
    return f"{folder} is no dataset: it holds {list_names(names)}; {advice}"


def _entries(folder: Location) -> list[str]:
    path: AnyPath = folder if isinstance(folder, Path) else remote_path(folder)
    with translate_fs_errors(folder):
        return sorted(entry.name for entry in path.iterdir())


def _nearest(folder: Location) -> str:
    """The entry of the parent folder whose name is most alike."""
    if not isinstance(folder, Path) or not folder.parent.is_dir():
        return ""
    near = difflib.get_close_matches(folder.name, _entries(folder.parent), 1)
    return f"did you mean {folder.parent / near[0]}?" if near else ""


def _unknown(name: str, root: Location) -> str:
    """The error that nothing has a name."""
    there = [entry for entry in _entries(root) if exists(join(root, entry, "data"))] if exists(root) else []
    meant = did_you_mean(name, [*described_systems(), *there])
    found = f", or of the datasets in {root}: {', '.join(there)}" if there else ""
    if meant:
        return f"--system {name} is no known system, dataset's folder or description file{meant}"
    return (
        f"--system {name} is no dataset's folder, no description file, and none of the known systems "
        f"{', '.join(described_systems())}{found}"
    )
