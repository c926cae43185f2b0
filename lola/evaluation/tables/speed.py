"""What methods cost: their speed, as the paper's Table 1, and their training."""

import dataclasses
import time
from collections.abc import Sequence

import pandas as pd
import torch

from lola.evaluation.tables.lead_times import model_titles
from lola.evaluation.tables.paper import SECONDS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds per state of a method, and of its training.

    Arguments:
        model: `simulator`, with which the others are compared, or the `model` of the tidy tables.
        seconds: Seconds per state of one member, decoding included: of a batch of all, its share.
        members: Size of the batch, which is the ensemble.
        space: `latent` or `pixel`.
        compression: Its compression rate, if it works in latent space.
        solver_steps: Steps of its sampler, if it has one.
        guided: Whether it assimilates observations.
        training: Seconds of training steps, those of the models that it started from included, if known.
        autoencoder: Those of its autoencoder, if it has one and they are known.
    """

    model: str
    seconds: float
    members: int = 1
    space: str = "pixel"
    compression: float | None = None
    solver_steps: int = 0
    guided: bool = False
    training: float | None = None
    autoencoder: float | None = None

    @property
    def ensemble(self) -> float:
        """Seconds per state of all members."""
        return self.members * self.seconds


def speed_table(timings: Sequence[Timing], system: str) -> pd.DataFrame:
    """A row of strings per method; the paper's seconds are those of Euler on one A100.

    Gains are the simulator's time over the method's, where the simulator's is known.
    """
    base = next((timing.seconds for timing in timings if timing.model == "simulator"), None)
    printed = SECONDS if system == "euler" else {}
    return pd.DataFrame(
        {
            "method": model_titles().get(timing.model, timing.model.capitalize())
            + (", guided" if timing.guided else ""),
            "space": timing.space,
            "rate": f"{timing.compression:.4g}" if timing.compression else "–",
            "steps": str(timing.solver_steps or "–"),
            "members": str(timing.members),
            "all members": show_seconds(timing.ensemble),
            "gain": f"{base / timing.ensemble:.3g}×" if base else "–",
            "each member": show_seconds(timing.seconds),
            "paper, A100": show_seconds(None if timing.guided else printed.get((timing.model, timing.space))),
        }
        for timing in timings
    )


def show_seconds(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def clock(device: torch.device) -> float:
    """Seconds of a clock, read when a device has done all that it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
