r"""How long predictions are valid: until their anomaly correlation falls below 0.8 (`scores.anomalies`).

With s_l the share of trajectories whose predictions are valid until the lead time l, of those that have it,
the mean valid time is

    T = sum_l (l - l') s_l,    l' the lead time before, or 0.

Predictions that are valid at the end of their trajectory may be so for longer: T is a lower bound then.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lola.evaluation.tables.cells import METHOD, Cells
from lola.evaluation.tables.lead_times import bootstrap_weights, sort_methods, weighted_means


def valid_times(cells: Sequence[Cells], draws: int = 1000) -> pd.DataFrame:
    """The mean valid time of every method, averaged over fields.

    Arguments:
        cells: Those of the metric `valid`.
        draws: Resamplings of the bootstrap over trajectories.

    Returns:
        The columns of `METHOD`, `value`, `low` and `high` (the 95 % interval, NaN for one trajectory), in
        simulation steps, `valid_at_end`, the share that is valid at the last lead time, and `trajectories`.
    """
    rows = []
    for part in cells:
        spans = np.diff(part.lead_times, prepend=0)
        _, count, *shape = part.values.shape
        shares = weighted_means(bootstrap_weights(count, draws), part.values.reshape(count, -1))
        shares = shares.reshape(len(shares), *shape).mean(1)
        times = shares @ spans
        low, high = np.nanquantile(times[1:], [0.025, 0.975]) if count > 1 else (np.nan, np.nan)
        row = {"value": times[0], "low": low, "high": high, "valid_at_end": shares[0, -1]}
        rows.append(dict(zip(METHOD, part.method, strict=True)) | row | {"trajectories": count})
    columns = [*METHOD, "value", "low", "high", "valid_at_end", "trajectories"]
    return sort_methods(pd.DataFrame(rows)) if rows else pd.DataFrame(columns=columns)
