r"""How long predictions are valid: until their anomaly correlation falls below 0.8 (`scores.anomalies`).

With s_l the share of trajectories whose predictions are valid until the lead time l, of those that have it,
the mean valid time is

    T = sum_l (l - l') s_l,    l' the lead time before, or 0.

Predictions that are valid at the end of their trajectory may be so for longer: T is a lower bound then.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lola.evaluation.tables.bootstrap import (
    DRAWS,
    LEVELS,
    bootstrap_weights,
    resample_seeds,
    weighted_means,
)
from lola.evaluation.tables.cells import METHOD, Cells
from lola.evaluation.tables.lead_times import sort_methods

COLUMNS = [*METHOD, "value", "low", "high", "valid_at_end", "seeds", "trajectories"]


def valid_times(cells: Sequence[Cells], draws: int = DRAWS) -> pd.DataFrame:
    """The mean valid time of every method, averaged over fields and training seeds.

    Arguments:
        cells: Those of the metric `valid`.
        draws: Resamplings of seeds and trajectories.

    Returns:
        The columns of `METHOD`, `value`, `low` and `high` (the 95 % interval, NaN for one trajectory), in
        simulation steps, `valid_at_end`, the share that is valid at the last lead time, and the numbers of
        `seeds` and `trajectories`.
    """
    rows = [dict(zip(METHOD, part.method, strict=True)) | _estimate(part, draws) for part in cells]
    return sort_methods(pd.DataFrame(rows)) if rows else pd.DataFrame(columns=COLUMNS)


def _estimate(cells: Cells, draws: int) -> dict[str, float]:
    spans = np.diff(cells.lead_times, prepend=0)
    seeds, count, *shape = cells.values.shape[1:]
    by_seed = weighted_means(bootstrap_weights(count, draws), cells.values.reshape(1, seeds, count, -1))
    shares = resample_seeds(by_seed, lambda means: means[0])
    # A resampling may have no trajectory that is long enough for a lead time
    shares = np.nan_to_num(shares).reshape(len(shares), *shape).mean(1)
    times = shares @ spans
    low, high = np.quantile(times[1:], LEVELS) if count > 1 else (np.nan, np.nan)
    low, high = np.clip((low, high), 0, cells.lead_times[-1])  # few seeds stretch intervals beyond
    numbers = {"valid_at_end": shares[0, -1], "seeds": seeds, "trajectories": count}
    return {"value": times[0], "low": low, "high": high, **numbers}
