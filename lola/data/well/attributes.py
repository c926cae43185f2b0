"""Attributes of HDF5 files, whichever program wrote them.

A text may be stored as bytes of fixed length, as a string of variable length, or as an array of one; a list
of names as an array of either, or as one name alone; a flag as a boolean, a number or a word.
"""

from typing import Any, TypeVar

import h5py
import numpy as np

from lola.core.errors import DataError
from lola.data.systems import Boundary

T = TypeVar("T")
TRUE, FALSE = ("true", "t", "yes", "y", "1", "on"), ("false", "f", "no", "n", "0", "off", "")
BOUNDARIES = {
    Boundary.WALL: (
        *("wall", "noslip", "freeslip", "slip", "nopenetration", "reflective", "reflecting", "reflect"),
        *(
            "reflection",
            "solid",
            "rigid",
            "dirichlet",
            "neumann",
            "robin",
            "noflux",
            "zeroflux",
            "insulating",
        ),
        *(
            "adiabatic",
            "isothermal",
            "conducting",
            "symmetric",
            "symmetry",
            "antisymmetric",
            "mirror",
            "axis",
        ),
    ),
    Boundary.OPEN: (
        *(
            "open",
            "outflow",
            "inflow",
            "inlet",
            "outlet",
            "absorbing",
            "absorption",
            "pml",
            "sponge",
            "radiation",
        ),
        *("radiating", "nonreflecting", "nonreflective", "transmissive", "extrapolation", "zerogradient"),
        *("farfield", "freestream", "none"),
    ),
    Boundary.PERIODIC: ("periodic", "cyclic", "wrap"),
}
"""The kinds of boundaries that files may name, in any case, with or without hyphens: what nothing
passes is a wall, whatever is prescribed on it, and what lets something out is open."""


def text(value: Any) -> str:
    """A text attribute.

    Raises:
        ValueError: It is none.
    """
    return _only(texts(value), f"{value!r} is not one text")


def texts(value: Any) -> list[str]:
    """An attribute that lists texts.

    Raises:
        ValueError: It lists something else.
    """
    if isinstance(value, h5py.Empty):
        return []
    return [_decode(each) for each in np.atleast_1d(np.asarray(value)).ravel().tolist()]


def _only(values: list[T], fault: str) -> T:
    if len(values) != 1:
        raise ValueError(fault)
    return values[0]


def _decode(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode()
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value.rstrip("\0")


def flag(value: Any) -> bool:
    """An attribute that is true or false.

    Raises:
        ValueError: It is neither.
    """
    return _only(flags(value), f"{value!r} is not one flag")


def flags(value: Any) -> list[bool]:
    """An attribute that lists what is true or false.

    Raises:
        ValueError: An entry is neither.
    """
    return [_truth(each) for each in np.atleast_1d(np.asarray(value)).ravel().tolist()]


def _truth(value: Any) -> bool:
    if isinstance(value, bytes | str):
        word = _decode(value).strip().lower()
        if word in TRUE or word in FALSE:
            return word in TRUE
    elif value in (0, 1):
        return bool(value)
    raise ValueError(f"{value!r} is neither true nor false")


def boundary(value: Any, place: str) -> Boundary:
    """The kind of a boundary.

    Arguments:
        value: The attribute.
        place: Where it is, for the error.

    Raises:
        DataError: No boundary is called so.
    """
    name = text(value)
    plain = "".join(each for each in name.lower() if each.isalnum())
    for suffix in ("bc", "bcs", "condition", "boundary"):
        plain = plain.removesuffix(suffix)
    for kind, names in BOUNDARIES.items():
        if plain in names:
            return kind
    known = ", ".join(f"{kind.name} ({', '.join(names[1:5])}, ...)" for kind, names in BOUNDARIES.items())
    raise DataError(f"{place} is {name!r}, which is no known kind of boundary; let the attribute say {known}")
