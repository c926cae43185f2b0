"""Which files and trajectories of datasets are used: what `--include` and `--exclude` name."""

import contextlib
import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from lola.core.errors import ConfigError, DataError
from lola.data.description import SYSTEMS
from lola.data.hdf5 import file_name, join, list_files, missing_files_error, open_hdf5
from lola.data.systems import SPLITS
from lola.storage.integrity import DECODE_ERRORS
from lola.storage.stages import Location

NEAREST = 3  # files that an error lists
LEAVE_OUT = re.compile(r"leave (?:it|the trajectory|the file) out(?: with --exclude[^,;]*)?")


@contextlib.contextmanager
def advising(advice: str) -> Iterator[None]:
    """Give other advice where errors advise to leave a file out, of a command that reads one file alone."""
    try:
        yield
    except DataError as error:
        raise type(error)(LEAVE_OUT.sub(advice, str(error))) from error


def names_trajectory(part: str) -> bool:
    """Whether an entry of `exclude` names one trajectory, `FILE#47`, and not files."""
    return re.search(r"#\d+$", part) is not None


def is_excluded(name: str, exclude: Sequence[str]) -> bool:
    """Whether a trajectory is excluded, by its id or the last parts of it, with or without a suffix."""
    file, _, index = name.rpartition("#")
    names = name, f"{file.rpartition('.')[0]}#{index}"
    return any(f"/{each}".endswith(f"/{part}") for each in names for part in exclude)


def is_selected(file: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Whether a file, by its name, passes the filters."""
    left_out = (part for part in exclude if not names_trajectory(part))
    return (not include or any(part in file for part in include)) and not any(
        part in file for part in left_out
    )


def split_files(
    root: Location, datasets: Sequence[str], split: str, include: Sequence[str], exclude: Sequence[str]
) -> list[tuple[str, Location]]:
    """The files of a split that pass the filters, each with its dataset; at least one.

    Raises:
        DataError: There is none.
        StorageError: The folder cannot be reached.
    """
    root = root if "://" in str(root) else Path(root)
    files = [
        (dataset, path)
        for dataset in datasets
        for path in list_files(join(root, dataset, "data", split))
        if is_selected(file_name(path), include, exclude)
    ]
    if not files:
        check_selection(root, datasets, include, exclude)
        simulated = any(set(datasets) <= set(system.datasets) for system in SYSTEMS.values())
        raise missing_files_error(root, datasets, split, bool(include or exclude), simulated)
    return files


def check_selection(
    root: Location, datasets: Sequence[str], include: Sequence[str], exclude: Sequence[str]
) -> None:
    """Raise `ConfigError` if a part of a name matches no file of any split, or names no trajectory.

    Nothing is checked of datasets that have no files at all.
    """
    root = root if "://" in str(root) else Path(root)
    files = {
        f"{dataset}/{split}/{file_name(path)}": path
        for dataset in datasets
        for split in SPLITS
        for path in (list_files(join(root, dataset, "data", split)) if include or exclude else ())
    }
    names = {file_name(path): None for path in files.values()}
    for option, parts in (("--include", include), ("--exclude", exclude)) if files else ():
        for part in parts:
            if option == "--exclude" and names_trajectory(part):
                _check_trajectory(part, files)
            elif not any(part in name for name in names):
                raise ConfigError(
                    f"{option} {part} matches no file in {root}; the nearest are {_nearest(part, names)}"
                )


def _check_trajectory(part: str, files: Mapping[str, Location]) -> None:
    """Raise `ConfigError` unless one of some files, by their ids, has a trajectory."""
    name, _, number = part.rpartition("#")
    named = {each: path for each, path in files.items() if is_excluded(f"{each}#{number}", [part])}
    if not named:
        names = [each.rpartition("/")[2] for each in files]
        raise ConfigError(
            f"--exclude {part} names no trajectory: no file is called {name}; the nearest are "
            f"{_nearest(name, names)}"
        )
    counts = []
    for path in named.values():
        try:
            with open_hdf5(path) as file:
                counts.append(int(file.attrs["n_trajectories"]))
        except (DataError, *DECODE_ERRORS):  # reported where the file is read
            return
    if int(number) >= max(counts):
        raise ConfigError(
            f"--exclude {part} names no trajectory: {' and '.join(named)} has {max(counts)}; they count from "
            f"0, such as {name}#0"
        )


def _nearest(part: str, names: Iterable[str]) -> str:
    return ", ".join(difflib.get_close_matches(part, list(dict.fromkeys(names)), NEAREST, cutoff=0))
