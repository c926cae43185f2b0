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
        "vrmse": np.sqrt(((mean - u) ** 2).mean() / variance),
        "vrmse_member": np.mean([np.sqrt(((member - u) ** 2).mean() / variance) for member in v]),
        "nrmse": np.sqrt(((mean - u) ** 2).mean() / ((u**2).mean() + EPS)),
        "skill": np.sqrt(((mean - u) ** 2).mean()),
        "crps": np.abs(v - u).mean() - pairs / (count * max(1, count - 1)),
    }
    if count > 1:
        found["spread"] = np.sqrt((count + 1) / (count - 1) * v.var(0).mean())
        found["rank_histogram"] = np.array(ranks)
    return found | _spectral(u, v)


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
    return found
