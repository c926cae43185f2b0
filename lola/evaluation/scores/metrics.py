r"""Point-wise and ensemble metrics of emulated fields (paper, Eqs. 9 to 13), and all others by one name.

For a true field u and a prediction v, with <.> the mean over the grid and Var the variance over the
grid with Bessel's correction,

    RMSE(u, v)  = sqrt <(u - v)^2>
    NRMSE(u, v) = sqrt( <(u - v)^2> / (<u^2> + eps) )
    VRMSE(u, v) = sqrt( <(u - v)^2> / (Var[u] + eps) )                                           (9)

For an ensemble v_1, ..., v_M with mean v,

    Skill  = sqrt <(u - v)^2>                                                                   (11)
    Spread = sqrt( (M + 1) / (M - 1) ) sqrt < 1/M sum_m (v_m - v)^2 >                            (12)

If truth and members are exchangeable, Skill and Spread are equal in expectation of their squares
(Eqs. 10 and 13). The factor (M + 1) / (M - 1), which corrects for the finite ensemble, is applied here,
once: the ratio Spread / Skill needs no other, and squares are averaged over trajectories before dividing.

A rollout is stable until time t if its field has been finite, and within [a - (b - a), b + (b - a)], at every
time up to t, where [a, b] is the range of the true field over all times.

Everything is vectorised over the leading axes, which broadcast.
"""

from torch import Tensor

from lola.core.errors import DataError
from lola.evaluation.scores.distribution import crps, rank_histogram
from lola.evaluation.scores.spectra import coherence, power_spectrum, spectrum_rmse

__all__ = [
    "coherence",
    "crps",
    "nrmse",
    "power_spectrum",
    "rank_histogram",
    "rmse",
    "skill",
    "spectrum_rmse",
    "spread",
    "spread_skill_ratio",
    "stability",
    "vrmse",
]

EPS = 1e-6


def rmse(truth: Tensor, prediction: Tensor, *, spatial: int) -> Tensor:
    """Root mean squared error, in the unit of the field.

    Arguments:
        truth, prediction: Fields u and v with shape `(..., *grid)`.
        spatial: The number of grid axes.

    Returns:
        The error, with shape `(...)`.
    """
    return (truth - prediction).square().mean(_grid(spatial)).sqrt()


def nrmse(truth: Tensor, prediction: Tensor, *, spatial: int) -> Tensor:
    """Root mean squared error over the root mean square of the truth, without unit; shapes as `rmse`."""
    scale = truth.square().mean(_grid(spatial))
    return ((truth - prediction).square().mean(_grid(spatial)) / (scale + EPS)).sqrt()


def vrmse(truth: Tensor, prediction: Tensor, *, spatial: int) -> Tensor:
    """Root mean squared error over the truth's deviation, without unit (Eq. 9); shapes as `rmse`.

    The best constant field scores 1.
    """
    variance = truth.var(_grid(spatial), correction=1)
    return ((truth - prediction).square().mean(_grid(spatial)) / (variance + EPS)).sqrt()


def skill(truth: Tensor, members: Tensor, *, spatial: int) -> Tensor:
    """Root mean squared error of the ensemble's mean, in the unit of the field (Eq. 11).

    Arguments:
        truth: The true field u, with shape `(..., *grid)`.
        members: The ensemble, with shape `(M, ..., *grid)`.
        spatial: The number of grid axes.

    Returns:
        The skill, with shape `(...)`.
    """
    return rmse(truth, members.mean(0), spatial=spatial)


def spread(members: Tensor, *, spatial: int) -> Tensor:
    """Corrected deviation of the ensemble, in the unit of the field (Eq. 12).

    Arguments:
        members: The ensemble, with shape `(M, ..., *grid)`.
        spatial: The number of grid axes.

    Returns:
        The spread, with shape `(...)`.

    Raises:
        DataError: The ensemble has less than two members.
    """
    count = len(members)
    if count < 2:
        raise DataError(f"a spread needs 2 members or more, not {count}")
    variance = members.var(0, correction=0).mean(_grid(spatial))
    return ((count + 1) / (count - 1) * variance).sqrt()


def spread_skill_ratio(truth: Tensor, members: Tensor, *, spatial: int) -> Tensor:
    """Corrected spread over skill, 1 for a perfect forecast (Eq. 13); shapes and errors as `skill`, `spread`.

    Below 1 the ensemble is too sure of itself, above 1 it is too wide. A skill of zero gives infinity.
    """
    return spread(members, spatial=spatial) / skill(truth, members, spatial=spatial)


def stability(truth: Tensor, members: Tensor, *, spatial: int) -> Tensor:
    """The share of rollouts that have stayed finite and in range until each time.

    Arguments:
        truth: The true field u, with shape `(..., L, *grid)`, times before the grid.
        members: The rollouts, with shape `(M, ..., L, *grid)`.
        spatial: The number of grid axes.

    Returns:
        The share, from 0 to 1, with shape `(..., L)`.
    """
    low, high = (values.unsqueeze(-1) for values in truth.flatten(-spatial - 1).aminmax(dim=-1))
    smallest, largest = members.amin(_grid(spatial)), members.amax(_grid(spatial))
    return stays_within(smallest, largest, low, high).double().mean(0)


def stays_within(smallest: Tensor, largest: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Whether extremes over the grid have been within thrice a range at all times, the last axis, so far.

    Arguments:
        smallest, largest: Extremes of the field, with shape `(..., L)`; NaN is out of any range.
        low, high: The range of the truth, which broadcasts.
    """
    width = high - low
    inside = (smallest >= low - width) & (largest <= high + width)
    return inside.cumprod(-1).bool()


def _grid(spatial: int) -> tuple[int, ...]:
    return tuple(range(-spatial, 0))
