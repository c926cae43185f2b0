"""Errors that a user can fix: one line that names the thing at fault and the remedy."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str], most: int = 1) -> str:
    """The end of an error about a name that does not exist: those that are most alike, if any is."""
    near = difflib.get_close_matches(name, list(known), most)
    return f"; did you mean {' or '.join(near)}?" if near else ""


class LolaError(Exception):
    """Base of every error caused by what the user gave: options, files, storage or servers."""


class ConfigError(LolaError, ValueError):
    """An option, or a combination of options, that is impossible."""


class DataError(LolaError, ValueError):
    """A data file or dataset that is missing, corrupt, unrecognised or unphysical."""


class MissingDataError(DataError):
    """A dataset without files."""


class DivergedError(LolaError, ArithmeticError):
    """Values of a model, its losses or gradients that are not finite; running it again would not help."""


class StorageError(LolaError, OSError):
    """Storage that cannot be read or written."""


class CorruptError(StorageError):
    """A file written by this project that is empty, truncated or changed."""


class TrackingError(LolaError, ConnectionError):
    """A tracking server that does not answer."""


class ClusterError(LolaError, ConnectionError):
    """A Ray cluster that does not answer, does not start, or lacks resources."""
