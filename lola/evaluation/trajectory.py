r"""Evaluation of one trajectory, of the test split or of the validation split.

From the states `x^1 ... x^K` of the context an emulator draws `M` members of `x^{K+1} ... x^L`, which are
decoded and scored in physical units, field by field, at lead times of simulation steps since `x^K`, against
the truth and against the auto-encoded truth `D(E(x))`. The autoencoder alone and persistence, which holds
`x^K`, are scored in the same way. Neither fields that are given, such as constants, nor cells outside of the
domain are scored.

Members are kept as the emulator draws them, latent; only as many states as are decoded at once are in memory
in physical units, and these are scored before the next are decoded.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from lola.core.errors import DataError, DivergedError
from lola.core.keys import numpy_generator
from lola.data.domain import inside
from lola.data.transforms import Standardisation
from lola.data.well.splits import WellSplit
from lola.emulation.emulator import Emulator, map_states
from lola.evaluation.evaluation_config import EvaluationConfig
from lola.evaluation.scores.conservation import conserved_quantities
from lola.evaluation.scores.ensemble import (
    MemberStatistics,
    Scores,
    join_scores,
    join_statistics,
    score_ensemble,
)
from lola.evaluation.scores.rows import Subject, drifts, tabulate
from lola.evaluation.scores.stability import share_out_of_bounds, share_stable
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
) -> Evaluation:
    """Predict one trajectory from one start state and score it.

    Arguments:
        subject: The key columns; target, trajectory and start are filled in here.
        split: The split that the configuration names.
        index: The trajectory's number in the split.
        autoencoder: The latent space, if there is one.
        emulator: The emulator that makes the predictions, if any; on the device of the autoencoder.

    Raises:
        DataError: No state is left after the context.
        DivergedError: The autoencoder makes latents that are not finite. Rollouts may: their scores are not
            finite either, and count as lost.
    """
    trajectory = split.trajectories[index]
    if config.states(trajectory.steps, start) <= config.context:
        raise DataError(f"{trajectory.id} has no state left after a context from state {start}")
    space = _Space(split, autoencoder, config.chunk, _device(autoencoder, emulator))
    truth = split.read(index, start, trajectory.steps, config.stride)
    known, future = truth[:, config.context - 1], truth[:, config.context :]
    z = space.encode(truth[None])
    if not z.isfinite().all():
        raise DivergedError(
            f"{trajectory.id} ({trajectory.file}): its latents are not finite; the autoencoder has "
            "diverged, or a value of the trajectory is far out of range"
        )
    began = clock(space.device)
    if emulator is not None:
        drawn = _roll_out(config, split, index, truth, z, emulator)
    elif config.subject == "autoencoder":
        drawn = z[:, :, config.context :]
    else:
        drawn = z[:, :, config.context - 1 : config.context].expand(1, -1, future.shape[1], *split.grid)
    seconds = clock(space.device) - began
    twice = autoencoder is not None and emulator is not None
    target = space.decode(z[:, :, config.context :])[0] if twice else None
    evolving = list(split.system.evolving)
    targets = {"truth": future} | ({} if target is None else {"autoencoded": target})
    valid = inside(truth, split.system)
    valid = None if valid is None else valid[0, 0]
    scored = _score(space, drawn, {name: each[evolving] for name, each in targets.items()}, evolving, valid)
    if valid is not None:  # from here on, of the domain's cells alone
        future, known = future[..., valid], known[..., valid]
    subject = dataclasses.replace(subject, trajectory=trajectory.id, start=start, members=len(drawn))
    channels = [split.system.channels[number] for number in evolving]
    rollouts: dict[str, tuple[Sequence[str], Tensor]] = {
        "stability": (channels, share_stable(future[evolving], scored.statistics))
    }
    invariants = conserved_quantities(split.system, trajectory.boundary)
    rollouts |= drifts(invariants, channels, known[evolving], scored.statistics)
    rollouts |= share_out_of_bounds(split.system.bounds, channels, scored.statistics)
    tables = [
        tabulate(
            dataclasses.replace(subject, target=name),
            scores,
            rollouts,
            channels=channels,
            lead_times=config.stride * np.arange(1, future.shape[1] + 1),
        )
        for name, scores in scored.scores.items()
    ]
    return Evaluation(
        metrics=pa.concat_tables([metrics for metrics, _ in tables]),
        spectra=pa.concat_tables([spectra for _, spectra in tables]),
        example=scored.example.numpy(),
        moments=None if scored.moments is None else scored.moments.numpy(),
        seconds=(seconds + scored.seconds) / (len(drawn) * future.shape[1]),
    )


@dataclasses.dataclass(frozen=True)
class _Scored:
    """Scores by target, statistics of the members, two of them, their moments, seconds of decoding."""

    scores: dict[str, Scores]
    statistics: MemberStatistics
    example: Tensor
    moments: Tensor | None
    seconds: float


def _score(
    space: "_Space",
    drawn: Tensor,
    targets: dict[str, Tensor],
    evolving: Sequence[int],
    valid: Tensor | None,
) -> _Scored:
    """Decode all members and score their channels that evolve, which targets have alone, in valid cells.

    Scored at once are `space.chunk` states, or all members of one lead time.
    """
    seconds = 0.0
    parts: dict[str, list[Scores]] = {name: [] for name in targets}
    statistics, examples, moments = [], [], []
    step = max(1, space.chunk // len(drawn))
    for first in range(0, drawn.shape[2], step):
        times = slice(first, first + step)
        began = clock(space.device)
        with np.errstate(over="ignore"):  # a rollout that has blown up
            members = space.decode(drawn[:, :, times])
        examples.append(blank(members[:2].cpu(), valid))
        ensemble = torch.stack([members.mean(0), members.std(0, correction=0)])
        moments.append(blank(ensemble.cpu(), valid))
        seconds += clock(space.device) - began
        states = {name: target[:, times].to(members) for name, target in targets.items()}
        if len(evolving) < members.shape[1]:
            members = members[:, evolving]
        cells = None if valid is None else valid.to(members.device)
        scores, own = score_ensemble(states, members, spatial=members.ndim - 3, valid=cells)
        statistics.append(own)
        for name, part in scores.items():
            parts[name].append(part)
    joined = {name: join_scores(part, 1) for name, part in parts.items()}
    both = torch.cat(moments, 2) if len(drawn) > 1 else None
    return _Scored(joined, join_statistics(statistics), torch.cat(examples, 2), both, seconds)


def blank(states: Tensor, valid: Tensor | None) -> Tensor:
    """States `(..., *grid)` as pictures show them: NaN where `valid`, `(*grid)`, is False, if it is given."""
    return states if valid is None else torch.where(valid, states, torch.nan)


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
