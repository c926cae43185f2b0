r"""Which states of a window are known (Section 3.3, Eq. 14).

The number of known states is `c = 1 + (n mod (L - 1))` with `n ~ Poisson(1)`, so that at least one is known
and at least one is not. They open the window with probability `rho = 0.66`, else they close it:

    m = (1, ..., 1, 0, ..., 0)  or  (0, ..., 0, 1, ..., 1)

Forward masks are always of the first form, with the same numbers of known states.
"""

import torch
from torch import Tensor

from lola.core.config import require
from lola.core.seeding import SampleGenerator
from lola.models.emulator_config import Masks

RHO = 0.66


def check_window(window: int) -> None:
    """Raise `ConfigError` unless a window is long enough for a known and an unknown state."""
    require(window >= 2, f"a window needs at least 2 states, one known and one not; this one has {window}")


def draw_mask(states: Tensor, generator: SampleGenerator, masks: Masks = "published") -> Tensor:
    """Draw which states are known.

    Arguments:
        states: Windows of L states, with shape `(B, C, L, *grid)`.
        generator: One random stream per window.
        masks: The law of the masks; the streams go on alike after each.

    Returns:
        A mask that is True where a state is known, with shape `(B, 1, L, 1, ...)`.
    """
    window = states.shape[2]
    check_window(window)
    known = 1 + generator.poisson(1.0, 1) % (window - 1)
    forward = generator.uniform(1) < (RHO if masks == "published" else 1.0)
    position = torch.arange(window, device=known.device)
    mask = torch.where(forward, position < known, position >= window - known)
    return mask.reshape(len(mask), 1, window, *[1] * (states.ndim - 3))


def context_mask(states: Tensor, known: int, last: bool = False) -> Tensor:
    """The mask of windows whose first (or last) `known` states are known, with shape `(B, 1, L, 1, ...)`."""
    mask = torch.zeros(
        len(states), 1, states.shape[2], *[1] * (states.ndim - 3), dtype=torch.bool, device=states.device
    )
    mask[:, :, slice(-known, None) if last else slice(known)] = True
    return mask


def valid_mean(error: Tensor, valid: Tensor | None) -> Tensor:
    """The mean over samples of the mean over each one's elements in cells of the domain.

    Arguments:
        error: A number per element, with shape `(B, ...)`.
        valid: True in cells of the domain, with a shape that expands to that of `error`; None if all are.

    Returns:
        A scalar.
    """
    if valid is None:
        return error.mean()
    inside = valid.expand_as(error).flatten(1)
    return (torch.where(inside, error.flatten(1), 0).sum(dim=1) / inside.sum(dim=1)).mean()


def unknown_mean(error: Tensor, mask: Tensor, valid: Tensor | None = None) -> Tensor:
    """The mean over samples of the mean over each one's unknown elements.

    Arguments:
        error: A number per element, with shape `(B, C, L, *grid)`.
        mask: True where an element is known, with a shape that expands to that of `error`.
        valid: True in cells of the domain, likewise; others are left out. None if all are.

    Returns:
        A scalar.
    """
    if valid is not None:
        return valid_mean(error, valid & ~mask)
    unknown = ~mask.expand_as(error).flatten(1)
    return ((error.flatten(1) * unknown).sum(dim=1) / unknown.sum(dim=1)).mean()
