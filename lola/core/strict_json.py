"""JSON as its standard has it: without the tokens NaN and Infinity, which Python's writer makes by default.

What is not finite must not be committed, and other readers refuse a whole file for one such token.
"""

import json
import math
from collections.abc import Iterator
from typing import Any, NoReturn

from lola.core.errors import DivergedError


def dumps(value: Any, **options: Any) -> str:
    """A value as JSON; options are those of `json.dumps`.

    Raises:
        DivergedError: A number is not finite; names the first by its keys.
    """
    try:
        return json.dumps(value, allow_nan=False, **options)
    except ValueError:
        place, number = next(_not_finite(value, ""))
        raise DivergedError(f"{place} is {number}, and is not written: only finite numbers are") from None


def loads(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: It is not JSON, which NaN and Infinity are not.
    """
    return json.loads(text, parse_constant=_refuse)


def null_if_not_finite(values: dict[str, float]) -> dict[str, float | None]:
    """Numbers by name, with None for those that are not finite, as JSON writes them."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _refuse(token: str) -> NoReturn:
    raise ValueError(f"{token} is no JSON")


def _not_finite(value: Any, place: str) -> Iterator[tuple[str, float]]:
    """Numbers that are not finite, by the keys that lead to them."""
    if isinstance(value, float) and not math.isfinite(value):
        yield place or "the value", value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _not_finite(part, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list | tuple):
        for i, part in enumerate(value):
            yield from _not_finite(part, f"{place}[{i}]")
