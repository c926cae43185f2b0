"""Scores of one trajectory as rows of the tidy tables."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from torch import Tensor

from lola.emulation import Weights
from lola.evaluation.metrics import rmse, spread, vrmse
from lola.evaluation.spectra import power_spectrum, relative_rmse


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

    A prediction that is not finite keeps its rows, whose values are not finite either. An ensemble of one
    has no spread.

    Arguments:
        subject: The key columns.
        truth: The target in physical units, with shape `(C, L, *grid)`.
        members: The ensemble in physical units, with shape `(M, C, L, *grid)`.
        channels: The names of the fields.
        lead_times: Simulation steps since the last context state, with shape `(L,)`.

    Returns:
        Rows of the metrics table, and of the spectra table with the power of truth and prediction.
    """
    spatial = truth.ndim - 2
    truth, members = truth.double(), members.double()
    mean = members.mean(0)
    power, edges = power_spectrum(truth, spatial=spatial)
    predicted = power_spectrum(members, spatial=spatial)[0].mean(0)
    values = {
        "vrmse": vrmse(truth, mean, spatial=spatial),
        "vrmse_member": vrmse(truth, members, spatial=spatial).mean(0),
        "skill": rmse(truth, mean, spatial=spatial),
    }
    if len(members) > 1:
        values["spread"] = spread(members, spatial=spatial)
    errors = relative_rmse(power, predicted, edges)
    values |= {f"spectrum_rmse_{band}": error for band, error in errors.items() if band != "tail"}
    metrics = _table(subject, METRICS_SCHEMA, values, channels, lead_times, {})
    bins = {"bin": np.arange(len(edges)), "coordinate": edges.numpy()}
    spectra = {"power_truth": power, "power_prediction": predicted}
    return metrics, _table(subject, SPECTRA_SCHEMA, spectra, channels, lead_times, bins)


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
