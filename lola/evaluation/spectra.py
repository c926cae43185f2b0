r"""Isotropic power spectra of fields and their relative error (paper, Section 3.5).

A field u on a grid of N points has the unitary Fourier coefficients U(k), at wavenumbers k in cycles per
pixel. With k_max the largest |k| of the grid, n = floor(k_max min(grid)) bins share (0, k_max], the i-th
being ((i - 1) k_max / n, i k_max / n], and

    P_u(k_i) = mean of |U(k)|^2 over the modes k of bin i,    k_i = i k_max / n;

the mean of the field, k = 0, is left out. White noise of unit variance has P = 1 in every bin. For an
ensemble v_1, ..., v_M and a band B of bins,

    RMSE_B = sqrt mean_{k_i in B} ( mean_m (P_{v_m}(k_i) + eps) / (P_u(k_i) + eps) - 1 )^2.

The edges of the bands low, mid and high are spaced evenly in log k from k_1 to 1/2; the tail is what lies
beyond 1/2, in the corners of the Fourier grid, where only diagonal waves live.
"""

import functools
import math

import torch
from torch import Tensor

EPS = 1e-6
BANDS = ("low", "mid", "high", "tail")


def power_spectrum(field: Tensor, *, spatial: int) -> tuple[Tensor, Tensor]:
    """The isotropic power spectrum of a field, vectorised over its leading axes.

    Arguments:
        field: A real field u with shape `(..., *grid)`, of any unit.
        spatial: The number of grid axes.

    Returns:
        The power P_u in the squared unit of the field, with shape `(..., n)`, and the upper edges k_i of
        the bins in cycles per pixel, with shape `(n,)`.
    """
    grid = tuple(field.shape[-spatial:])
    bins, weights, wavenumbers = _bins(grid)
    power = torch.fft.rfftn(field, dim=tuple(range(-spatial, 0)), norm="ortho").abs().square()
    modes = power.flatten(0, -spatial - 1) if field.ndim > spatial else power[None]
    modes = modes.flatten(1) * weights.to(modes)
    total = modes.new_zeros(len(modes), len(wavenumbers) + 1).index_add_(1, bins.to(modes.device), modes)
    return total[:, 1:].unflatten(0, field.shape[:-spatial] or (1,)).reshape(
        *field.shape[:-spatial], len(wavenumbers)
    ), wavenumbers.to(modes)


def spectrum_rmse(truth: Tensor, members: Tensor, *, spatial: int) -> dict[str, Tensor]:
    """The error of the ensemble's mean power relative to the truth's, by band, without unit.

    Arguments:
        truth: The true field u, with shape `(..., *grid)`.
        members: The ensemble, with shape `(M, ..., *grid)`.
        spatial: The number of grid axes.

    Returns:
        The error with shape `(...)` for each of low, mid, high and tail. A band without a bin, as grids
        below 8 points have, gives NaN.
    """
    power, wavenumbers = power_spectrum(truth, spatial=spatial)
    return relative_rmse(power, power_spectrum(members, spatial=spatial)[0], wavenumbers)
