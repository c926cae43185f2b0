r"""Evaluation of one test trajectory.

From the states `x^1 ... x^K` of the context an emulator draws `M` members of `x^{K+1} ... x^L`, which are
decoded and scored in physical units, field by field, at lead times of simulation steps since `x^K`, against
the truth and against the auto-encoded truth `D(E(x))`. The autoencoder alone and persistence, which holds
`x^K`, are scored alike.
"""

import dataclasses
import time
from collections.abc import Iterator
from typing import Literal

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from lola.autoencoder import Autoencoder
from lola.config import Config, how, require
from lola.data.transforms import Standardisation
from lola.data.well import WellSplit
from lola.emulation import Emulator, Weights, map_states
from lola.errors import DataError
from lola.evaluation.score import Subject, score
from lola.sampling import SamplerConfig
from lola.seeding import numpy_generator


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationConfig(Config):
    """What is scored, and how.

    Arguments:
        subject: What makes the predictions.
        weights: The subject's weights: those trained, or their moving average.
        sampler: How a diffusion model is sampled.
        members: Size of the ensemble of a diffusion model; deterministic predictions have one member.
        trajectories: Test trajectories, drawn without repeats.
        start: First state of the context.
        context: Known states.
        overlap: States that a window shares with the one before.
        stride: Simulation steps between states.
        seed: Seeds the choice of trajectories and the members.
        chunk: States decoded at once.
    """

    subject: Literal["emulator", "autoencoder", "persistence"] = "emulator"
    weights: Weights = "raw"
    sampler: SamplerConfig | None = None
    members: int = 16
    trajectories: int = 64
    start: int = 0
    context: int = 1
    overlap: int = 1
    stride: int = 4
    seed: int = 0
    chunk: int = how(64)

    def validate(self) -> None:
        require(self.members > 0, f"an ensemble needs at least one member, not {self.members}")
        require(self.trajectories > 0, f"at least one test trajectory is needed, not {self.trajectories}")
        require(self.context > 0, f"at least one state must be known, not {self.context}")
        require(self.start >= 0, f"the start state must not be negative, not {self.start}")


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The scores of one trajectory.

    Arguments:
        metrics, spectra: Tidy tables.
        example: Predicted states `(members shown, C, L, *grid)` in physical units.
        moments: Mean and deviation of the ensemble, shape `(2, C, L, *grid)`, None of a single prediction.
        seconds: Seconds per emulated state, decoding included, with all members in one batch.
    """

    metrics: pa.Table
    spectra: pa.Table
    example: np.ndarray
    moments: np.ndarray | None
    seconds: float


def choose_trajectories(split: WellSplit, config: EvaluationConfig) -> list[int]:
    """The test trajectories that are scored: the same for every subject."""
    order = numpy_generator(config.seed, "evaluation").permutation(len(split.trajectories))
    return [int(index) for index in order[: config.trajectories]]


@torch.inference_mode()
def evaluate_trajectory(
    config: EvaluationConfig,
    subject: Subject,
    split: WellSplit,
    index: int,
    *,
    autoencoder: Autoencoder | None,
    emulator: Emulator | None,
) -> Evaluation:
    """Predict one trajectory and score it.

    Arguments:
        config: What is scored.
        subject: The key columns; target, trajectory and start are filled in here.
        split: The test split.
        index: The trajectory's number in the split.
        autoencoder: The latent space, if there is one.
        emulator: What makes the predictions, if it is an emulator.
    """
    truth = split.read(index, config.start, split.steps, config.stride)
    lead = truth.shape[1] - config.context
    if lead < 1:
        raise DataError(f"{split.trajectories[index].id} has no state left after the context")
    space = _Space(split, autoencoder, config.chunk)
    began = time.perf_counter()
    if emulator is not None:
        predicted = space.decode(_roll_out(config, split, index, space.encode(truth[None]), emulator))
    elif config.subject == "autoencoder":
        predicted = space.decode(space.encode(truth[None]))[:, :, config.context :]
    else:
        predicted = truth[None, :, config.context - 1 : config.context].expand(1, -1, lead, *split.grid)
    seconds = (time.perf_counter() - began) / (len(predicted) * lead)
    targets = {"truth": truth[:, config.context :]}
    if autoencoder is not None and emulator is not None:
        targets["autoencoded"] = space.decode(space.encode(truth[None]))[0, :, config.context :]
    subject = dataclasses.replace(
        subject, trajectory=split.trajectories[index].id, start=config.start, members=len(predicted)
    )
    times = config.stride * np.arange(1, lead + 1)
    tables = [
        score(
            dataclasses.replace(subject, target=target),
            states,
            predicted,
            channels=split.system.channels,
            lead_times=times,
        )
        for target, states in targets.items()
    ]
    return Evaluation(
        metrics=pa.concat_tables([metrics for metrics, _ in tables]),
        spectra=pa.concat_tables([spectra for _, spectra in tables]),
        example=predicted[:2].numpy(),
        moments=_moments(predicted),
        seconds=seconds,
    )


def _moments(members: Tensor) -> np.ndarray | None:
    """Mean and (uncorrected) deviation of an ensemble with shape `(M, C, L, *grid)`."""
    if len(members) < 2:
        return None
    return torch.stack([members.mean(0), members.std(0, correction=0)]).numpy()


def _roll_out(
    config: EvaluationConfig, split: WellSplit, index: int, z: Tensor, emulator: Emulator
) -> Tensor:
    """All members of a trajectory after the context, shape `(M, C, L - K, *grid)`."""
    members = config.members if emulator.stochastic else 1
    context = z[:, :, : config.context].expand(members, *z.shape[1:2], -1, *z.shape[3:])
    parameters = split.parameters(index).expand(members, -1)
    identity = split.trajectories[index].id
    keys = [(config.seed, identity, member) for member in range(members)]
    windows: Iterator[Tensor] = emulator.rollout(
        context, parameters, z.shape[2] - config.context, keys, overlap=config.overlap
    )
    return torch.cat(list(windows), dim=2)


class _Space:
    """Physical states to the emulator's space and back: latent with an autoencoder, else standardised."""

    def __init__(self, split: WellSplit, autoencoder: Autoencoder | None, chunk: int) -> None:
        self.standardise, self.autoencoder, self.chunk = Standardisation(split.system), autoencoder, chunk

    def encode(self, x: Tensor) -> Tensor:
        """`(M, C, L, *grid)` physical to `(M, C', L, *grid')`."""
        x = self.standardise.forward(x)
        return x if self.autoencoder is None else map_states(self.autoencoder.encode, x, self.chunk)

    def decode(self, z: Tensor) -> Tensor:
        """`(M, C', L, *grid')` to `(M, C, L, *grid)` physical."""
        x = z if self.autoencoder is None else map_states(self.autoencoder.decode, z, self.chunk)
        return self.standardise.inverse(x)
