"""Rows of the metrics tables for tests that only say the values."""

import pyarrow as pa

from lola.evaluation.scores.ensemble import score_ensemble
from lola.evaluation.scores.rows import METRICS_SCHEMA, tabulate
from lola.evaluation.scores.stability import share_stable
from lola.evaluation.tables.cells import CellTable
from lola.evaluation.tables.curves import curves_of


def score(subject, truth, members, *, channels, lead_times):
    """Rows of the metrics and of the spectra of an ensemble `(M, C, L, *grid)` against a truth."""
    scores, statistics = score_ensemble({"target": truth}, members, spatial=truth.ndim - 2)
    rollouts = {"stability": (channels, share_stable(truth, statistics))}
    return tabulate(subject, scores["target"], rollouts, channels=channels, lead_times=lead_times)


def curves(metrics, metric, target="truth"):
    """The curves of every method that has a metric."""
    return curves_of(CellTable(metrics).of(metric, target), metric, target)


def tidy(values, metric="vrmse", model="neural_solver", lead_times=(4, 20, 24), **keys):
    """Rows of values with shape (trajectories, lead times), for one field."""
    rows = [
        {
            "system": "euler", "dataset": "d", "fingerprint": "f", "model": model, "space": "latent",
            "compression": 16.0, "training_seed": 0, "sampler": "", "solver_steps": 0, "members": 1,
            "context": 1, "overlap": 1, "guidance": "", "target": "truth", "trajectory": str(i), "start": 0,
            "field": "density", "lead_time": lead_time, "metric": metric, "value": float(value),
        } | keys
        for i, line in enumerate(values) for lead_time, value in zip(lead_times, line, strict=True)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=METRICS_SCHEMA)
