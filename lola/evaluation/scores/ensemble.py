r"""All scores of an ensemble against the truth (paper, Eqs. 9 to 13), in one pass over its members.

For a true field u, an ensemble v_1, ..., v_M with mean v, <.> the mean over the domain by the quadrature
weights w of the grid (`quadrature`), all equal on even grids, and Var[u] = <(u - <u>)^2> / (1 - sum w^2) the
variance with Bessel's correction,

    vrmse         sqrt( <(u - v)^2> / (Var[u] + eps) )                                                    (9)
    vrmse_member  the mean over members of the same, of v_m
    nrmse         sqrt( <(u - v)^2> / (<u^2> + eps) )
    skill         sqrt <(u - v)^2>                                                                       (11)
    spread        sqrt( (M + 1) / (M - 1) ) sqrt < 1/M sum_m (v_m - v)^2 >                                (12)
    variance      Var[u], by which tables normalise what they have averaged
    correlation   of the anomalies of u and v from their means over the domain; 0 of a uniform field

and `skill_low` ... `spread_tail` are skill and spread with <.> the mean over the modes of a band of
wavenumbers instead (Parseval). The eps of the paper is 1e-6 in the squared unit of the field; evaluations
take it relative to the variance of the training data by default, so that scores do not depend on units.

If truth and members are exchangeable, skill and spread are equal in expectation of their squares (Eqs. 10 and
13). The factor (M + 1) / (M - 1), which corrects for the finite ensemble, is applied here, once: the ratio
spread / skill needs no other, and squares are averaged over trajectories before dividing. `distribution`
defines the CRPS and the rank histogram, `intervals` their coverage, `multivariate` the scores of whole
fields, and `spectra` everything in Fourier space.

With a mask, means are over the cells of the domain; for everything in Fourier space, the cells
outside have the mean of those inside, of every member and time its own, so that they add no power but that of
the domain's edge.

A function per score would read the members from memory once per score. Instead, fields and lead times are
taken in blocks whose members stay in the processor's cache. Within a block, members are transformed to
Fourier space once for all targets, and the errors d = v - u are formed and sorted once for all scores of a
target. Buffers as large as a block are reused from block to block: allocating them takes longer than most of
the scores.
"""

import dataclasses
import functools
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from lola.evaluation.scores.distribution import score_order_statistics
from lola.evaluation.scores.intervals import BINNED, coverages, mean_by_bin, sort_into_bins
from lola.evaluation.scores.multivariate import (
    block_energy_score,
    member_distances,
    variogram,
    variogram_score,
)
from lola.evaluation.scores.quadrature import Domain, GridAxis, grid_mean
from lola.evaluation.scores.spectra import Binning, bands_of, coefficients, cross, relative_rmse, square

EPS = 1e-6
TINY = torch.finfo(torch.float32).tiny
"""Keeps correlations with uniform fields at 0."""
RANKS = "rank_histogram"
BLOCK_BYTES = {"cpu": 2**22, "cuda": 2**28}
"""Members that are scored at once."""


@dataclasses.dataclass(frozen=True)
class Scores:
    """The scores of an ensemble against one target.

    Arguments:
        metrics: Scores by name, with the leading axes of the target, such as `(C, L)`.
        spectra: Values by name with a bin as the last axis, `(C, L, n)`: `power_truth`, `power_prediction`,
            `coherence`, and for two members or more `rank_histogram`, `binned_skill` and `binned_spread`.
        edges: The upper edges of the bins of spectra in cycles per pixel, with shape `(n,)`.
    """

    metrics: dict[str, Tensor]
    spectra: dict[str, Tensor]
    edges: Tensor


@dataclasses.dataclass(frozen=True)
class MemberStatistics:
    """Statistics of each member that need no target.

    Arguments:
        means: Means over the domain in double precision, with shape `(M, C, L)`.
        smallest, largest: Extremes over the grid, likewise; NaN where a value is.
    """

    means: Tensor
    smallest: Tensor
    largest: Tensor


class ScratchBuffers:
    """Named buffers that are reused from call to call."""

    def __init__(self) -> None:
        self.buffers: dict[str, Tensor] = {}

    def get(self, name: str, shape: Sequence[int], like: Tensor) -> Tensor:
        """An uninitialised buffer of a shape, with the dtype and device of `like`."""
        size = math.prod(shape)
        if name not in self.buffers or len(self.buffers[name]) < size:
            self.buffers[name] = like.new_empty(size)
        return self.buffers[name][:size].view(*shape)


def score_ensemble(
    targets: Mapping[str, Tensor],
    members: Tensor,
    *,
    spatial: int,
    valid: Tensor | None = None,
    axes: tuple[GridAxis, ...] = (),
    eps: Tensor | float = EPS,
) -> tuple[dict[str, Scores], MemberStatistics]:
    """Score an ensemble against one or several targets.

    Values that are not finite make the scores of their field and lead time so, and no others. A band of the
    spectrum that the grid is too coarse for has no score; an ensemble of one has no spread and no ranks.

    Arguments:
        targets: Fields u by name, each with shape `(C, L, *grid)` or other axes before the grid, in any unit.
        members: The ensemble, with shape `(M, C, L, *grid)`.
        valid: True in cells of the domain, with shape `(*grid)`; None if all are.
        axes: How each axis of the grid is treated; all are even and periodic by default.
        eps: What is added to variances and power before dividing, in squared units, for all fields or with
            the shape of the axes before the grid, or one that expands to it.

    Returns:
        The scores by target, and the statistics of the members.
    """
    leading, grid = members.shape[1 : members.ndim - spatial], members.shape[members.ndim - spatial :]
    members = members.reshape(len(members), -1, *grid)
    rows = {name: target.reshape(-1, *grid) for name, target in targets.items()}
    regularisers = (
        torch.as_tensor(eps, dtype=members.dtype, device=members.device).expand(leading).reshape(-1)
    )
    domain = Domain.of(members, spatial, axes, valid)
    scores: dict[str, list[Scores]] = {name: [] for name in targets}
    statistics: list[MemberStatistics] = []
    scratch = threading.local()

    def score(block: slice) -> tuple[MemberStatistics, dict[str, Scores]]:
        buffers = scratch.__dict__.setdefault("buffers", ScratchBuffers())
        v = _Field.of(members[:, block], domain)
        transformed, own = _transform(v, domain, buffers)
        return own, {
            name: _score_target(
                _Field.of(target[block], domain), v, transformed, domain, regularisers[block], buffers
            )
            for name, target in rows.items()
        }

    for own, parts in _map(score, members):
        statistics.append(own)
        for name, part in parts.items():
            scores[name].append(part)
    joined = join_statistics(statistics)
    shaped = [getattr(joined, field.name).reshape(-1, *leading) for field in dataclasses.fields(joined)]
    whole = {name: _unflatten(join_scores(parts, 0), leading) for name, parts in scores.items()}
    return whole, MemberStatistics(*shaped)


def join_scores(parts: Sequence[Scores], dim: int) -> Scores:
    """Concatenate scores of several fields or lead times along that axis."""
    first = parts[0]
    return Scores(
        {name: torch.cat([part.metrics[name] for part in parts], dim) for name in first.metrics},
        {name: torch.cat([part.spectra[name] for part in parts], dim) for name in first.spectra},
        first.edges,
    )


def join_statistics(parts: Sequence[MemberStatistics]) -> MemberStatistics:
    """Concatenate statistics along their last axis."""
    fields = [field.name for field in dataclasses.fields(MemberStatistics)]
    return MemberStatistics(*(torch.cat([getattr(part, name) for part in parts], -1) for name in fields))


def _blocks(members: Tensor) -> Iterator[slice]:
    """Slices of the second axis."""
    size = members[:, 0].numel() * members.element_size()
    step = max(1, BLOCK_BYTES.get(members.device.type, BLOCK_BYTES["cpu"]) // size)
    for first in range(0, members.shape[1], step):
        yield slice(first, first + step)


def _map(
    function: Callable[[slice], tuple[MemberStatistics, dict[str, Scores]]], members: Tensor
) -> Iterator[tuple[MemberStatistics, dict[str, Scores]]]:
    """Apply a function to every block, in order. On CPUs each thread takes whole blocks: operations on one
    are too short to be split over threads."""
    blocks, threads = list(_blocks(members)), torch.get_num_threads()
    if not members.is_cpu or min(len(blocks), threads) == 1:
        yield from map(function, blocks)
        return
    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(torch.no_grad()(function), blocks)


@dataclasses.dataclass(frozen=True)
class _Field:
    """Fields: the cells of the domain as `(..., *grid)`, or `(..., n)` of a mask, and the whole grid."""

    cells: Tensor
    whole: Tensor

    @classmethod
    def of(cls, values: Tensor, domain: Domain) -> "_Field":
        """Of values `(..., *grid)`."""
        if domain.valid is None:
            return cls(values, values)
        cells = values[..., domain.valid]
        fill = grid_mean(cells, 1, domain.weights).reshape(*cells.shape[:-1], *[1] * len(domain.axes))
        return cls(cells, torch.where(domain.valid, values, fill))


@dataclasses.dataclass(frozen=True)
class _Transformed:
    """What the scores against every target share.

    Arguments:
        mean: The mean of the members, `(N, *grid)`, or `(N, n)` of a mask.
        variance: The squared spread of cells, likewise; None of a single member.
        power, spread_power: The mean power of the members and of their deviations by bin, `(N, bins)`.
        modes: The coefficients of their mean, `(N, *half grid, 1 or 2)`.
        distances: Half the mean distance of two members, of whole fields and of blocks.
        variogram: The members' variogram.
        order: The cells by their spread.
    """

    mean: Tensor
    variance: Tensor | None
    power: Tensor
    spread_power: Tensor
    modes: Tensor
    distances: tuple[Tensor, Tensor] | None
    variogram: list[Tensor]
    order: Tensor | None


def _transform(
    members: _Field, domain: Domain, buffers: ScratchBuffers
) -> tuple[_Transformed, MemberStatistics]:
    """Transform members `(M, N, *grid)` to Fourier space, and take their statistics."""
    v, whole = members.cells, members.whole
    grid, count, spatial = tuple(range(2 - v.ndim, 0)), len(v), len(domain.axes)
    # Sums along an axis in the members' precision, of these in double: a cast of all would be a copy. Minima
    # and maxima in two passes: torch's aminmax is ten times as slow as both.
    if domain.weights is None:
        means = v.sum(-1).double().reshape(*v.shape[:2], -1).sum(-1) / v[0, 0].numel()
    else:
        means = v.flatten(2).double() @ domain.weights
    statistics = MemberStatistics(means, v.amin(grid), v.amax(grid))
    mean = v.mean(0)
    mean_of_whole = mean if whole is v else whole.mean(0)
    centred = torch.sub(whole, mean_of_whole, out=buffers.get("errors", whole.shape, v))
    # The transform is linear: that of a member is the sum of those of the mean and of its deviation
    binning, modes = Binning.of(whole, domain.axes), coefficients(mean_of_whole, domain.axes)
    deviations = coefficients(centred, domain.axes)
    spread_power = binning.mean(deviations.square_().mean(0).sum(-1))
    variance = distances = order = None
    if count > 1:
        squares = torch.mul(centred, centred, out=buffers.get("squares", centred.shape, v))
        squares = squares.sum(0).mul_((count + 1) / (count - 1) / count)
        variance = squares if domain.valid is None else squares[..., domain.valid]
        distances = member_distances(centred, spatial, domain.shares)
        order = sort_into_bins(variance.flatten(1))
    power = spread_power + binning.mean(square(modes))
    spread_power = spread_power * ((count + 1) / max(1, count - 1))
    drawn = variogram(whole, spatial)
    return _Transformed(mean, variance, power, spread_power, modes, distances, drawn, order), statistics


def _score_target(
    target: _Field,
    members: _Field,
    known: _Transformed,
    domain: Domain,
    eps: Tensor,
    buffers: ScratchBuffers,
) -> Scores:
    """Score members `(M, N, *grid)` against a target `(N, *grid)`."""
    u, v, spatial, shares, weights = (
        target.cells,
        members.cells,
        len(domain.axes),
        domain.shares,
        domain.weights,
    )
    mean = functools.partial(grid_mean, spatial=u.ndim - 1, weights=weights)
    error = torch.sub(v, u, out=buffers.get("errors", v.shape, v))
    whole = error if domain.valid is None else members.whole - target.whole
    squares = torch.mul(whole, whole, out=buffers.get("squares", whole.shape, v))
    if shares is not None:
        squares *= shares
    of_members = squares.flatten(2).sum(2) / u[0].numel()
    whole_field, blocks = known.distances or (torch.zeros_like(of_members[0]), None)
    squared = error.mean(0).square_()
    of_mean = mean(squared)
    variance, correlation = _variance_and_correlation(u, known.mean, weights)
    metrics = {
        "vrmse": (of_mean / (variance + eps)).sqrt(),
        "vrmse_member": (of_members / (variance + eps)).sqrt().mean(0),
        "nrmse": (of_mean / (mean(u.square()) + eps)).sqrt(),
        "skill": of_mean.sqrt(),
        "variance": variance,
        "correlation": correlation,
        "energy": of_members.sqrt().mean(0) - whole_field,
        "energy_block": block_energy_score(squares, blocks, spatial, shares),
        "variogram": variogram_score(target.whole, known.variogram, shares),
    }
    spectral, spectra, edges = _score_spectra(target.whole, known, eps, domain.axes)
    metrics |= spectral
    if known.variance is not None:
        metrics["spread"] = mean(known.variance).sqrt()
    if known.variance is not None and known.order is not None:
        for name, values in zip(BINNED, (squared, known.variance), strict=True):
            spectra[name] = mean_by_bin(values.flatten(1), known.order, weights).sqrt()
    sorted_errors = buffers.get("sorted", (len(v) + 1, *u.shape), v)
    of_cells, ranks = score_order_statistics(error, u.ndim - 1, sorted_errors, weights)
    if ranks is not None:
        spectra[RANKS] = ranks
        of_cells |= coverages(ranks)
    return Scores(metrics | of_cells, spectra, edges)


def _variance_and_correlation(u: Tensor, v: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """The variance of fields `(N, *cells)`, and their correlation with others."""
    grid = tuple(range(1 - u.ndim, 0))
    anomalies = [x - grid_mean(x, len(grid), weights).reshape(-1, *[1] * len(grid)) for x in (u, v)]
    degrees = u[0].numel() - 1.0
    if weights is not None:
        anomalies = [x * weights.sqrt().to(x).view(x.shape[1:]) for x in anomalies]
        degrees = 1 - float(weights.square().sum())
    one, other = anomalies
    lengths = torch.linalg.vector_norm(one, dim=grid) * torch.linalg.vector_norm(other, dim=grid)
    return one.square().sum(grid) / degrees, (one * other).sum(grid) / lengths.clamp(min=TINY)


def _score_spectra(
    u: Tensor, members: _Transformed, eps: Tensor, axes: tuple[GridAxis, ...]
) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """Metrics and spectra of a target `(N, *grid)` in Fourier space, and the edges of the bins."""
    binning, modes = Binning.of(u, axes), coefficients(u, axes)
    power = binning.mean(square(modes))
    errors = relative_rmse(power, members.power, binning.edges, eps)
    error_power = binning.mean(square(members.modes - modes))
    metrics = {}
    for name, bins in bands_of(tuple(binning.edges.tolist())).items():
        if bins:
            metrics[f"spectrum_rmse_{name}"] = errors[name]
            metrics[f"skill_{name}"] = binning.band_mean(error_power, bins).sqrt()
            if members.variance is not None:
                metrics[f"spread_{name}"] = binning.band_mean(members.spread_power, bins).sqrt()
    spectra = {
        "power_truth": power,
        "power_prediction": members.power,
        "coherence": cross(binning, modes, members.modes) / (power * members.power).sqrt(),
    }
    return metrics, spectra, binning.edges


def _unflatten(scores: Scores, leading: torch.Size) -> Scores:
    """Give the first axis its shape again."""
    return Scores(
        {name: value.reshape(leading + value.shape[1:]) for name, value in scores.metrics.items()},
        {name: value.reshape(leading + value.shape[1:]) for name, value in scores.spectra.items()},
        scores.edges,
    )
