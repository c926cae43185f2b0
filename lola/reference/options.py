"""Published options under our names."""

from collections.abc import Mapping
from typing import Any

from lola.reference.published_run import PublishedRun

# Sizes, training aids and what is read elsewhere, of every emulator
IGNORED = {"name", "arch", "loss", "checkpointing", "channels", "label_features", "spatial"}


def read_options(
    run: PublishedRun, name: str, names: Mapping[str, str], defaults: Mapping[str, Any], ignored: set[str]
) -> dict[str, Any]:
    """The options of a network's section under our names.

    Arguments:
        run: The run.
        name: The section.
        names: Our names of their options.
        defaults: The values that options have in the published networks where a run does not name them.
        ignored: Options that are used elsewhere, or describe training alone.

    Raises:
        DataError: The section has an option that is neither translated nor ignored.
    """
    section = run.section(name)
    run.refuse_unknown(name, section, {*names, *ignored})
    values = {**defaults, **{key: value for key, value in section.items() if key in names}}
    if "dropout" in values and values["dropout"] is None:
        values["dropout"] = 0.0
    return {names[key]: value for key, value in values.items()}


def read_choice(run: PublishedRun, name: str, key: str, *values: Any) -> Any:
    """The value of an option that may only be one of the given; the first is the default.

    Raises:
        DataError: It is another.
    """
    value = run.section(name).get(key, values[0])
    if value not in values:
        known = " or ".join(str(choice) for choice in values if choice is not None)
        raise run.error(f"{name} has {key}: {value}; only {known or 'none'} is supported")
    return value


def read_size(run: PublishedRun, name: str, key: str, otherwise: int) -> int:
    """A size that the data determined, as the section gives it, else `otherwise`.

    Raises:
        DataError: It is not a non-negative integer.
    """
    value = run.section(name).get(key)
    if value is None:
        return otherwise
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise run.error(f"{name} has {key}: {value}; it must be a non-negative integer")
    return value


def read_attention_heads(run: PublishedRun, name: str, value: Any) -> list[tuple[int, int]]:
    """Pairs (level, heads) of a mapping of levels to attention heads.

    Raises:
        DataError: It is not such a mapping.
    """
    try:
        return sorted((int(level), int(heads)) for level, heads in (value or {}).items() if heads)
    except (AttributeError, TypeError, ValueError):
        raise run.error(f"{name} has attention_heads: {value}; it must map levels to heads") from None
