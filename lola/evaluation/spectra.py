r"""Isotropic power spectra of fields and their relative error (paper, Section 3.5).

A field u on a grid of N points has the unitary Fourier coefficients U(k), at wavenumbers k in cycles per
pixel, each component at most 1/2. With k_max = sqrt(d) / 2 the corner of the Fourier grid in d dimensions,
n = floor(k_max min(grid)) bins share (0, k_max], the i-th being ((i - 1) k_max / n, i k_max / n], and

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
    bins, weights, edges = _bins(tuple(field.shape[-spatial:]))
    coefficients = torch.fft.rfftn(field, dim=tuple(range(-spatial, 0)), norm="ortho")
    modes = coefficients.abs().square().flatten(-spatial) * weights.to(coefficients.real)
    power = modes.new_zeros(*modes.shape[:-1], len(edges) + 1).index_add_(-1, bins.to(modes.device), modes)
    return power[..., 1:], edges.to(modes)


def spectrum_rmse(truth: Tensor, members: Tensor, *, spatial: int) -> dict[str, Tensor]:
    """The error of the ensemble's mean power relative to the truth's, by band, without unit.

    Arguments:
        truth: The true field u, with shape `(..., *grid)`.
        members: The ensemble, with shape `(M, ..., *grid)`.
        spatial: The number of grid axes.

    Returns:
        The error with shape `(...)` for each of low, mid, high and tail. A band without a bin, as coarse
        grids have, gives NaN.
    """
    power, edges = power_spectrum(truth, spatial=spatial)
    return relative_rmse(power, power_spectrum(members, spatial=spatial)[0].mean(0), edges)


def relative_rmse(truth: Tensor, prediction: Tensor, edges: Tensor) -> dict[str, Tensor]:
    """The root mean square of the relative error of a spectrum, by band.

    Arguments:
        truth, prediction: Power with shape `(..., n)`.
        edges: The bins' upper edges in cycles per pixel, with shape `(n,)`.

    Returns:
        The error with shape `(...)` for each of low, mid, high and tail.
    """
    error = ((prediction + EPS) / (truth + EPS) - 1).square()
    limits = torch.tensor(band_limits(float(edges[0])), dtype=torch.float64)
    band = torch.bucketize(edges.double().cpu() * (1 + 1e-6), limits) - 1
    return {name: error[..., (band == i).to(error.device)].mean(-1).sqrt() for i, name in enumerate(BANDS)}


def band_limits(lowest: float) -> list[float]:
    """Where low, mid, high and tail begin, in cycles per pixel, given the lowest bin k_1."""
    return [lowest ** (1 - i / 3) * 0.5 ** (i / 3) for i in range(4)]


@functools.cache
def _bins(grid: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """The bin and the weight of every mode of the half spectrum, and the bins' upper edges.

    Modes that stand for themselves and their conjugate count twice. Bin 0 holds the mean.
    """
    axes = [torch.fft.fftfreq(size, dtype=torch.float64) for size in grid[:-1]]
    axes.append(torch.fft.rfftfreq(grid[-1], dtype=torch.float64))
    squares = [axis.square() for axis in torch.meshgrid(*axes, indexing="ij")]
    k = torch.stack(squares).sum(0).sqrt().flatten()
    k_max = 0.5 * math.sqrt(len(grid))
    n = int(k_max * min(grid))
    # A mode on an edge belongs to the lower bin, whatever its rounding.
    bins = (k / k_max * n * (1 - 1e-9)).ceil().long()
    last = torch.arange(grid[-1] // 2 + 1)
    own = (last == 0) | (2 * last == grid[-1])
    count = torch.where(own, 1.0, 2.0).double().expand(*grid[:-1], -1).flatten()
    total = torch.zeros(n + 1, dtype=torch.float64).index_add_(0, bins, count)
    return bins, count / total[bins], k_max / n * torch.arange(1, n + 1, dtype=torch.float64)
