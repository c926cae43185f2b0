"""Metrics tables that are damaged anywhere: an error of ours, or the numbers that were written."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corruption import damaged_copies

from lola.core.errors import DataError, LolaError
from lola.evaluation.scores.rows import METRICS_SCHEMA, PARQUET
from lola.evaluation.tables.stored import read_subject, read_table

SAMPLES = {pa.types.is_string: "euler", pa.types.is_integer: 3, pa.types.is_floating: 0.5}


def rows(count):
    def sample(kind):
        kind = getattr(kind, "value_type", kind)  # of a dictionary
        return next((value for is_kind, value in SAMPLES.items() if is_kind(kind)), None)

    row = {field.name: sample(field.type) for field in METRICS_SCHEMA}
    return pa.Table.from_pylist(
        [row | {"lead_time": i, "value": i / 8} for i in range(count)], schema=METRICS_SCHEMA
    )


def test_a_damaged_table_is_an_error_or_as_written(tmp_path):
    path, refused = tmp_path / "metrics.parquet", 0
    pq.write_table(rows(20), path, **PARQUET)
    whole, content, subject = read_table(path).to_pylist(), path.read_bytes(), read_subject(path)
    for what, copy in damaged_copies(content, 200):
        path.write_bytes(copy)
        try:
            assert read_table(path).to_pylist() == whole, what
            assert read_subject(path) == subject, what
        except LolaError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize(("name", "values"), [("field", [b"a"]), ("value", ["1"]), ("members", [0.5])])
def test_a_column_of_another_type_is_refused(tmp_path, name, values):
    table, path = rows(1), tmp_path / "metrics.parquet"
    pq.write_table(table.set_column(table.column_names.index(name), name, pa.array(values)), path)
    for read in (read_table, read_subject):
        with pytest.raises(DataError, match=rf"its column {name} is (binary|string|double), not "):
            read(path)
