r"""Distributions of statistically stationary flows: what is left to compare once no state can be predicted.

Over states at many times, of many trajectories, with cells counted by their quadrature weights:

    wasserstein     W_1 = int |F(x) - G(x)| dx of the one-point distribution functions F of the truth and G of
                    rollouts, over the deviation of the truth, from histograms of `BINS` bins
    spectrum_rmse   of power spectra averaged over all states before they are compared (`spectra`)
    flux            <a b>, the mean of the product of two channels

With a the buoyancy and b the velocity away from the warm wall, in heights, free-fall times and the difference
of buoyancy between walls, <a b> is the convective heat flux, and, since walls of fixed buoyancy conduct
kappa = (Ra Pr)^(-1/2) on average,

    Nu = 1 + <a b> sqrt(Ra Pr).
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from lola.evaluation.scores.quadrature import Domain, GridAxis
from lola.evaluation.scores.spectra import Binning, coefficients, relative_rmse, square

BINS = 4096


@dataclasses.dataclass(frozen=True, eq=False)
class Range:
    """The values of each channel between which histograms have bins, each with shape `(C)`; others count as
    the nearest."""

    low: Tensor
    high: Tensor

    @classmethod
    def around(cls, smallest: Tensor, largest: Tensor) -> Self:
        """What a stable rollout stays in: as far below and above the truth as its values are apart."""
        width = (largest - smallest).clamp(min=torch.finfo(smallest.dtype).tiny)
        return cls(smallest - width, largest + width)

    def contains(self, x: Tensor) -> Tensor:
        """Whether all values of states `(n, C, *grid)` are finite and inside, with shape `(n)`."""
        low, high = (each.view(-1, *[1] * (x.ndim - 2)) for each in (self.low, self.high))
        return ((x >= low) & (x <= high)).flatten(1).all(1)  # False where NaN


class Statistics:
    """Running sums over states, of a size that does not depend on their number.

    Arguments:
        bounds: The range of histograms.
        axes: How each axis of the grid is treated.
        valid: True in cells of the domain, with shape `(*grid)`; None if all are.
        flux: The numbers of the channels whose product is averaged, if any.
    """

    def __init__(
        self,
        bounds: Range,
        axes: tuple[GridAxis, ...],
        valid: Tensor | None = None,
        flux: tuple[int, int] | None = None,
    ) -> None:
        self.bounds, self.axes, self.valid, self.flux = bounds, axes, valid, flux
        self.states, self.flux_sum = 0, 0.0
        self.counts = torch.zeros(len(bounds.low), BINS, dtype=torch.float64)
        self.moments = torch.zeros(2, len(bounds.low), dtype=torch.float64)
        self.power: Tensor | None = None
        self.edges: Tensor | None = None

    def add(self, x: Tensor, scale: Tensor | None = None) -> None:
        """Add states.

        Arguments:
            x: Finite states with shape `(n, C, *grid)`.
            scale: What the flux of each state is multiplied by, with shape `(n)`; 1 if None.
        """
        domain = Domain.of(x, len(self.axes), self.axes, self.valid)
        cells = domain.cells(x)
        weights = domain.weights
        weights = torch.full((cells.shape[-1],), 1 / cells.shape[-1]) if weights is None else weights
        weights = weights.double()
        low, high = (each[:, None] for each in (self.bounds.low, self.bounds.high))
        places = ((cells - low) / (high - low) * BINS).long().clamp(0, BINS - 1)
        places += BINS * torch.arange(places.shape[1])[:, None]
        each = weights.expand(places.shape).flatten()
        self.counts += torch.bincount(places.flatten(), each, self.counts.numel()).view_as(self.counts)
        self.moments += torch.stack([(cells.double() ** p @ weights).sum(0) for p in (1, 2)])
        fill = (cells.double() @ weights).to(x).view(*x.shape[:2], *[1] * len(self.axes))
        whole = x if self.valid is None else torch.where(self.valid, x, fill)
        binning = Binning.of(x, self.axes)
        power = binning.mean(square(coefficients(whole, self.axes))).double().sum(0)
        self.power = power if self.power is None else self.power + power
        self.edges, self.states = binning.edges, self.states + len(x)
        if self.flux is not None:
            product = (cells[:, self.flux[0]] * cells[:, self.flux[1]]).double() @ weights
            self.flux_sum += float((product if scale is None else product * scale).sum())

    def __add__(self, other: "Statistics") -> "Statistics":
        """Of the states of both."""
        found = Statistics(self.bounds, self.axes, self.valid, self.flux)
        for name in ("states", "flux_sum", "counts", "moments"):
            setattr(found, name, getattr(self, name) + getattr(other, name))
        parts = [each.power for each in (self, other) if each.power is not None]
        found.power = sum(parts[1:], parts[0]) if parts else None
        found.edges = self.edges if self.edges is not None else other.edges
        return found

    @property
    def deviation(self) -> Tensor:
        """The standard deviation of each channel, with shape `(C)`."""
        mean, square_mean = self.moments / self.states
        return (square_mean - mean.square()).clamp(min=0).sqrt()

    def compare(self, truth: "Statistics", channels: Sequence[str]) -> dict[str, dict[str, float]]:
        """Distances from the truth, by name and channel; NaN without states.

        Arguments:
            channels: The names of the channels.
        """
        if not self.states or not truth.states:
            return {"wasserstein": dict.fromkeys(channels, math.nan)}
        shares = [each.counts.cumsum(1) / each.states for each in (self, truth)]
        width = (self.bounds.high - self.bounds.low).double() / BINS
        distance = (shares[0] - shares[1]).abs().sum(1) * width / truth.deviation
        assert self.power is not None
        assert self.edges is not None
        assert truth.power is not None
        errors = relative_rmse(truth.power / truth.states, self.power / self.states, self.edges, 0.0)
        found = {"wasserstein": distance} | {f"spectrum_rmse_{band}": each for band, each in errors.items()}
        return {
            name: dict(zip(channels, values.tolist(), strict=True))
            for name, values in found.items()
            if values.isfinite().any()
        }

    @property
    def mean_flux(self) -> float:
        """The mean of the product of two channels, times the scale; NaN without states."""
        return self.flux_sum / self.states if self.states and self.flux is not None else math.nan
