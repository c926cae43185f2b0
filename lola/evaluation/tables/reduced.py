"""A small copy of the metrics table, from which the tables of a report can be computed again.

It has the metrics of `KEPT` against the truth, and those of `EMULATED` against the auto-encoded truth. Ones
that are averaged as they are, such as the VRMSE, are means over fields; parts of metrics of means keep them.
Values are float32 with `DIGITS` significant bits.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lola.evaluation.scores.rows import KEYS, METRICS_SCHEMA, PLACE
from lola.evaluation.tables.cells import METHOD, encode_column, group_rows
from lola.evaluation.tables.lead_times import SPECTRUM

PARTS = ("skill", "spread", "variance", "crps", "energy_block")
AVERAGED = ("vrmse", "coverage_50", "coverage_90", *SPECTRUM)
KEPT = (*PARTS, *AVERAGED)
EMULATED = ("vrmse", *SPECTRUM)
DIGITS = 8
MEAN = "mean"
"""The field of a mean over fields."""
_ORDER = [
    "metric",
    "training_seed",
    "field",
    "lead_time",
    "trajectory",
    *METHOD,
]  # methods are alike: they compress


def reduce_metrics(metrics: pa.Table) -> pa.Table:
    """The rows to keep, of rows of whole methods without guidance."""
    kept, emulated = (
        pc.and_(pc.equal(metrics["target"], target), pc.is_in(metrics["metric"], pa.array(names)))
        for target, names in (("truth", KEPT), ("autoencoded", EMULATED))
    )
    metrics = metrics.filter(pc.and_(pc.or_(kept, emulated), pc.equal(metrics["guidance"], "")))
    metrics = metrics.unify_dictionaries()
    averaged = pc.is_in(metrics["metric"], pa.array(AVERAGED))
    parts = [metrics.filter(pc.invert(averaged)), _mean_over_fields(metrics.filter(averaged))]
    table = pa.concat_tables([part.cast(METRICS_SCHEMA) for part in parts]).unify_dictionaries()
    table = table.set_column(
        table.schema.get_field_index("value"), "value", pa.array(round_bits(table["value"].to_numpy()))
    )
    return table


def sort_reduced(table: pa.Table) -> pa.Table:
    """Rows of several methods in the order in which they take the least space."""
    table = table.unify_dictionaries()
    # Fields, as all, stay in order of appearance
    return table.take(pa.array(np.lexsort([encode_column(table, name)[0] for name in reversed(_ORDER)])))


def write_reduced(table: pa.Table, path: Path) -> None:
    """Write the result of `sort_reduced`."""
    names = [*(field.name for field in KEYS), *dict(PLACE)]
    pq.write_table(
        table,
        path,
        compression="zstd",
        compression_level=19,
        use_dictionary=names,
        column_encoding={"value": "BYTE_STREAM_SPLIT"},
        row_group_size=2**20,
    )


def round_bits(values: np.ndarray) -> np.ndarray:
    """Values as float32 with `DIGITS` significant bits."""
    mantissa, exponent = np.frexp(values)
    return np.ldexp(np.round(mantissa * 2**DIGITS) / 2**DIGITS, exponent).astype(np.float32)


def _mean_over_fields(metrics: pa.Table) -> pa.Table:
    keys = [name for name in metrics.column_names if name not in ("field", "value")]
    groups = group_rows(metrics, keys)
    values = metrics["value"].to_numpy()
    columns: dict[str, list] = {name: [key[i] for key, _ in groups] for i, name in enumerate(keys)}
    columns |= {"field": [MEAN] * len(groups), "value": [float(values[rows].mean()) for _, rows in groups]}
    return pa.table({name: columns[name] for name in METRICS_SCHEMA.names}, schema=METRICS_SCHEMA)
