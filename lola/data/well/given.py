"""Checks of what `lola.write_well` is given; each error says what there must be instead."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lola.core.config import require
from lola.core.errors import DataError
from lola.core.keys import numpy_generator
from lola.data.casting import cast_checked
from lola.data.systems import SPLITS, Boundary
from lola.data.well.fields import NUMBERS


def assign_splits(count: int, splits: Sequence[Any], seed: int) -> tuple[str, ...]:
    """The split of each trajectory.

    Arguments:
        count: The number of trajectories.
        splits: The shares of train, valid and test, which sum to 1, or the name of each trajectory's split.
        seed: Of the random assignment. A share that is not zero gets a trajectory at least.

    Raises:
        ConfigError: They are neither, or there are too few trajectories.
    """
    if all(isinstance(split, str) for split in splits):
        unknown = sorted(set(splits) - set(SPLITS))
        require(not unknown, f"splits names {', '.join(unknown)}; choose from {', '.join(SPLITS)}")
        require(len(splits) == count, f"splits names {len(splits)} splits for {count} trajectories")
        require("train" in splits, "splits has no trajectory for train, from which statistics are computed")
        return tuple(splits)
    shares = [float(share) for share in splits]
    fits = (
        len(shares) == 3 and min(shares) >= 0 and shares[0] > 0 and math.isclose(sum(shares), 1, abs_tol=1e-6)
    )
    require(fits, f"splits must be the shares of train, valid and test, which sum to 1, not {tuple(splits)}")
    counts = [0, *(max(1, round(share * count)) if share else 0 for share in shares[1:])]
    counts[0] = count - sum(counts)
    require(
        counts[0] > 0, f"{count} trajectories are too few for shares of {tuple(splits)}; give more of them"
    )
    names = [split for split, number in zip(SPLITS, counts, strict=True) for _ in range(number)]
    return tuple(names[i] for i in numpy_generator("splits", seed).permutation(count))


def check_coordinates(name: str, values: Any) -> np.ndarray:
    """Coordinates along an axis, checked: finite and increasing or decreasing, also as stored, in float32."""
    array = np.asarray(values)
    require(
        array.ndim == 1 and array.size > 0 and array.dtype.kind in "fiu",
        f"{'times' if name == 'time' else f'axis {name}'} must be a list of coordinates, "
        f"not {array.dtype} of shape {array.shape}",
    )
    stored = cast_checked(array, np.float32, f"the coordinates of {name}")
    steps = np.diff(stored)
    fits = bool((steps > 0).all() or (name != "time" and (steps < 0).all()))
    require(fits, f"the coordinates of {name} must increase from each to the next, also in float32")
    return array


def boundary_codes(boundaries: Mapping[str, Any] | str, axes: tuple[str, ...]) -> np.ndarray:
    """The codes of both ends of each axis."""
    given = dict.fromkeys(axes, boundaries) if isinstance(boundaries, str) else dict(boundaries)
    require(
        set(given) == set(axes),
        f"boundaries must name the axes {', '.join(axes)}, not {', '.join(given) or 'nothing'}",
    )
    kinds = [str(kind.name).lower() for kind in Boundary]
    codes = []
    for axis in axes:
        ends = (given[axis],) * 2 if isinstance(given[axis], str) else tuple(given[axis])
        require(
            len(ends) == 2 and all(end in kinds for end in ends),
            f"the boundary of {axis} is {given[axis]!r}; choose from {', '.join(kinds)}, or give both ends",
        )
        codes.append([Boundary[end.upper()] for end in ends])
    return np.array(codes)


def check_scalar(name: str, value: Any, count: int) -> float | np.ndarray:
    array = np.asarray(value)
    fits = array.dtype.kind in NUMBERS and array.shape in ((), (count,))
    require(fits, f"the scalar {name} must be a number or {count} of them, not {value!r}")
    cast_checked(array, np.float32, f"the scalar {name}")
    return array.astype(np.float64) if array.ndim else float(array)


def checked_values(values: Any, dtype: type, name: str, where: str) -> np.ndarray:
    """Finite real numbers in a dtype, else a `DataError` that names them."""
    array = np.asarray(values)
    if array.dtype.kind not in NUMBERS:
        raise DataError(f"{name}{where} is {array.dtype}, not real numbers; convert it first")
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise DataError(
            f"{name}{where} is not finite; of cells in land or solids, give any number, and a constant field "
            "that says where they are, which the key mask of system.yaml then names"
        )
    return cast_checked(array, dtype, f"{name}{where}")
