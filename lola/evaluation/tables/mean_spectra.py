"""Spectra, coherence and rank histograms, averaged over trajectories, starts and training seeds."""

import numpy as np
import pandas as pd
import pyarrow as pa

from lola.evaluation.tables.cells import METHOD, group_rows

PLACE = ["metric", "target", "field", "lead_time"]
BINS = ["coordinate", "step", "values"]
COLUMNS = [*METHOD, *PLACE, "x", "y"]


def mean_spectra(spectra: pa.Table) -> pd.DataFrame:
    """The means of the second table by method, metric, target, field and lead time.

    Arguments:
        spectra: All rows of some methods.

    Returns:
        The columns `METHOD`, `metric, target, field, lead_time`, and the arrays `x`, coordinates, and `y`,
        means, which are NaN in bins where a trajectory is not finite.
    """
    spectra = spectra.unify_dictionaries()
    rows = []
    for (metric, *method), chosen in group_rows(spectra, ["metric", *METHOD]):
        part = spectra.select([*PLACE[1:], *BINS]).take(pa.array(chosen))
        values = list_matrix(part["values"])
        axes: dict[tuple[float, float], np.ndarray] = {}
        # Targets and fields stay in order of appearance
        for place, each in sorted(group_rows(part, PLACE[1:]), key=lambda pair: pair[1][0]):
            begin, step = (part[name][int(each[0])].as_py() for name in ("coordinate", "step"))
            x = axes.setdefault((begin, step), begin + step * np.arange(values.shape[1]))
            y = values[each].mean(0, dtype=np.float64)
            rows.append((*method, metric, *place, x, y))
    return pd.DataFrame(rows, columns=COLUMNS)


def list_matrix(column: pa.ChunkedArray) -> np.ndarray:
    """Lists of one length as an array with shape `(rows, length)`, NaN where a list or an element is null."""
    lists = column.combine_chunks()
    if isinstance(lists, pa.ChunkedArray):  # without any chunk
        return np.zeros((0, 0), np.float32)
    flat = lists.flatten().to_numpy(zero_copy_only=False)
    valid = lists.is_valid().to_numpy(zero_copy_only=False)
    if valid.all():
        return flat.reshape(len(lists), -1)
    length = len(flat) // max(1, valid.sum())
    matrix = np.full((len(lists), length), np.nan, np.float32)
    matrix[valid] = flat.reshape(valid.sum(), length)
    return matrix
