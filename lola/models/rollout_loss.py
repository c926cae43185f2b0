r"""Windows that follow each other as in a rollout, for objectives over several of them.

A rollout gives a model states that the model has made. With `L` the states of a window, the states of `R`
windows that share one with the next are `x_0 ... x_{S-1}`, `S = R (L - 1) + 1`, and window k = 0 ... R - 1 is

    x_{k (L - 1)} ... x_{(k + 1) (L - 1)}

The first is completed from the states that its mask leaves known, each other one from the last state of the
completed window before it, as rollouts with an overlap of 1 are. Where a mask leaves the last states known,
windows follow each other into the past: window k is `x_{S - 1 - (k + 1) (L - 1)} ... x_{S - 1 - k (L - 1)}`.
Windows before the last one are recomputed in the backward pass, so that activations of one window at a time
are in memory.
"""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lola.core.config import require
from lola.data.state import Batch
from lola.models.emulator_config import EmulatorConfig


@dataclasses.dataclass(frozen=True)
class CompletedWindow:
    """A window that counts in the objective.

    Arguments:
        estimate: What the network makes of it, float32 with shape `(B M, C, L, *grid)`, M rows per sample.
        truth: The states, with shape `(B, C, L, *grid)`.
        mask: True where a state was known, with shape `(B, 1, L, 1, ...)`.
        first: Whether the known states are the truth's.
    """

    estimate: Tensor
    truth: Tensor
    mask: Tensor
    first: bool


def complete_windows(
    complete: Callable[[Tensor, Tensor, int], Tensor],
    batch: Batch,
    mask: Tensor,
    config: EmulatorConfig,
    members: int = 1,
) -> list[CompletedWindow]:
    """Complete windows one after another.

    Arguments:
        complete: The network: states `(B M, C, L, *grid)`, of which only the known matter, a mask and the
            number of the window to the estimate of all states.
        batch: The states of all windows, S of each sample.
        mask: True where a state of the first window is known, with shape `(B, 1, L, 1, ...)`.
        config: How many windows there are, and which of them count.
        members: Rows of each sample, M, that continue each its own window.

    Raises:
        ConfigError: The batch has another number of states.
    """
    states, length, windows = batch.states, mask.shape[2], config.rollout_windows
    needed = config.training_states(length)
    require(
        states.shape[2] == needed,
        f"{windows} windows of {length} states need samples of {needed} states, not {states.shape[2]}",
    )
    forward = mask[:, :, :1]
    place = torch.arange(length, device=mask.device).reshape(length, *[1] * (mask.ndim - 3))
    known = truth = _window(states, forward, 0, length)
    if members > 1:
        known = known.repeat_interleave(members, dim=0)
    completed: list[CompletedWindow] = []
    for number in range(windows):
        rows = mask.repeat_interleave(members, dim=0) if members > 1 else mask
        last = number == windows - 1
        counts = last or config.rollout_gradient == "all"
        with torch.set_grad_enabled(torch.is_grad_enabled() and counts):
            if torch.is_grad_enabled() and not last:
                estimate = checkpoint(complete, known, rows, number, use_reentrant=False)
            else:
                estimate = complete(known, rows, number)
        if not counts:
            torch.clear_autocast_cache()  # of weights without gradients, which the next window would use
        else:
            completed.append(CompletedWindow(estimate, truth, mask, number == 0))
        if not last:
            known = _last_state(estimate, truth, forward, batch.valid, members).expand_as(known)
            mask = torch.where(forward, place == 0, place == length - 1)
            truth = _window(states, forward, number + 1, length)
    return completed


def _window(states: Tensor, forward: Tensor, number: int, length: int) -> Tensor:
    """The states of a window `(B, C, L, *grid)`."""
    first, count = number * (length - 1), states.shape[2]
    ahead = states[:, :, first : first + length]
    return ahead if count == length else torch.where(
        forward, ahead, states[:, :, count - first - length : count - first]
    )  # fmt: skip


def _last_state(
    estimate: Tensor, truth: Tensor, forward: Tensor, valid: Tensor | None, members: int
) -> Tensor:
    """The state that a completed window ends with, `(B M, C, 1, *grid)`, the truth outside of the domain."""
    ends = []
    for window in (estimate.unflatten(0, (-1, members)), truth[:, None]):
        ends.append(torch.where(forward[:, None], window[:, :, :, -1:], window[:, :, :, :1]))
    end, true = ends
    if valid is not None:
        end = torch.where(valid[:, None], end, true)
    return end.flatten(0, 1)
