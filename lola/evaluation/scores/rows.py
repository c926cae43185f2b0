"""Scores of one trajectory as rows of the tidy tables."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from lola.data.systems import Invariant
from lola.emulation.inference_config import Weights
from lola.evaluation.scores.conservation import drift
from lola.evaluation.scores.ensemble import RANKS, MemberStatistics, Scores, score_ensemble
from lola.evaluation.scores.increments import increment_scores
from lola.evaluation.scores.intervals import BINNED
from lola.evaluation.scores.stability import share_stable


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """The key columns of the tidy tables: who predicted what, and against what it is scored.

    Arguments:
        system, dataset: The physical system, and the fingerprint of its data.
        fingerprint: The evaluation's fingerprint.
        model: `diffusion`, `neural_solver`, `autoencoder` or `persistence`; with the suffix `_ema` if its
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
# The i-th value belongs to the bin at `coordinate + i step`: a wavenumber, a rank, or the number of a bin.
_BINS = [("coordinate", pa.float64()), ("step", pa.float64()), ("values", pa.list_(pa.float32()))]
SPECTRA_SCHEMA = pa.schema([*KEYS, *PLACE, *_BINS])
PARQUET: Any = {
    "compression": "zstd",
    "use_dictionary": [*(field.name for field in KEYS), *dict(PLACE)],
    "write_page_checksum": True,
}
"""How both tables are written: key columns repeat and are dictionary-encoded, values are not."""
ROWS = 2**14
"""Rows of a row group."""


def model_key(model: str, weights: Weights) -> str:
    """The `model` column: averaged weights count as a model of their own."""
    return f"{model}_ema" if weights == "ema" else model


@functools.cache
def stored_bytes(channels: tuple[str, ...], grid: tuple[int, ...], members: int) -> int:
    """Bytes of both tables per state that is scored against one target, without the drifts of invariants.

    Only the values count: the key columns are small.
    """
    few = min(members, 2)  # further members add ranks alone
    truth, ensemble = torch.zeros(1, 1, *grid), torch.zeros(few, 1, 1, *grid)
    subject = Subject(system="", dataset="", fingerprint="", model="", space="", compression=1.0)
    scores, statistics = score_ensemble({"truth": truth}, ensemble, spatial=len(grid))
    two = truth.flatten(2).expand(-1, 2, -1)
    changes = increment_scores(two, ensemble.flatten(3).expand(-1, -1, 2, -1))
    rollouts = {name: (channels[:1], values) for name, values in changes.items()}
    rollouts["stability"] = (channels[:1], share_stable(truth, statistics))
    rollouts |= dict.fromkeys(("anomaly_correlation", "valid"), rollouts["stability"])
    place: dict[str, Any] = {"channels": channels[:1], "lead_times": np.ones(1, np.int32)}
    metrics, spectra = tabulate(subject, scores["truth"], rollouts, **place)
    values = len(spectra["values"].combine_chunks().flatten()) + members - few
    return len(channels) * (8 * metrics.num_rows + 4 * values)


def drifts(
    invariants: Sequence[Invariant],
    channels: Sequence[str],
    known: Tensor,
    statistics: MemberStatistics,
    weights: Tensor | None,
) -> dict[str, tuple[Sequence[str], Tensor]]:
    """The mean over members of the drift of what is conserved, with the fields that hold it.

    Arguments:
        known: The last known state in physical units, with shape `(C, cells)`.
        weights: Those of the cells, with shape `(cells)`; None if all count the same.

    Returns:
        Metrics `drift_mass` and the like: names of fields, and values with shape `(fields, L)`.
    """
    found: dict[str, tuple[Sequence[str], Tensor]] = {}
    for invariant in invariants:
        numbers = [channels.index(name) for name in invariant.channels]
        means = statistics.means[:, numbers].to(known.device)
        moved = drift(known[numbers], means, spatial=1, weights=weights)
        found[f"drift_{invariant.name}"] = (invariant.channels, moved.mean(0))
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
        rollouts: Further metrics: the names of the fields that have them, and values `(fields, L)`.
        lead_times: Simulation steps since the last context state, with shape `(L,)`.

    Returns:
        Rows of the metrics table and of the second table.
    """
    place = _places(subject, channels, lead_times)
    metrics = [_table(METRICS_SCHEMA, place, name, {"value": _flat(x)}) for name, x in scores.metrics.items()]
    for metric, (fields, values) in rollouts.items():
        place_of_fields = _places(subject, fields, lead_times)
        metrics.append(_table(METRICS_SCHEMA, place_of_fields, metric, {"value": _flat(values)}))
    edges = scores.edges.double()
    spectra = []
    for metric, values in scores.spectra.items():
        numbered = metric in (RANKS, *BINNED)
        first, step = (0.0, 1.0) if numbered else (float(edges[0]), float(edges[-1] / len(edges)))
        rows, bins = values.shape[:-1].numel(), values.shape[-1]
        offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * bins)
        lists = pa.ListArray.from_arrays(offsets, _flat(values).astype(np.float32))
        more = {"coordinate": np.full(rows, first), "step": np.full(rows, step), "values": lists}
        spectra.append(_table(SPECTRA_SCHEMA, place, metric, more))
    return pa.concat_tables(metrics), pa.concat_tables(spectra)


def _places(subject: Subject, fields: Sequence[str], lead_times: np.ndarray) -> dict[str, Any]:
    """The key columns, the field and the lead time of values with shape `(fields, L)`."""
    axes = np.indices((len(fields), len(lead_times)), dtype=np.int32).reshape(2, -1)
    constant = np.zeros(axes.shape[1], np.int32)
    keys = {name: _choose(constant, [value]) for name, value in dataclasses.asdict(subject).items()}
    return keys | {"field": _choose(axes[0], fields), "lead_time": _choose(axes[1], lead_times)}


def _table(schema: pa.Schema, place: dict[str, Any], metric: str, values: dict[str, Any]) -> pa.Table:
    constant = np.zeros(len(place["field"]), np.int32)
    return pa.table(place | {"metric": _choose(constant, [metric])} | values, schema=schema)


def _flat(values: Tensor) -> np.ndarray:
    return values.flatten().cpu().numpy()


def convert_bins_to_lists(spectra: pa.Table) -> pa.Table:
    """Convert a spectra table of the old schema, one row per bin, to the present one, one row per list."""
    if "bin" not in spectra.column_names:
        return spectra
    spectra = spectra.unify_dictionaries().combine_chunks()
    starts = np.flatnonzero(spectra["bin"].to_numpy() == 0)
    # The numbers of a list follow each other, from bin 0
    ends = np.append(starts[1:], len(spectra))
    coordinate = spectra["coordinate"].to_numpy()
    first = coordinate[starts]
    step = (coordinate[ends - 1] - first) / np.maximum(1, ends - starts - 1)
    offsets = pa.array(np.append(starts, len(spectra)).astype(np.int32))
    lists = pa.ListArray.from_arrays(offsets, spectra["value"].combine_chunks().cast(pa.float32()))
    rows = spectra.take(pa.array(starts)).drop_columns(["bin", "coordinate", "value"])
    for name, column in (("coordinate", first), ("step", step), ("values", lists)):
        rows = rows.append_column(name, pa.array(column) if name != "values" else column)
    return rows.cast(SPECTRA_SCHEMA)


def _choose(index: np.ndarray, values: Sequence | np.ndarray) -> pa.Array | np.ndarray:
    """`values[index]`, as a dictionary where these are strings."""
    if isinstance(values[0], str):
        return pa.DictionaryArray.from_arrays(index, list(values))
    return np.asarray(values)[index]
