"""The scores of an ensemble as one writes them first: NumPy, loops over fields and lead times, masks.

Written from the definitions, and from nothing of the library: tests compare the library's numbers with these.
"""

import itertools

import numpy as np

EPS = 1e-6
BANDS = ("low", "mid", "high", "tail")


def plain_scores(truth: np.ndarray, members: np.ndarray) -> dict[str, np.ndarray]:
    """The scores of `(C, L, *grid)` and `(M, C, L, *grid)`, each with shape `(C, L)` or `(C, L, n)`."""
    found: dict[str, list] = {}
    for field in range(truth.shape[0]):
        for time in range(truth.shape[1]):
            for name, value in plain_score(truth[field, time], members[:, field, time]).items():
                found.setdefault(name, []).append(value)
    return {name: np.array(values).reshape(*truth.shape[:2], -1).squeeze() for name, values in found.items()}


def plain_score(u: np.ndarray, v: np.ndarray) -> dict[str, np.ndarray | float]:
    """The scores of one field at one time, `(*grid)` and `(M, *grid)`."""
    count, mean = len(v), v.mean(0)
    variance = u.var(ddof=1) + EPS
    pairs = sum(np.abs(v[i] - v[j]).mean() for i in range(count) for j in range(i))
    below, ties = (v < u).sum(0), (v == u).sum(0)
    ranks = [(((below <= r) & (r <= below + ties)) / (ties + 1)).mean() for r in range(count + 1)]
    found = {
        "variance": u.var(ddof=1),
        "correlation": np.corrcoef(u.ravel(), mean.ravel())[0, 1],
        "variogram": _variogram(u, v),
        "energy": _energy(u, v),
        "energy_block": sum(
            u[block].size / u.size * _energy(u[block], v[:, *block]) for block in _blocks(u.shape)
        ),
        "vrmse": np.sqrt(((mean - u) ** 2).mean() / variance),
        "vrmse_member": np.mean([np.sqrt(((member - u) ** 2).mean() / variance) for member in v]),
        "nrmse": np.sqrt(((mean - u) ** 2).mean() / ((u**2).mean() + EPS)),
        "skill": np.sqrt(((mean - u) ** 2).mean()),
        "crps": np.abs(v - u).mean() - pairs / (count * max(1, count - 1)),
    }
    if count > 1:
        found["spread"] = np.sqrt((count + 1) / (count - 1) * v.var(0).mean())
        found["rank_histogram"] = np.array(ranks)
        found |= _coverages(ranks) | _intervals(u, v) | _bins(u, v)
    return found | _spectral(u, v)


def _energy(u: np.ndarray, v: np.ndarray) -> float:
    count = len(v)
    pairs = sum(np.sqrt(((v[i] - v[j]) ** 2).mean()) for i in range(count) for j in range(i))
    return np.mean([np.sqrt(((member - u) ** 2).mean()) for member in v]) - pairs / (
        count * max(1, count - 1)
    )


def _blocks(grid: tuple[int, ...]) -> list[tuple[slice, ...]]:
    axes = [[slice(i, i + 8) for i in range(0, n, 8)] for n in grid]
    return list(itertools.product(*axes))


def _variogram(u: np.ndarray, v: np.ndarray) -> float:
    squares = []
    for axis, size in enumerate(u.shape):
        for lag in (1, 4):
            for i in range(size - lag):
                first, second = np.take(v, i, axis + 1), np.take(v, i + lag, axis + 1)
                true = np.abs(np.take(u, i, axis) - np.take(u, i + lag, axis)) ** 0.5
                squares.append((true - (np.abs(first - second) ** 0.5).mean(0)) ** 2)
    return float(np.concatenate([np.ravel(each) for each in squares]).mean())


def _coverages(ranks: list[float]) -> dict[str, float]:
    """From the distribution function of the ranks, interpolated."""
    below = np.cumsum([0, *ranks])
    found = {}
    for name, tail in (("50", 0.25), ("90", 0.05)):
        place = max(1, tail * len(ranks))
        low, high = np.interp([place, len(ranks) - place], range(len(below)), below)
        found[f"coverage_{name}"] = high - low
    return found


def _intervals(u: np.ndarray, v: np.ndarray) -> dict[str, float]:
    found = {}
    for name, alpha in (("50", 0.5), ("90", 0.1)):
        low, high = np.quantile(v, [alpha / 2, 1 - alpha / 2], axis=0, method="weibull")
        alpha = max(alpha, 2 / (len(v) + 1))  # more than that is beyond the extremes of so few members
        missed = np.maximum(0, low - u) + np.maximum(0, u - high)
        found[f"interval_{name}"] = (high - low + 2 / alpha * missed).mean()
    return found


def _bins(u: np.ndarray, v: np.ndarray) -> dict[str, np.ndarray]:
    spread = (len(v) + 1) / (len(v) - 1) * v.var(0).ravel()
    error = (v.mean(0) - u).ravel() ** 2
    bins = np.array_split(np.argsort(spread), 8)
    return {
        "binned_skill": np.array([np.sqrt(error[cells].mean()) for cells in bins]),
        "binned_spread": np.array([np.sqrt(spread[cells].mean()) for cells in bins]),
    }


def _spectral(u: np.ndarray, v: np.ndarray) -> dict[str, np.ndarray | float]:
    k = np.sqrt(sum(axis**2 for axis in np.meshgrid(*map(np.fft.fftfreq, u.shape), indexing="ij")))
    count = int(np.sqrt(u.ndim) / 2 * min(u.shape))
    edges = np.sqrt(u.ndim) / 2 / count * np.arange(count + 1)
    masks = [(k > low * (1 + 1e-9)) & (k <= high * (1 + 1e-9)) for low, high in itertools.pairwise(edges)]
    truth = np.fft.fftn(u, norm="ortho")
    drawn = [np.fft.fftn(member, norm="ortho") for member in v]
    power = np.array([(np.abs(truth[mask]) ** 2).mean() for mask in masks])
    prediction = np.mean([[(np.abs(member[mask]) ** 2).mean() for mask in masks] for member in drawn], axis=0)
    crossed = np.mean(
        [[(truth[mask] * member[mask].conj()).mean() for mask in masks] for member in drawn], axis=0
    )
    found = {
        "power_truth": power,
        "power_prediction": prediction,
        "coherence": np.abs(crossed) / np.sqrt(power * prediction),
    }
    error = ((prediction + EPS) / (power + EPS) - 1) ** 2
    limits = np.geomspace(edges[1], 0.5, len(BANDS))
    band = np.searchsorted(limits, edges[1:] * (1 + 1e-6)) - 1
    for i, name in enumerate(BANDS):
        if (band == i).any():
            found[f"spectrum_rmse_{name}"] = np.sqrt(error[band == i].mean())
            modes = np.any([mask for mask, own in zip(masks, band == i, strict=True) if own], axis=0)
            mean = np.mean(drawn, axis=0)
            found[f"skill_{name}"] = np.sqrt((np.abs(mean - truth)[modes] ** 2).mean())
            if len(v) > 1:
                spread = np.mean([np.abs(member - mean)[modes] ** 2 for member in drawn])
                found[f"spread_{name}"] = np.sqrt((len(v) + 1) / (len(v) - 1) * spread)
    return found
