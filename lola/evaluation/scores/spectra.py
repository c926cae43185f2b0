r"""Isotropic power spectra of fields, their relative error (paper, Section 3.5), and coherence.

A field u on a grid of N points has the unitary Fourier coefficients U(k), at wavenumbers k in cycles per
pixel, each component at most 1/2. Along an axis of n points that is not periodic they are those of the
cosine transform, at k = m / (2 n) for m = 0, ..., n - 1; an uneven axis is not transformed, and power is
averaged over it with its weights (`quadrature`). In the d dimensions that are left, with k_max = sqrt(d) / 2
the corner of the Fourier grid, n = floor(k_max min(grid)) bins share (0, k_max], the i-th being
((i - 1) k_max / n, i k_max / n], and

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
from collections.abc import Sequence

import torch
from torch import Tensor

from lola.evaluation.scores.quadrature import GridAxis

EPS = 1e-6
BANDS = ("low", "mid", "high", "tail")


def cross(binning: "Binning", u: Tensor, v: Tensor) -> Tensor:
    """The modulus of the mean of U V* over each bin, given coefficients, with shape `(..., n)`.

    A mode and its conjugate are in the same bin, so that the imaginary parts cancel.
    """
    return binning.mean((u * v).sum(-1)).abs()


def coefficients(field: Tensor, axes: Sequence[GridAxis]) -> Tensor:
    """The unitary coefficients of real fields `(..., *grid)`, half of the last axis of the Fourier transform.

    Returns:
        Real and imaginary parts, with shape `(..., *half grid, 2)`, or `(..., *grid, 1)` if none is complex.
    """
    spatial = len(axes)
    for i, axis in enumerate(axes):
        if axis.transform == "cosine":
            field = cosine_transform(field, i - spatial)
    periodic = [i - spatial for i, axis in enumerate(axes) if axis.transform == "fourier"]
    if not periodic:
        return field.unsqueeze(-1)
    return torch.view_as_real(torch.fft.rfftn(field, dim=periodic, norm="ortho"))


def cosine_transform(x: Tensor, dim: int) -> Tensor:
    """The orthonormal cosine transform of type II along an axis, by a Fourier transform of its points, even
    ones first (Makhoul, 1980)."""
    x, n = x.movedim(dim, -1), x.shape[dim]
    angles = torch.arange(n // 2 + 1, dtype=torch.float64, device=x.device) * (torch.pi / (2 * n))
    turn = torch.polar(torch.full_like(angles, (2 / n) ** 0.5), -angles)
    turn[0] /= 2**0.5
    turned = torch.fft.rfft(torch.cat([x[..., ::2], x[..., 1::2].flip(-1)], -1))
    turned = turned * turn.to(turned)
    return torch.cat([turned.real, -turned.imag[..., 1 : (n + 1) // 2].flip(-1)], -1).movedim(-1, dim)


def square(coefficients: Tensor) -> Tensor:
    """The squared modulus of coefficients."""
    return coefficients.square().sum(-1)


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
    """The bins of a spectrum.

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
    def of(cls, field: Tensor, axes: tuple[GridAxis, ...]) -> "Binning":
        """The bins of a real field's spectrum, on its device and in its precision."""
        return _binning(tuple(field.shape[-len(axes) :]), axes, field.dtype, field.device)

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
def _binning(
    grid: tuple[int, ...], axes: tuple[GridAxis, ...], dtype: torch.dtype, device: torch.device
) -> Binning:
    halved = max((i for i, axis in enumerate(axes) if axis.transform == "fourier"), default=None)
    modes = [
        _modes_of(size, axis, half=i == halved) for i, (size, axis) in enumerate(zip(grid, axes, strict=True))
    ]
    frequencies, counts = zip(*modes, strict=True)
    squares = [each.square() for each in torch.meshgrid(*frequencies, indexing="ij")]
    k = torch.stack(squares).sum(0).sqrt().flatten()
    count = functools.reduce(lambda a, b: a.unsqueeze(-1) * b, counts).flatten()
    transformed = [size for size, axis in zip(grid, axes, strict=True) if axis.transform != "none"]
    k_max = 0.5 * math.sqrt(len(transformed))
    n = int(k_max * min(transformed))
    # A mode on an edge belongs to the lower bin, whatever its rounding.
    bins = (k / k_max * n * (1 - 1e-9)).ceil().long()
    total = torch.zeros(n + 1, dtype=torch.float64).index_add_(0, bins, count)
    edges = k_max / n * torch.arange(1, n + 1, dtype=torch.float64)
    return Binning(
        len(grid),
        bins.to(device),
        (count / total[bins]).to(device, dtype),
        edges.to(device, dtype),
        total[1:].to(device, dtype),
    )


def _modes_of(size: int, axis: GridAxis, half: bool) -> tuple[Tensor, Tensor]:
    """The frequencies of an axis, and how many modes each stands for."""
    if half:
        numbers = torch.arange(size // 2 + 1)
        own = (numbers == 0) | (2 * numbers == size)
        return torch.fft.rfftfreq(size, dtype=torch.float64), torch.where(own, 1.0, 2.0).double()
    ones = torch.ones(size, dtype=torch.float64)
    match axis.transform:
        case "fourier":
            return torch.fft.fftfreq(size, dtype=torch.float64), ones
        case "cosine":
            return torch.arange(size, dtype=torch.float64) / (2 * size), ones
        case "none":
            weights = torch.tensor(axis.weights, dtype=torch.float64) * size if axis.weights else ones
            return torch.zeros(size, dtype=torch.float64), weights
