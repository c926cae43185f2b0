r"""The reliability index of rank histograms (Delle Monache et al., J. Geophys. Res. 111, D24307, 2006).

With h_tk the share of points of trajectory t, over a range of lead times, in which the truth has rank k of
0 ... M among M members, and f_k its mean over T trajectories (and training seeds), for each field

    RI = sum_k | f_k - 1 / (M + 1) |,

then averaged over fields: 0 where all ranks are equally frequent, 2 M / (M + 1) where all are the same one.
Few trajectories never give 0: of a calibrated ensemble, whose f_k deviate by chance with variance s_k^2 / T,

    E[RI] = sqrt(2 / pi) sum_k s_k / sqrt(T),

where s_k^2 is the variance of h_tk between trajectories. It counts trajectories, not points, which are alike
where they are close to each other. Of n points with independent ranks in each, E[RI] is
sqrt( 2 M / (pi n T) ).
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from lola.evaluation.scores.ensemble import RANKS
from lola.evaluation.tables.cells import METHOD, encode_column, group_rows
from lola.evaluation.tables.lead_times import Range, name_range
from lola.evaluation.tables.mean_spectra import list_matrix

COLUMNS = [*METHOD, "range", "value", "by_chance", "seeds", "trajectories"]


def reliability_table(spectra: pa.Table, ranges: Sequence[Range]) -> pd.DataFrame:
    """The index by method and range of lead times, against the truth.

    Arguments:
        spectra: All rows of some methods, of the second table.

    Returns:
        The columns `METHOD`, `range`, `value`, NaN where a trajectory is not finite, `by_chance`, the
        expectation for a calibrated ensemble, NaN of one trajectory, `seeds` and `trajectories`.
    """
    chosen = pc.and_(pc.equal(spectra["metric"], RANKS), pc.equal(spectra["target"], "truth"))
    spectra = spectra.filter(chosen).unify_dictionaries()
    rows = []
    for key, numbers in group_rows(spectra, METHOD):
        part = spectra.take(pa.array(numbers))
        lead_times = part["lead_time"].to_numpy()
        for first, last in ranges:
            within = (lead_times >= first) & (lead_times <= (np.inf if last is None else last))
            if within.any():
                place = dict(zip(METHOD, key, strict=True)) | {"range": name_range((first, last))}
                rows.append(place | _index(part.filter(pa.array(within))))
    return pd.DataFrame(rows, columns=COLUMNS)


def _index(rows: pa.Table) -> dict[str, float]:
    """The index of all rows of a method in a range, averaged over fields."""
    values = list_matrix(rows["values"]).astype(float)
    (trajectory, trajectories), (field, fields) = (
        encode_column(rows, name) for name in ("trajectory", "field")
    )
    # Seeds, starts and lead times count alike: a trajectory is what is drawn
    place = trajectory * len(fields) + field
    sums = np.zeros((len(trajectories) * len(fields), values.shape[1]))
    np.add.at(sums, place, values)
    counts = np.bincount(place, minlength=len(sums))[:, None]
    with np.errstate(invalid="ignore"):
        shares = (sums / counts).reshape(len(trajectories), len(fields), -1)
    index, by_chance = reliability_index(shares)
    seeds = len(encode_column(rows, "training_seed")[1])
    numbers = {"seeds": seeds, "trajectories": len(trajectories)}
    return {"value": float(index.mean()), "by_chance": float(by_chance.mean()), **numbers}


def reliability_index(shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """RI and E[RI] of shares h with shape `(T, ..., M + 1)`, with shape `(...)`."""
    count, ranks = len(shares), shares.shape[-1]
    index = np.abs(shares.mean(0) - 1 / ranks).sum(-1)
    if count == 1:
        return index, np.full_like(index, np.nan)
    deviation = shares.std(0, ddof=1) / np.sqrt(count)
    return index, np.sqrt(2 / np.pi) * deviation.sum(-1)
