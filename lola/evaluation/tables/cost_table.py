"""Accuracy against cost: which methods are the most accurate of all that cost no more."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lola.evaluation.tables.lead_times import name_method, sort_methods
from lola.evaluation.tables.speed import Timing, show_seconds
from lola.models.kinds import kind_titles

COSTS = {"seconds": "seconds per state of all members", "minutes": "minutes of training"}
_KEYS = ["model", "space", "compression", "solver_steps"]


def pareto(cost: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Which of some points no other is below in one coordinate without being above in the other.

    Points with shape `(n,)`; those that are not finite are not among them.
    """
    finite = np.isfinite(cost) & np.isfinite(error)
    order = np.lexsort((error, cost))
    front = np.zeros(len(cost), bool)
    least = np.inf
    for i in order[finite[order]]:
        equal = front & (cost == cost[i]) & (error == error[i])
        front[i] = error[i] < least or bool(equal.any())
        least = min(least, error[i])
    return front


def add_costs(estimates: pd.DataFrame, timings: Sequence[Timing]) -> pd.DataFrame:
    """Rows of emulators with `seconds`, of all members, and `minutes` of training, NaN if unknown.

    Those of latent states have the minutes of their autoencoder too, without which there are none.

    Arguments:
        estimates: Rows of `lead_time_table`s of one context without guidance; rows without a timing are left
            out.
    """
    costs = pd.DataFrame(
        [
            {
                "model": timing.model,
                "space": timing.space,
                "compression": timing.compression or 1.0,
                "solver_steps": timing.solver_steps,
                "seconds": timing.ensemble,
                "training": _minutes(timing.training),
                "autoencoder": _minutes(timing.autoencoder),
                "minutes": _minutes(timing.training)
                + (_minutes(timing.autoencoder) if timing.space == "latent" else 0.0),
            }
            for timing in timings
            if timing.model in kind_titles() and not timing.guided
        ],
        columns=[*_KEYS, "training", "autoencoder", *COSTS],
    )
    return estimates.merge(costs.drop_duplicates(_KEYS), on=_KEYS)


def _minutes(seconds: float | None) -> float:
    return np.nan if seconds is None else seconds / 60


def cost_table(estimates: pd.DataFrame, timings: Sequence[Timing], metrics: dict[str, str]) -> pd.DataFrame:
    """A row of strings per emulator: its costs, its errors, and whether it is on a Pareto front.

    Arguments:
        estimates: Rows over one range of lead times, against the truth.
        timings: Those of emulators without guidance.
        metrics: Names for people of the metrics to list; fronts are of the first.
    """
    first = next(iter(metrics))
    rows = sort_methods(add_costs(estimates[estimates["metric"] == first], timings))
    values = estimates.set_index([*_KEYS, "metric"])["value"].to_dict()
    fronts = {name: pareto(rows[name].to_numpy(float), rows["value"].to_numpy(float)) for name in COSTS}
    shown = []
    for i, row in rows.iterrows():
        key = tuple(row[_KEYS])
        latent = row["space"] == "latent"
        on = [word for name, word in (("seconds", "speed"), ("minutes", "training")) if fronts[name][i]]
        shown.append(
            {
                "method": name_method(row),
                "rate": f"{row['compression']:.4g}" if latent else "–",
                "steps": str(row["solver_steps"] or "–"),
                "all members": show_seconds(row["seconds"]),
                "training": show_minutes(row["training"]),
                "autoencoder": show_minutes(row["autoencoder"] if latent else np.nan),
                **{name: _show(values.get((*key, metric), np.nan)) for metric, name in metrics.items()},
                "Pareto front": "both" if len(on) == 2 else "".join(on) or "–",
            }
        )
    return pd.DataFrame(shown)


def _show(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3f}" if np.isfinite(value) else "unstable"


def show_minutes(minutes: float) -> str:
    return "–" if np.isnan(minutes) else f"{minutes:.3g} min"
