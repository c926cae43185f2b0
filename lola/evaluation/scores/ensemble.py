r"""All scores of an ensemble against the truth (paper, Eqs. 9 to 13), in one pass over its members.

For a true field u, an ensemble v_1, ..., v_M with mean v, <.> the mean over the grid and Var the variance
over the grid with Bessel's correction,

    vrmse         sqrt( <(u - v)^2> / (Var[u] + eps) )                                                    (9)
    vrmse_member  the mean over members of the same, of v_m
    nrmse         sqrt( <(u - v)^2> / (<u^2> + eps) )
    skill         sqrt <(u - v)^2>                                                                       (11)
    spread        sqrt( (M + 1) / (M - 1) ) sqrt < 1/M sum_m (v_m - v)^2 >                                (12)

If truth and members are exchangeable, skill and spread are equal in expectation of their squares (Eqs. 10 and
13). The factor (M + 1) / (M - 1), which corrects for the finite ensemble, is applied here, once: the ratio
spread / skill needs no other, and squares are averaged over trajectories before dividing. `distribution`
defines the CRPS and the rank histogram, `spectra` everything in Fourier space.

With a mask, means over the grid are over the cells of the domain; for everything in Fourier space, the cells
outside have the mean of those inside, of every member and time its own, so that they add no power but that of
the domain's edge.

A function per score would read the members from memory once per score. Instead, fields and lead times are
taken in blocks whose members stay in the processor's cache. Within a block, members are transformed to
Fourier space once for all targets, and the errors d = v - u are formed and sorted once for all scores of a
target. Buffers as large as a block are reused from block to block: allocating them takes longer than most of
the scores.
"""

import dataclasses
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from lola.evaluation.scores.distribution import crps_and_ranks
from lola.evaluation.scores.spectra import Binning, bands_of, cross, fourier, relative_rmse, square

EPS = 1e-6
RANKS = "rank_histogram"
BLOCK_BYTES = {"cpu": 2**22, "cuda": 2**28}
"""Members that are scored at once."""


@dataclasses.dataclass(frozen=True)
class Scores:
    """The scores of an ensemble against one target.

    Arguments:
        metrics: Scores by name, with the leading axes of the target, such as `(C, L)`.
        spectra: Values by name with a bin as the last axis, `(C, L, n)`: `power_truth`, `power_prediction`,
            `coherence`, and for two members or more `rank_histogram`.
        edges: The upper edges of the bins of spectra in cycles per pixel, with shape `(n,)`.
    """

    metrics: dict[str, Tensor]
    spectra: dict[str, Tensor]
    edges: Tensor


@dataclasses.dataclass(frozen=True)
class MemberStatistics:
    """Statistics of each member that need no target.

    Arguments:
        means: Means over the grid in double precision, with shape `(M, C, L)`.
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
    targets: Mapping[str, Tensor], members: Tensor, *, spatial: int, valid: Tensor | None = None
) -> tuple[dict[str, Scores], MemberStatistics]:
    """Score an ensemble against one or several targets.

    Values that are not finite make the scores of their field and lead time so, and no others. A band of the
    spectrum that the grid is too coarse for has no score; an ensemble of one has no spread and no ranks.

    Arguments:
        targets: Fields u by name, each with shape `(C, L, *grid)` or other axes before the grid, in any unit.
        members: The ensemble, with shape `(M, C, L, *grid)`.
        valid: True in cells of the domain, with shape `(*grid)`; None if all are.

    Returns:
        The scores by target, and the statistics of the members.
    """
    leading, grid = members.shape[1 : members.ndim - spatial], members.shape[members.ndim - spatial :]
    members = members.reshape(len(members), -1, *grid)
    rows = {name: target.reshape(-1, *grid) for name, target in targets.items()}
    scores: dict[str, list[Scores]] = {name: [] for name in targets}
    statistics: list[MemberStatistics] = []
    scratch = threading.local()

    def score(block: slice) -> tuple[MemberStatistics, dict[str, Scores]]:
        buffers = scratch.__dict__.setdefault("buffers", ScratchBuffers())
        v = _Field.of(members[:, block], spatial, valid)
        transformed, own = _transform(v, spatial, buffers)
        return own, {
            name: _score_target(_Field.of(target[block], spatial, valid), v.cells, transformed, buffers)
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
    def of(cls, values: Tensor, spatial: int, valid: Tensor | None) -> "_Field":
        """Of values `(..., *grid)`."""
        if valid is None:
            return cls(values, values)
        cells = values[..., valid]
        fill = cells.mean(-1).reshape(*cells.shape[:-1], *[1] * spatial)
        return cls(cells, torch.where(valid, values, fill))


@dataclasses.dataclass(frozen=True)
class _Transformed:
    """What the scores against every target share: the spread `(N)`, None of a single member; the mean power
    of the members by bin `(N, n)`; and the Fourier coefficients of their mean `(N, *half grid)`."""

    spread: Tensor | None
    power: Tensor
    mean: Tensor


def _transform(
    members: _Field, spatial: int, buffers: ScratchBuffers
) -> tuple[_Transformed, MemberStatistics]:
    """Transform members `(M, N, *grid)` to Fourier space, and take their statistics."""
    v, whole = members.cells, members.whole
    grid, count = tuple(range(2 - v.ndim, 0)), len(v)
    mean = v.mean(0)
    spread = None
    if count > 1:
        centred = torch.sub(v, mean, out=buffers.get("errors", v.shape, v))
        variance = torch.linalg.vector_norm(centred, dim=grid).square().mean(0) / mean[0].numel()
        spread = ((count + 1) / (count - 1) * variance).sqrt()
    modes = torch.view_as_real(fourier(whole, spatial))
    power = Binning.of(whole, spatial).mean(modes.square_().mean(0).sum(-1))
    # Sums along an axis in the members' precision, of these in double: a cast of all would be a copy. Minima
    # and maxima in two passes: torch's aminmax is ten times as slow as both.
    sums = v.sum(-1).double().reshape(*v.shape[:2], -1).sum(-1)
    statistics = MemberStatistics(sums / mean[0].numel(), v.amin(grid), v.amax(grid))
    # The transform is linear: that of the mean is the mean of those of the members
    mean_of_whole = mean if whole is v else whole.mean(0)
    return _Transformed(spread, power, fourier(mean_of_whole, spatial)), statistics


def _score_target(target: _Field, v: Tensor, members: _Transformed, buffers: ScratchBuffers) -> Scores:
    """Score cells of members `(M, N, *grid)` against a target `(N, *grid)`."""
    u, whole = target.cells, target.whole
    spatial, cells = u.ndim - 1, u[0].numel()
    grid = tuple(range(-spatial, 0))
    error = torch.sub(v, u, out=buffers.get("errors", v.shape, v))
    of_mean = error.mean(0).square_().mean(grid)
    of_members = torch.linalg.vector_norm(error, dim=grid).square() / cells
    variance = (u - u.mean(grid, keepdim=True)).square_().sum(grid) / (cells - 1) + EPS
    sorted_errors = buffers.get("sorted", (len(v) + 1, *u.shape), v)
    crps, ranks = crps_and_ranks(error, spatial, sorted_errors)
    metrics = {
        "vrmse": (of_mean / variance).sqrt(),
        "vrmse_member": (of_members / variance).sqrt().mean(0),
        "nrmse": (of_mean / (u.square().mean(grid) + EPS)).sqrt(),
        "skill": of_mean.sqrt(),
        **({} if members.spread is None else {"spread": members.spread}),
        "crps": crps,
    }
    binning = Binning.of(whole, whole.ndim - 1)
    modes = fourier(whole, whole.ndim - 1)
    power = binning.mean(square(modes))
    errors = relative_rmse(power, members.power, binning.edges)
    bands = bands_of(tuple(binning.edges.tolist()))
    metrics |= {f"spectrum_rmse_{name}": value for name, value in errors.items() if bands[name]}
    spectra = {
        "power_truth": power,
        "power_prediction": members.power,
        "coherence": cross(binning, modes, members.mean) / (power * members.power).sqrt(),
    }
    if ranks is not None:
        spectra[RANKS] = ranks
    return Scores(metrics, spectra, binning.edges)


def _unflatten(scores: Scores, leading: torch.Size) -> Scores:
    """Give the first axis its shape again."""
    return Scores(
        {name: value.reshape(leading + value.shape[1:]) for name, value in scores.metrics.items()},
        {name: value.reshape(leading + value.shape[1:]) for name, value in scores.spectra.items()},
        scores.edges,
    )
