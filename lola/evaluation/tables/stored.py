"""Reading the tables and arrays of finished stages."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from lola.core.errors import DataError, StorageError
from lola.evaluation.scores.rows import KEYS, METRICS_SCHEMA, SPECTRA_SCHEMA, convert_bins_to_lists
from lola.storage.integrity import DECODE_ERRORS
from lola.storage.remote import AnyPath, first_line, local_copy, translate_fs_errors


def read_table(path: AnyPath) -> pa.Table:
    """A table of a stage; spectra of earlier versions, which had a row per bin, in today's form.

    Raises:
        DataError: It is missing or corrupt.
    """
    with _reading(path), path.open("rb") as file:
        table = pq.read_table(file, page_checksum_verification=True)
        unknown = {*table.column_names} - {*METRICS_SCHEMA.names, *SPECTRA_SCHEMA.names, "bin"}
        if unknown:  # no checksum covers the names
            raise ValueError(f"it has a column {min(unknown)!r}")
        _check_types(table.schema)
        return convert_bins_to_lists(table)


def read_subject(path: AnyPath) -> dict[str, Any]:
    """The key columns of the first row of a table.

    Raises:
        DataError: It is missing or corrupt.
    """
    columns = [field.name for field in KEYS]
    with _reading(path), path.open("rb") as file:
        table = pq.ParquetFile(file, page_checksum_verification=True)
        _check_types(table.schema_arrow)
        for rows in table.iter_batches(1, columns=columns):
            return rows.to_pylist()[0]
        raise ValueError("it has no rows")


def _check_types(schema: pa.Schema) -> None:
    """Raise `ValueError` unless each column has the kind of values that it is written with."""
    kinds = {field.name: _kind(field.type) for field in (*SPECTRA_SCHEMA, *METRICS_SCHEMA)}
    for field in schema:
        expected = kinds.get(field.name, "integer")  # of earlier versions, bins
        if _kind(field.type) != expected:
            raise ValueError(f"its column {field.name} is {field.type}, not {expected}")


def _kind(column: pa.DataType) -> str:
    """What a column holds, in whatever width and encoding."""
    if pa.types.is_dictionary(column):
        return _kind(column.value_type)
    if pa.types.is_list(column):
        return f"list of {_kind(column.value_type)}"
    tests = {"string": pa.types.is_string, "integer": pa.types.is_integer, "float": pa.types.is_floating}
    return next((name for name, holds in tests.items() if holds(column)), str(column))


def read_array(path: AnyPath) -> np.ndarray:
    """An array of a stage, on disk: what is used of it is read.

    Raises:
        DataError: It is missing or corrupt.
    """
    with _reading(path):
        return np.load(local_copy(path), mmap_mode="r")


@contextlib.contextmanager
def _reading(path: AnyPath) -> Iterator[None]:
    """Turn errors of reading a file of a stage into one that names it."""
    try:
        with translate_fs_errors(path) if isinstance(path, UPath) else contextlib.nullcontext():
            yield
    except StorageError:
        raise
    except (*DECODE_ERRORS, pa.ArrowException) as error:
        raise DataError(
            f"{path} is missing or corrupt ({first_line(error)}); remove manifest.json in its folder and "
            "run the same command again"
        ) from error
