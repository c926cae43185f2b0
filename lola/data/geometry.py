r"""Geometry of grid axes, and the weights of quadrature that follow from it.

The integral of a field $f$ over the domain is $\sum_{ij} w_i w_j f_{ij}$, with the weights of each axis:

    uniform      equal cells of width $h$: $w_i = h$, also along a periodic axis
    nonuniform   the trapezoidal rule on the nodes $x_i$, exact for what is linear between them
    log          cells whose edges are geometric means of the nodes, as nodes at a constant ratio have them
    chebyshev    roots of $T_n$ (Fejer's first rule) or extrema of $T_{n-1}$ (Clenshaw-Curtis), mapped to an
                 interval: exact for polynomials of degree $n - 1$
    radius       of spheres: $w_i = \int r^2 dr$ over cells whose edges are means of the nodes, or geometric
                 means of nodes at a constant ratio
    log_radius   likewise, of coordinates that are $\ln r$
    colatitude   $w_i = \int \sin\theta \, d\theta$ over cells, from the pole
    latitude     $w_i = \int \cos\lambda \, d\lambda$ over cells, from the equator
    longitude    $w_i = h$ in radians

Angles are in degrees where one is larger than a circle in radians. Waldvogel, Fast construction of the Fejer
and Clenshaw-Curtis quadrature rules, BIT 46, 2006.
"""

from typing import Literal, get_args

import numpy as np

AxisKind = Literal[
    "uniform",
    "nonuniform",
    "log",
    "chebyshev",
    "radius",
    "log_radius",
    "colatitude",
    "latitude",
    "longitude",
]
KINDS: tuple[AxisKind, ...] = get_args(AxisKind)
UNEVEN = 1e-3  # of the spacing of nodes that count as equal
SPHERICAL = ("spherical", "equiangular", "sphere")  # values of the files' attribute `grid_type`
NAMES: dict[str, AxisKind] = {"lat": "latitude", "lon": "longitude", "long": "longitude"}
SPHERE_NAMES: dict[str, AxisKind] = {"r": "radius", "log_r": "log_radius", "phi": "longitude"}


def infer_axis(name: str, x: np.ndarray, grid_type: str = "cartesian") -> AxisKind:
    """The kind of an axis, by its coordinates and, of angles and radii, its name.

    Arguments:
        name: The name of the axis.
        x: The coordinates of its cells, with shape `(n,)`.
        grid_type: The attribute of that name.
    """
    plain = name.lower()
    named = NAMES.get(plain) or (plain if plain in ("latitude", "longitude", "colatitude") else None)
    if grid_type.lower() in SPHERICAL:
        named = named or SPHERE_NAMES.get(plain)
        if plain == "theta":
            named = "latitude" if len(x) and x.min() < 0 else "colatitude"
    if named:
        return named  # type: ignore[return-value]
    if _is_even(x):
        return "uniform"
    if _chebyshev_nodes(x):
        return "chebyshev"
    return "log" if _is_geometric(x) else "nonuniform"


def quadrature_weights(kind: AxisKind, x: np.ndarray) -> np.ndarray:
    """The weights of an axis.

    Arguments:
        kind: What the axis is.
        x: The coordinates of its cells, increasing or decreasing, with shape `(n,)`.

    Returns:
        Weights, positive, with shape `(n,)`; of a single cell, 1 where the coordinates give it no width.

    Raises:
        ValueError: The coordinates are not those of the kind.
    """
    x = np.asarray(x, dtype=np.float64)
    if kind in ("colatitude", "latitude", "longitude") and np.abs(x).max(initial=0) > 2 * np.pi + UNEVEN:
        x = np.deg2rad(x)
    if len(x) == 1:
        return np.ones(1)
    match kind:
        case "uniform" | "longitude":
            return np.full(len(x), abs(x[-1] - x[0]) / (len(x) - 1))
        case "nonuniform":
            h = np.abs(np.diff(x))
            return (np.append(h, 0) + np.append(0, h)) / 2
        case "chebyshev":
            return _chebyshev_weights(x)
        case "log":
            if (x <= 0).any():
                raise ValueError(f"coordinates of a log axis must be positive, not {x.min():g}")
            return _widths(np.exp(_edges(np.log(x))))
        case "radius":
            return _widths((np.exp(_edges(np.log(x))) if _is_geometric(x) else _edges(x)) ** 3 / 3)
        case "log_radius":
            return _widths(np.exp(3 * _edges(x)) / 3)
        case "colatitude":
            return _widths(np.cos(_edges(x).clip(0, np.pi)))
        case "latitude":
            return _widths(np.sin(_edges(x).clip(-np.pi / 2, np.pi / 2)))


def _edges(x: np.ndarray) -> np.ndarray:
    """The `n + 1` edges of cells: halfway between nodes, and as far beyond the first and the last."""
    inner = (x[1:] + x[:-1]) / 2
    return np.concatenate([[2 * x[0] - inner[0]], inner, [2 * x[-1] - inner[-1]]])


def _widths(edges: np.ndarray) -> np.ndarray:
    return np.abs(np.diff(edges))


def _tolerance(x: np.ndarray) -> float:
    """Rounding of coordinates that are stored in float32."""
    return 8 * float(np.finfo(np.float32).eps) * float(np.abs(x).max(initial=0))


def _is_even(x: np.ndarray) -> bool:
    steps = np.diff(x)
    return len(steps) < 2 or bool(
        (np.abs(steps - steps.mean()) <= UNEVEN * np.abs(steps.mean()) + _tolerance(x)).all()
    )


def _is_geometric(x: np.ndarray) -> bool:
    """Whether nodes are positive and have a constant ratio, other than 1 up to rounding."""
    return len(x) > 2 and bool((x > 0).all()) and not _is_even(x) and _is_even(np.log(x))


def _chebyshev_nodes(x: np.ndarray) -> str:
    """Whether nodes on any interval are `roots` or `extrema` of a Chebyshev polynomial; empty if neither."""
    n = len(x)
    if n < 3:
        return ""
    found = (x - x[0]) / (x[-1] - x[0])
    for name, angles in (("roots", (np.arange(n) + 0.5) / n), ("extrema", np.arange(n) / (n - 1))):
        nodes = -np.cos(np.pi * angles)
        nodes = (nodes - nodes[0]) / (nodes[-1] - nodes[0])
        slack = UNEVEN * np.gradient(nodes) + _tolerance(x) / abs(x[-1] - x[0])
        if (np.abs(found - nodes) <= slack).all():
            return name
    return ""


def _chebyshev_weights(x: np.ndarray) -> np.ndarray:
    """Fejer's first rule or that of Clenshaw and Curtis, by their sums of cosines."""
    n, kind = len(x), _chebyshev_nodes(x)
    if not kind:
        raise ValueError(f"{n} coordinates are neither roots nor extrema of a Chebyshev polynomial")
    if kind == "roots":
        angles = np.pi * (np.arange(n) + 0.5) / n
        k = np.arange(1, n // 2 + 1)
        weights = 2 / n * (1 - 2 * (np.cos(2 * np.outer(angles, k)) / (4 * k**2 - 1)).sum(1))
        half = abs(x[-1] - x[0]) / (2 * np.cos(angles[0]))  # of the interval, which reaches beyond the roots
    else:
        angles, k = np.pi * np.arange(n) / (n - 1), np.arange(1, (n - 1) // 2 + 1)
        last = np.where(2 * k == n - 1, 1, 2)
        weights = 2 / (n - 1) * (1 - (last * np.cos(2 * np.outer(angles, k)) / (4 * k**2 - 1)).sum(1))
        weights[[0, -1]] /= 2
        half = abs(x[-1] - x[0]) / 2
    return half * weights
