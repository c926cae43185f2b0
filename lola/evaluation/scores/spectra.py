r"""Isotropic power spectra of fields, their relative error (paper, Section 3.5), and coherence.

A field u on a grid of N points has the unitary Fourier coefficients U(k), at wavenumbers k in cycles per
pixel, each component at most 1/2. With k_max = sqrt(d) / 2 the corner of the Fourier grid in d dimensions,
n = floor(k_max min(grid)) bins share (0, k_max], the i-th being ((i - 1) k_max / n, i k_max / n], and

    P_u(k_i) = mean of |U(k)|^2 over the modes k of bin i,    k_i = i k_max / n;

the mean of the field, k = 0, is left out. White noise of unit variance has P = 1 in every bin. For an
ensemble v_1, ..., v_M and a band B of bins,

    RMSE_B = sqrt mean_{k_i in B} ( mean_m (P_{v_m}(k_i) + eps) / (P_u(k_i) + eps) - 1 )^2.

The edges of the bands low, mid and high are spaced evenly in log k from k_1 to 1/2; the tail is what lies
beyond 1/2, in the corners of the Fourier grid, where only diagonal waves live.

The coherence of an ensemble with the truth takes the modulus after averaging over modes and members,

    C(k_i) = | mean_{k in i, m} U(k) V_m(k)* | / sqrt( P_u(k_i) mean_m P_{v_m}(k_i) ),

so that members with the truth's power but phases of their own have none, but for the noise of the average:
the modulus of every mode before it, which drops the phases, would call them perfect.
"""

import dataclasses
import functools
import math

import torch
from torch import Tensor

EPS = 1e-6
BANDS = ("low", "mid", "high", "tail")


def cross(binning: "Binning", u: Tensor, v: Tensor) -> Tensor:
    """The modulus of the mean of U V* over each bin, given half spectra, with shape `(..., n)`.

    A mode and its conjugate are in the same bin, so that the imaginary parts cancel.
    """
    return binning.mean((torch.view_as_real(u) * torch.view_as_real(v)).sum(-1)).abs()


def fourier(field: Tensor, spatial: int) -> Tensor:
    """The unitary Fourier coefficients of a real field, half of the last axis."""
    return torch.fft.rfftn(field, dim=tuple(range(-spatial, 0)), norm="ortho")


def square(coefficients: Tensor) -> Tensor:
    """The squared modulus of complex numbers."""
    return torch.view_as_real(coefficients).square().sum(-1)


def relative_rmse(
    truth: Tensor, prediction: Tensor, edges: Tensor, eps: Tensor | float = EPS
) -> dict[str, Tensor]:
    """The root mean square of the relative error of a spectrum, by band.

    Arguments:
        truth, prediction: Power with shape `(..., n)`.
        edges: The bins' upper edges in cycles per pixel, with shape `(n,)`.
        eps: What is added to the power, with shape `(...)` or `()`.

    Returns:
        The error with shape `(...)` for each of low, mid, high and tail.
    """
    eps = torch.as_tensor(eps).to(truth).unsqueeze(-1)
    error = ((prediction + eps) / (truth + eps) - 1).square()
    return {name: error[..., bins].mean(-1).sqrt() for name, bins in bands_of(tuple(edges.tolist())).items()}


@functools.cache
def bands_of(edges: tuple[float, ...]) -> dict[str, list[int]]:
    """The numbers of the bins of each band; coarse grids have bands without any."""
    limits = torch.tensor(band_limits(edges[0]), dtype=torch.float64)
    band = torch.bucketize(torch.tensor(edges, dtype=torch.float64) * (1 + 1e-6), limits) - 1
    return {name: (band == i).nonzero().flatten().tolist() for i, name in enumerate(BANDS)}


def band_limits(lowest: float) -> list[float]:
    """Where low, mid, high and tail begin, in cycles per pixel, given the lowest bin k_1."""
    return [lowest ** (1 - i / 3) * 0.5 ** (i / 3) for i in range(4)]


@dataclasses.dataclass(frozen=True, eq=False)
class Binning:
    """The bins of a half spectrum.

    Arguments:
        bins: The bin of every mode, flattened; bin 0 holds the mean of the field.
        weights: The weight of every mode in the mean of its bin; modes that stand for themselves and their
            conjugate count twice.
        edges: The bins' upper edges in cycles per pixel, with shape `(n,)`.
        counts: The number of modes of every bin, with shape `(n,)`.
    """

    spatial: int
    bins: Tensor
    weights: Tensor
    edges: Tensor
    counts: Tensor

    @classmethod
    def of(cls, field: Tensor, spatial: int) -> "Binning":
        """The bins of a real field's spectrum, on its device and in its precision."""
        return _binning(tuple(field.shape[-spatial:]), field.dtype, field.device)

    def mean(self, modes: Tensor) -> Tensor:
        """Means of `(..., *half grid)` over the bins, but for that of the mean, with shape `(..., n)`."""
        weighted = modes.flatten(-self.spatial) * self.weights
        means = weighted.new_zeros(*weighted.shape[:-1], len(self.edges) + 1)
        return means.scatter_add_(-1, self.bins.expand_as(weighted), weighted)[..., 1:]

    def band_mean(self, power: Tensor, bins: list[int]) -> Tensor:
        """The mean over the modes of some bins, given means `(..., n)` over the modes of each."""
        counts = self.counts[bins]
        return power[..., bins] @ (counts / counts.sum())


@functools.cache
def _binning(grid: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Binning:
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
    edges = k_max / n * torch.arange(1, n + 1, dtype=torch.float64)
    return Binning(
        len(grid),
        bins.to(device),
        (count / total[bins]).to(device, dtype),
        edges.to(device, dtype),
        total[1:].to(device, dtype),
    )
