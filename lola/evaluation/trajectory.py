r"""Evaluation of one trajectory, of the test split or of the validation split.

From the states `x^1 ... x^K` of the context an emulator draws `M` members of `x^{K+1} ... x^L`, which are
decoded and scored in physical units, field by field, at lead times of simulation steps since `x^K`, against
the truth and against the auto-encoded truth `D(E(x))`. Baselines are scored in the same way: the autoencoder
alone; persistence, which holds `x^K`, or with an autoencoder `D(E(x^K))`; and climatology, an ensemble of
trajectories of the training data at the same times. Neither fields that are given, such as constants, nor
cells outside of the domain are scored.

Members are kept as the emulator draws them, latent; only as many states as are decoded at once are in memory
in physical units, and these are scored before the next are decoded.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from lola.core.errors import DataError, DivergedError
from lola.core.keys import numpy_generator
from lola.data.domain import inside
from lola.data.systems import System
from lola.data.transforms import Standardisation
from lola.data.well.splits import TrajectoryRef, WellSplit
from lola.emulation.emulator import Emulator, map_states
from lola.evaluation.climate import Climate
from lola.evaluation.evaluation_config import EvaluationConfig
from lola.evaluation.predicted import Predicted, climatology
from lola.evaluation.scores.conservation import conserved_quantities
from lola.evaluation.scores.ensemble import EPS, MemberStatistics
from lola.evaluation.scores.quadrature import Domain, GridAxis, grid_axes
from lola.evaluation.scores.rows import Subject, drifts, tabulate
from lola.evaluation.scores.stability import share_out_of_bounds, share_stable
from lola.evaluation.scoring import Truth, score_prediction
from lola.evaluation.tables.speed import clock
from lola.models.autoencoder import Autoencoder


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The scores of one trajectory from one start state.

    Arguments:
        metrics, spectra: Tidy tables.
        example: Predicted states `(members shown, C, L, *grid)` in physical units, NaN outside of the domain.
        moments: Mean and deviation of the ensemble, shape `(2, C, L, *grid)`, None of a single prediction.
        seconds: Seconds per emulated state, decoding included, with all members in one batch.
    """

    metrics: pa.Table
    spectra: pa.Table
    example: np.ndarray
    moments: np.ndarray | None
    seconds: float


@dataclasses.dataclass(frozen=True)
class Chosen:
    """What of a split is scored: the same for every subject.

    Arguments:
        parts: The number of the trajectory and the start state of each rollout, trajectory by trajectory.
        short: Pairs of trajectory and start that were drawn and left out, since no state is left after the
            context.
    """

    parts: tuple[tuple[int, int], ...]
    short: int

    @property
    def trajectories(self) -> list[int]:
        """The numbers of the trajectories."""
        return list(dict.fromkeys(index for index, _ in self.parts))


def choose_parts(split: WellSplit, config: EvaluationConfig) -> Chosen:
    """Draw the trajectories of a split that are scored, of those that go on after any start's context.

    Raises:
        DataError: There are none.
    """
    parts: list[tuple[int, int]] = []
    order = numpy_generator(config.seed, "evaluation").permutation(len(split.trajectories)).tolist()
    chosen = short = 0
    for index in order:
        steps = split.trajectories[index].steps
        own = [start for start in config.starts if config.states(steps, start) > config.context]
        short += len(config.starts) - len(own)
        parts += [(index, start) for start in own]
        chosen += bool(own)
        if chosen == config.trajectories:
            break
    if not parts:
        raise DataError(
            f"no {config.split} trajectory of {split.system.name} goes on after a context of "
            f"{config.context} states from state {min(config.starts)}, {config.stride} steps apart: the "
            f"longest has {split.steps} states; choose an earlier start, a shorter context or stride"
        )
    return Chosen(tuple(parts), short)


@torch.no_grad()
def evaluate_trajectory(
    config: EvaluationConfig,
    subject: Subject,
    split: WellSplit,
    index: int,
    start: int,
    *,
    autoencoder: Autoencoder | None,
    emulator: Emulator | None,
    training: WellSplit | None = None,
    climate: Climate | None = None,
) -> Evaluation:
    """Predict one trajectory from one start state and score it.

    Arguments:
        subject: The key columns; target, trajectory and start are filled in here.
        split: The split that the configuration names.
        index: The trajectory's number in the split.
        autoencoder: The latent space, if there is one.
        emulator: The emulator that makes the predictions, if any; on the device of the autoencoder.
        training: The training split, of climatology.
        climate: The mean of training states, without which there is no anomaly correlation.

    Raises:
        DataError: No state is left after the context, or coordinates give no quadrature weights.
        DivergedError: The autoencoder makes latents that are not finite. Rollouts may: their scores are not
            finite either, and count as lost.
    """
    trajectory = split.trajectories[index]
    if config.states(trajectory.steps, start) <= config.context:
        raise DataError(f"{trajectory.id} has no state left after a context from state {start}")
    space = _Space(split, autoencoder, config.chunk, _device(autoencoder, emulator))
    truth = split.read(index, start, trajectory.steps, config.stride)
    known, future = truth[:, config.context - 1], truth[:, config.context :]
    z = _encode(space, trajectory, truth)
    began = clock(space.device)
    if config.subject == "climatology":
        predicted = climatology(config, training, trajectory, start, future.shape[1])
    else:
        drawn = _predict(config, split, index, truth, z, emulator)
        predicted = Predicted(len(drawn), lambda times: space.decode(drawn[:, :, times]), space.device)
    seconds = clock(space.device) - began
    evolving = list(split.system.evolving)
    known, targets = known[evolving], {"truth": future[evolving]}
    if autoencoder is not None and emulator is not None:
        targets["autoencoded"] = space.decode(z[:, :, config.context :])[0][evolving]
    valid = inside(truth, split.system)
    valid = None if valid is None else valid[0, 0]
    eps = EPS * (space.standardise.variances() if config.eps == "relative" else torch.ones(len(truth)))
    axes = axes_of(split, trajectory) if config.geometry == "quadrature" else ()
    mean = None if climate is None else climate.at(start, config, future.shape[1], evolving)
    against = Truth(known, targets, mean, valid, axes, eps[evolving])
    scored = score_prediction(predicted, against, evolving, max(1, config.chunk // predicted.members))
    domain = Domain.of(truth, split.system.dimensions, axes, valid)
    cells = domain.cells(known), domain.cells(targets["truth"])
    subject = dataclasses.replace(subject, trajectory=trajectory.id, start=start, members=predicted.members)
    channels = [split.system.channels[number] for number in evolving]
    rollouts = _of_rollouts(split.system, trajectory, channels, *cells, scored.statistics, domain)
    place: dict[str, Any] = {
        "channels": channels,
        "lead_times": config.stride * np.arange(1, future.shape[1] + 1),
    }
    tables = [
        tabulate(dataclasses.replace(subject, target=name), scores, rollouts, **place)
        for name, scores in scored.scores.items()
    ]
    metrics, spectra = map(pa.concat_tables, zip(*tables, strict=True))
    return Evaluation(
        metrics=metrics,
        spectra=spectra,
        example=scored.example.numpy(),
        moments=None if scored.moments is None else scored.moments.numpy(),
        seconds=(seconds + scored.seconds) / (predicted.members * future.shape[1]),
    )


def axes_of(split: WellSplit, trajectory: TrajectoryRef) -> tuple[GridAxis, ...]:
    """How scores treat the axes of a trajectory's grid."""
    try:
        return grid_axes(split.geometry, split.coordinates, trajectory.boundary)
    except ValueError as error:
        raise DataError(
            f"the grid of {split.system.name} has no quadrature weights ({error}); correct the key geometry "
            "of its description, or choose --evaluation.geometry published"
        ) from error


def _encode(space: "_Space", trajectory: TrajectoryRef, truth: Tensor) -> Tensor:
    """The latents of true states, with shape `(1, C', L, *grid')`."""
    z = space.encode(truth[None])
    if not z.isfinite().all():
        raise DivergedError(
            f"{trajectory.id} ({trajectory.file}): its latents are not finite; the autoencoder has "
            "diverged, or a value of the trajectory is far out of range"
        )
    return z


def _of_rollouts(
    system: System,
    trajectory: TrajectoryRef,
    channels: Sequence[str],
    known: Tensor,
    future: Tensor,
    members: MemberStatistics,
    domain: Domain,
) -> dict[str, tuple[Sequence[str], Tensor]]:
    """Stability, conservation and bounds: names of fields, and values `(fields, L)`."""
    invariants = conserved_quantities(system, trajectory.boundary)
    return {
        "stability": (channels, share_stable(future, members)),
        **drifts(invariants, channels, known, members, domain.weights),
        **share_out_of_bounds(system.bounds, channels, members),
    }


def _predict(
    config: EvaluationConfig,
    split: WellSplit,
    index: int,
    truth: Tensor,
    z: Tensor,
    emulator: Emulator | None,
) -> Tensor:
    """All members of a trajectory after the context in the emulator's space, shape `(M, C, L - K, *grid)`."""
    if emulator is not None:
        return _roll_out(config, split, index, truth, z, emulator)
    if config.subject == "autoencoder":
        return z[:, :, config.context :]
    length = z.shape[2] - config.context
    return z[:, :, config.context - 1 : config.context].expand(-1, -1, length, *z.shape[3:])


def _roll_out(
    config: EvaluationConfig,
    split: WellSplit,
    index: int,
    truth: Tensor,
    z: Tensor,
    emulator: Emulator,
) -> Tensor:
    """All members of a trajectory after the context, shape `(M, C, L - K, *grid)`."""
    members = config.members if emulator.stochastic else 1
    context = z[:, :, : config.context].expand(members, *z.shape[1:2], -1, *z.shape[3:])
    parameters = split.parameters(index).expand(members, -1).to(z.device)
    identity = split.trajectories[index].id
    keys = [(config.seed, identity, member) for member in range(members)]
    observations = None
    if config.observed is not None and config.guidance is not None:
        # What is observed is in the units that this split is scored in
        emulator = dataclasses.replace(emulator, guidance=config.guidance, system=split.system)
        after = truth[:, config.context :]
        valid = inside(truth, split.system)
        observations = config.observed.observe(
            after,
            split.system.channels,
            identity,
            split.system.given,
            None if valid is None else valid[0, 0],
        )
    windows: Iterator[Tensor] = emulator.rollout(
        context,
        parameters,
        z.shape[2] - config.context,
        keys,
        overlap=config.overlap,
        observations=observations,
    )
    return torch.cat(list(windows), dim=2)


def _device(autoencoder: Autoencoder | None, emulator: Emulator | None) -> torch.device:
    models = (autoencoder, emulator.model if emulator else None)
    weights = (weight for model in models if model is not None for weight in model.parameters())
    return next((weight.device for weight in weights), torch.device("cpu"))


class _Space:
    """Physical states to the emulator's space and back: latent with an autoencoder, else standardised."""

    def __init__(
        self, split: WellSplit, autoencoder: Autoencoder | None, chunk: int, device: torch.device
    ) -> None:
        self.standardise, self.autoencoder = Standardisation(split.system), autoencoder
        self.chunk, self.device = chunk, device

    def encode(self, x: Tensor) -> Tensor:
        """`(M, C, L, *grid)` physical to `(M, C', L, *grid')`, on the device."""
        x = self.standardise.forward(x).to(self.device)
        return x if self.autoencoder is None else map_states(self.autoencoder.encode, x, self.chunk)

    def decode(self, z: Tensor) -> Tensor:
        """`(M, C', L, *grid')` to `(M, C, L, *grid)` physical."""
        x = z if self.autoencoder is None else map_states(self.autoencoder.decode, z, self.chunk)
        return self.standardise.inverse(x)
