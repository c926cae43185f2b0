"""Changes of dtype that every value must survive: what is not finite, or too large, is named."""

import numpy as np

from lola.core.errors import DataError

LARGEST = 9.9e36
"""Fields have no larger values: netCDF's fill value is 9.97e36, and float32 has no squares of them."""


def cast_error(values: np.ndarray, cast: np.ndarray) -> str:
    """Why values do not survive a change of dtype, as `is not finite` or `holds ...`; empty if they do.

    Arguments:
        values: The values; looked at only where `cast` holds one that is not finite.
        cast: The same in another dtype.
    """
    finite = np.isfinite(cast)
    if finite.all():
        return ""
    if not np.isfinite(values).all():
        return "is not finite"
    largest = np.finfo(cast.dtype).max
    return f"holds {values[~finite].flat[0]:g}, beyond the largest {cast.dtype}, {largest:g}"


def field_error(values: np.ndarray, cast: np.ndarray) -> str:
    """As `cast_error`, also where a value is as large as the fill values of what was never written."""
    if not cast.size or (cast.min() > -LARGEST and cast.max() < LARGEST):  # never so where one is nan
        return ""
    return cast_error(values, cast) or f"holds the fill value {cast[np.abs(cast) >= LARGEST].flat[0]:g}"


def cast_checked(values: np.ndarray, dtype: np.dtype | type | str, name: str) -> np.ndarray:
    """Values in another dtype, all finite.

    Arguments:
        values: Any shape; not copied if they have the dtype.
        dtype: A dtype of floating-point numbers.
        name: What they are and where they are from, for the error.

    Raises:
        DataError: A value is not finite, or the dtype cannot hold it.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        cast = np.asarray(values).astype(dtype, copy=False)
    fault = cast_error(values, cast)
    if fault:
        raise DataError(f"{name} {fault}")
    return cast
