"""Scores of one trajectory as rows of the tidy tables."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from lola.emulation import Weights
from lola.evaluation.conservation import Invariant, drift
from lola.evaluation.ensemble import RANKS, Members, Scores, score_ensemble
from lola.evaluation.metrics import stays_within


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """The key columns of the tidy tables: who predicted what, and against what it is scored.

    Arguments:
        system, dataset: The physical system, and the fingerprint of its data.
        fingerprint: The evaluation's fingerprint.
        model: `diffusion`, `neural_solver`, `autoencoder` or `persistence`; with `_ema` behind it if its
            averaged weights were used (see `model_key`).
        space: `latent` or `pixel`.
        compression: numel(x) / numel(z), 1 in pixel space.
        training_seed: The seed of the model's training.
        sampler, solver_steps: How a diffusion model was sampled, else empty and 0.
        members: Size of the ensemble.
        context, overlap: Known states, and states shared by successive windows.
        guidance: The method that observations were assimilated by, if any.
        target: `truth` or `autoencoded`.
        trajectory, start: The test trajectory and the first state of the context.
    """

    system: str
    dataset: str
    fingerprint: str
    model: str
    space: str
    compression: float
    training_seed: int = 0
    sampler: str = ""
    solver_steps: int = 0
    members: int = 1
    context: int = 1
    overlap: int = 1
    guidance: str = ""
    target: str = "truth"
    trajectory: str = ""
    start: int = 0


# Each row repeats its strings: dictionaries keep them once.
_TYPES = {str: pa.dictionary(pa.int32(), pa.string()), int: pa.int32(), float: pa.float64()}
KEYS = [pa.field(field.name, _TYPES[field.type]) for field in dataclasses.fields(Subject)]  # type: ignore[index]
PLACE = [("field", _TYPES[str]), ("lead_time", pa.int32()), ("metric", _TYPES[str])]
METRICS_SCHEMA = pa.schema([*KEYS, *PLACE, ("value", pa.float64())])
SPECTRA_SCHEMA = pa.schema(
    [*KEYS, *PLACE, ("bin", pa.int32()), ("coordinate", pa.float64()), ("value", pa.float64())]
)


def model_key(model: str, weights: Weights) -> str:
    """The `model` column: averaged weights count as a model of their own."""
    return f"{model}_ema" if weights == "ema" else model


def score(
    subject: Subject, truth: Tensor, members: Tensor, *, channels: Sequence[str], lead_times: np.ndarray
) -> tuple[pa.Table, pa.Table]:
    """Score an ensemble against a trajectory, field by field and lead time by lead time.

    A prediction that is not finite keeps its rows, whose values are not finite either, but for its stability.

    Arguments:
        subject: The key columns.
        truth: The target in physical units, with shape `(C, L, *grid)`.
        members: The ensemble in physical units, with shape `(M, C, L, *grid)`.
        channels: The names of the fields.
        lead_times: Simulation steps since the last context state, with shape `(L,)`.

    Returns:
        Rows of the metrics table, and of the second table: spectra, coherence and ranks.
    """
    scores, own = score_ensemble({"target": truth}, members, spatial=truth.ndim - 2)
    rollouts = {"stability": (channels, share_stable(truth, own))}
    return tabulate(subject, scores["target"], rollouts, channels=channels, lead_times=lead_times)


def count_rows(channels: Sequence[str], grid: Sequence[int], members: int) -> int:
    """Rows of both tables per state that is scored against one target, but for what is conserved.

    Arguments:
        channels: The names of the fields.
        grid: Cells along each grid axis.
        members: Size of the ensemble.
    """
    few = min(members, 2)  # further members add ranks alone
    truth, ensemble = torch.zeros(1, 1, *grid), torch.zeros(few, 1, 1, *grid)
    nobody = Subject(system="", dataset="", fingerprint="", model="", space="", compression=1.0)
    both = score(nobody, truth, ensemble, channels=channels[:1], lead_times=np.ones(1, np.int32))
    return len(channels) * (sum(table.num_rows for table in both) + members - few)


def share_stable(truth: Tensor, own: Members) -> Tensor:
    """The share of rollouts all of whose fields have stayed finite and in range until each lead time.

    Arguments:
        truth: The true states `(C, L, *grid)`, whose range over all times counts.
        own: What the members are by themselves.

    Returns:
        The share, the same for every field, with shape `(C, L)`.
    """
    low, high = (values.unsqueeze(-1) for values in truth.flatten(1).aminmax(dim=-1))
    stable = stays_within(own.smallest, own.largest, low.to(own.smallest), high.to(own.smallest)).all(1)
    return stable.double().mean(0).expand(len(truth), -1)


def drifts(
    invariants: Sequence[Invariant], channels: Sequence[str], known: Tensor, own: Members
) -> dict[str, tuple[Sequence[str], Tensor]]:
    """The mean over members of the drift of what is conserved, with the fields that hold it.

    Arguments:
        invariants: What the simulation conserves.
        channels: The names of the fields.
        known: The last known state in physical units, with shape `(C, *grid)`.
        own: What the members are by themselves.

    Returns:
        Metrics `drift_mass` and the like: names of fields, and values with shape `(fields, L)`.
    """
    found: dict[str, tuple[Sequence[str], Tensor]] = {}
    for each in invariants:
        numbers = [channels.index(name) for name in each.channels]
        moved = drift(known[numbers], own.means[:, numbers].to(known.device), spatial=known.ndim - 1)
        found[f"drift_{each.name}"] = (each.channels, moved.mean(0))
    return found


def tabulate(
    subject: Subject,
    scores: Scores,
    rollouts: Mapping[str, tuple[Sequence[str], Tensor]],
    *,
    channels: Sequence[str],
    lead_times: np.ndarray,
) -> tuple[pa.Table, pa.Table]:
    """Rows of scores.

    Arguments:
        subject: The key columns.
        scores: The scores against one target.
        rollouts: Further metrics: the names of the fields that have them, and values `(fields, L)`.
        channels: The names of the fields.
        lead_times: Simulation steps since the last context state, with shape `(L,)`.

    Returns:
        Rows of the metrics table and of the second table.
    """
    metrics = [_table(subject, METRICS_SCHEMA, scores.metrics, channels, lead_times, {})]
    for metric, (fields, values) in rollouts.items():
        metrics.append(_table(subject, METRICS_SCHEMA, {metric: values}, fields, lead_times, {}))
    second = []
    for metric, values in scores.spectra.items():
        bins = np.arange(values.shape[-1])
        coordinate = bins.astype(float) if metric == RANKS else scores.edges.cpu().numpy()
        inner = {"bin": bins, "coordinate": coordinate}
        second.append(_table(subject, SPECTRA_SCHEMA, {metric: values}, channels, lead_times, inner))
    return pa.concat_tables(metrics), pa.concat_tables(second)


def _table(
    subject: Subject,
    schema: pa.Schema,
    values: dict[str, Tensor],
    channels: Sequence[str],
    lead_times: np.ndarray,
    inner: dict[str, np.ndarray],
) -> pa.Table:
    """Rows of values with shape `(C, L)`, or `(C, L, n)` with columns along the last axis."""
    shape = (len(channels), len(lead_times), *(len(column) for column in list(inner.values())[:1]))
    axes = np.indices(shape, dtype=np.int32).reshape(len(shape), -1)
    constant = np.zeros(axes.shape[1], np.int32)
    keys = {name: _choose(constant, [value]) for name, value in dataclasses.asdict(subject).items()}
    place = {"field": _choose(axes[0], channels), "lead_time": _choose(axes[1], lead_times)}
    inner = {name: column[axes[-1]] for name, column in inner.items()}
    tables = []
    for metric, tensor in values.items():
        columns = {"metric": _choose(constant, [metric]), "value": tensor.flatten().cpu().numpy()}
        tables.append(pa.table(keys | place | inner | columns, schema=schema))
    return pa.concat_tables(tables)


def _choose(index: np.ndarray, values: Sequence | np.ndarray) -> pa.Array | np.ndarray:
    """`values[index]`, as a dictionary where these are strings."""
    if isinstance(values[0], str):
        return pa.DictionaryArray.from_arrays(index, list(values))
    return np.asarray(values)[index]
