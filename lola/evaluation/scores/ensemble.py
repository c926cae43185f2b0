"""All scores of an ensemble in one pass over its members.

Functions of their own would read the members once per score, from memory. Here fields and lead times are
taken in blocks whose members stay in the processor's cache. Within a block, members are transformed to
Fourier space once for all targets, and errors d = v - u are formed and sorted once for all scores of a
target. What is as large as a block is written to the same memory in every block: getting it anew from the
system would take longer than most of the scores. The definitions are those of `metrics`, `distribution` and
`spectra`; a test compares the numbers.
"""

import dataclasses
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from lola.evaluation.scores.distribution import distribution_of_errors
from lola.evaluation.scores.metrics import EPS
from lola.evaluation.scores.spectra import Binning, bands_of, cross, fourier, relative_rmse, square

RANKS = "rank_histogram"
BLOCK = {"cpu": 2**22, "cuda": 2**28}  # bytes of members at once


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
class Members:
    """What the members are by themselves.

    Arguments:
        means: Means over the grid in double precision, with shape `(M, C, L)`.
        smallest, largest: Extremes over the grid, likewise; NaN where a value is.
    """

    means: Tensor
    smallest: Tensor
    largest: Tensor


class ScratchBuffers:
    """Memory that is used again and again."""

    def __init__(self) -> None:
        self.kept: dict[str, Tensor] = {}

    def take(self, name: str, shape: Sequence[int], like: Tensor) -> Tensor:
        """Memory of a shape for numbers of a type, which hold anything."""
        size = math.prod(shape)
        if name not in self.kept or len(self.kept[name]) < size:
            self.kept[name] = like.new_empty(size)
        return self.kept[name][:size].view(*shape)


def score_ensemble(
    targets: Mapping[str, Tensor], members: Tensor, *, spatial: int
) -> tuple[dict[str, Scores], Members]:
    """Score an ensemble against one or several targets.

    Values that are not finite make the scores of their field and lead time so, and no others. A band of the
    spectrum that the grid is too coarse for has no score; an ensemble of one has no spread and no ranks.

    Arguments:
        targets: Fields u by name, each with shape `(C, L, *grid)`, in any unit.
        members: The ensemble, with shape `(M, C, L, *grid)`.
        spatial: The number of grid axes.

    Returns:
        The scores by target, and what the members are by themselves.
    """
    leading, grid = members.shape[1 : members.ndim - spatial], members.shape[members.ndim - spatial :]
    members = members.reshape(len(members), -1, *grid)
    rows = {name: target.reshape(-1, *grid) for name, target in targets.items()}
    found: dict[str, list[Scores]] = {name: [] for name in targets}
    alone: list[Members] = []
    scratch = threading.local()

    def score(block: slice) -> tuple[Members, dict[str, Scores]]:
        buffers = scratch.__dict__.setdefault("room", ScratchBuffers())
        common, spectrum, own = _of_members(v := members[:, block], spatial, buffers)
        return own, {
            name: _of_target(target[block], v, common, spectrum, buffers) for name, target in rows.items()
        }

    for own, scores in _map(score, members):
        alone.append(own)
        for name, part in scores.items():
            found[name].append(part)
    whole = {name: _unflatten(join_scores(parts, 0), leading) for name, parts in found.items()}
    joined = join_members(alone)
    shaped = [getattr(joined, field.name).unflatten(1, leading) for field in dataclasses.fields(Members)]
    return whole, Members(*shaped)


def join_scores(parts: Sequence[Scores], dim: int) -> Scores:
    """Scores of parts of the fields or lead times, along that axis, as one."""
    first = parts[0]
    return Scores(
        {name: torch.cat([part.metrics[name] for part in parts], dim) for name in first.metrics},
        {name: torch.cat([part.spectra[name] for part in parts], dim) for name in first.spectra},
        first.edges,
    )


def join_members(parts: Sequence[Members]) -> Members:
    """What members are in parts of the last axis, as one."""
    fields = [field.name for field in dataclasses.fields(Members)]
    return Members(*(torch.cat([getattr(part, name) for part in parts], -1) for name in fields))


def _blocks(members: Tensor) -> Iterator[slice]:
    """Slices of the second axis."""
    size = members[:, 0].numel() * members.element_size()
    step = max(1, BLOCK.get(members.device.type, BLOCK["cpu"]) // size)
    for first in range(0, members.shape[1], step):
        yield slice(first, first + step)


def _map(
    function: Callable[[slice], tuple[Members, dict[str, Scores]]], members: Tensor
) -> Iterator[tuple[Members, dict[str, Scores]]]:
    """What a function makes of every block, in order. On CPUs threads take blocks, and not parts of each:
    operations on a block are too short to share."""
    blocks, threads = list(_blocks(members)), torch.get_num_threads()
    if not members.is_cpu or min(len(blocks), threads) == 1:
        yield from map(function, blocks)
        return
    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(torch.no_grad()(function), blocks)


def _of_members(
    v: Tensor, spatial: int, buffers: ScratchBuffers
) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor], Members]:
    """The spread; power by bin and the mean's coefficients; and what the members are by themselves."""
    grid, count = tuple(range(-spatial, 0)), len(v)
    metrics = {}
    mean = v.mean(0)
    if count > 1:
        centred = torch.sub(v, mean, out=buffers.take("errors", v.shape, v))
        variance = torch.linalg.vector_norm(centred, dim=grid).square().mean(0) / mean[0].numel()
        metrics["spread"] = ((count + 1) / (count - 1) * variance).sqrt()
    modes = torch.fft.rfftn(v, dim=grid, norm="ortho")
    power = Binning.of(v, spatial).mean(torch.view_as_real(modes).square_().mean(0).sum(-1))
    # Sums along an axis in the members' precision, of these in double: a cast of all would be a copy. Minima
    # and maxima in two passes: torch's aminmax is ten times as slow as both.
    sums = v.sum(-1).double().reshape(*v.shape[:2], -1).sum(-1)
    own = Members(sums / mean[0].numel(), v.amin(grid), v.amax(grid))
    # The transform is linear: that of the mean is the mean of those of the members
    return metrics, (power, fourier(mean, spatial)), own


def _of_target(
    u: Tensor, v: Tensor, common: dict[str, Tensor], spectrum: tuple[Tensor, Tensor], buffers: ScratchBuffers
) -> Scores:
    spatial = u.ndim - 1
    grid = tuple(range(-spatial, 0))
    error = torch.sub(v, u, out=buffers.take("errors", v.shape, v))
    mean = error.mean(0).square_().mean(grid)
    each = torch.linalg.vector_norm(error, dim=grid).square() / u[0].numel()
    variance = (u - u.mean(grid, keepdim=True)).square_().sum(grid) / (u[0].numel() - 1) + EPS
    storage = buffers.take("sorted", (len(v) + 1, *u.shape), v)
    score, ranks = distribution_of_errors(error, spatial, storage)
    metrics = {
        "vrmse": (mean / variance).sqrt(),
        "vrmse_member": (each / variance).sqrt().mean(0),
        "nrmse": (mean / (u.square().mean(grid) + EPS)).sqrt(),
        "skill": mean.sqrt(),
        **common,
        "crps": score,
    }
    binning = Binning.of(u, spatial)
    power, prediction = binning.mean(square(coefficients := fourier(u, spatial))), spectrum[0]
    errors = relative_rmse(power, prediction, binning.edges)
    bands = bands_of(tuple(binning.edges.tolist()))
    metrics |= {f"spectrum_rmse_{name}": value for name, value in errors.items() if bands[name]}
    spectra = {
        "power_truth": power,
        "power_prediction": prediction,
        "coherence": cross(binning, coefficients, spectrum[1]) / (power * prediction).sqrt(),
    }
    if ranks is not None:
        spectra[RANKS] = ranks
    return Scores(metrics, spectra, binning.edges)


def _unflatten(scores: Scores, leading: torch.Size) -> Scores:
    return Scores(
        {name: value.unflatten(0, leading) for name, value in scores.metrics.items()},
        {name: value.unflatten(0, leading) for name, value in scores.spectra.items()},
        scores.edges,
    )
