"""The help that fits a screen or two: options of a program itself, and of its parts those that are common.

A part, a configuration within another, names its common options in `Config.common`. `--help-all` is tyro's
list of all options.
"""

import dataclasses
import re
import shutil
import textwrap
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import tyro

from lola.core.config import Config, option_name

HIDDEN = [typing.get_args(mark[int])[1] for mark in (tyro.conf.Suppress, tyro.conf.Fixed)]
POSITIONAL = typing.get_args(tyro.conf.Positional[int])[1]
INDENT = 6
MAX_WIDTH = 110


def short_help(kind: type[Config], default: Config | None) -> str:
    """The arguments and common options of a program, with what each means and its default."""
    width = min(MAX_WIDTH, shutil.get_terminal_size().columns)
    blocks = ["\n".join(_lines(kind, default, "", width))]
    explained: set[type] = set()
    for name, hint, value in _fields(kind, default):
        if isinstance(value, Config) and type(value).common:
            again = type(value) in explained
            explained.add(type(value))
            lines = _lines(type(value), value, f"{name}.", width, type(value).common, again)
            blocks.append("\n".join([f"{option_name(name)[2:]}:", *lines]))
        elif value is dataclasses.MISSING and isinstance(hint, type) and issubclass(hint, Config):
            blocks.append("\n".join([f"{option_name(name)[2:]}:", *_lines(hint, None, f"{name}.", width)]))
    rest = [option_name(name) for name, _, value in _fields(kind, default) if isinstance(value, Config)]
    if rest:
        more = f"--help-all lists all options, also those of {', '.join(f'{part}.*' for part in rest)}."
        blocks.append("\n".join(textwrap.wrap(more, width)))
    return "\n\n".join(blocks)


def _fields(kind: type[Config], default: Config | None) -> Iterator[tuple[str, Any, Any]]:
    """Name, type and default of the fields that are options or parts."""
    hints = typing.get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        hint, value = hints[field.name], field.default
        if value is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        if default is not None:
            value = getattr(default, field.name)
        metadata = getattr(hint, "__metadata__", ())
        if not any(item is mark for item in metadata for mark in HIDDEN):
            yield field.name, hint, value


def positional_names(kind: type[Config]) -> list[str]:
    hints = {name: getattr(hint, "__metadata__", ()) for name, hint, _ in _fields(kind, None)}
    return [name.upper() for name, metadata in hints.items() if any(item is POSITIONAL for item in metadata)]


def _lines(
    kind: type[Config],
    default: Config | None,
    prefix: str,
    width: int,
    only: tuple[str, ...] = (),
    brief: bool = False,
) -> Iterator[str]:
    """The options of a configuration, none of its parts; brief ones without what they mean."""
    docs = _field_docs(kind)
    for name, hint, value in _fields(kind, default):
        if _is_part(hint) or (only and name not in only):
            continue
        metadata = getattr(hint, "__metadata__", ())
        title = option_name(prefix + name)
        if any(item is POSITIONAL for item in metadata):
            title = name.upper()
        elif isinstance(value, bool):
            title = f"{title}, {option_name(f'{prefix}no_{name}')}"
        else:
            title = f"{title} {_metavar(hint)}"
        if brief:
            yield f"{title} {_default(value)}".strip()
            continue
        yield title
        text = f"{docs.get(name, '')} {_default(value)}".strip()
        yield from textwrap.wrap(text, width, initial_indent=" " * INDENT, subsequent_indent=" " * INDENT)


def _is_part(hint: Any) -> bool:
    """Whether a field holds a configuration, or none."""
    if isinstance(hint, type) and typing.get_origin(hint) is None:
        return issubclass(hint, Config)
    return typing.get_origin(hint) is not tuple and any(map(_is_part, typing.get_args(hint)))


def _default(value: Any) -> str:
    if value is dataclasses.MISSING:
        return "(required)"
    if value is None or value == ():
        return ""
    if isinstance(value, bool):
        return f"(default: {'yes' if value else 'no'})"
    return f"(default: {' '.join(map(str, value)) if isinstance(value, tuple) else value})"


def _metavar(hint: Any) -> str:
    """What an option takes, such as `INT ...`."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        named = [item.metavar for item in inner[1:] if getattr(item, "metavar", None)]
        return named[0] if named else _metavar(inner[0])
    if origin is Literal:
        return "{" + ",".join(map(str, inner)) + "}"
    if origin is tuple:
        return f"{_metavar(inner[0])} ..." if inner[-1] is Ellipsis else " ".join(map(_metavar, inner))
    if origin in (typing.Union, types.UnionType):
        return "|".join(dict.fromkeys(_metavar(part) for part in inner if part is not type(None)))
    return {int: "INT", float: "NUMBER", str: "TEXT"}.get(hint, "VALUE")


def _field_docs(kind: type) -> dict[str, str]:
    """What each field means, from the `Arguments:` of a class and those that it inherits from."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        _, _, arguments = (base.__doc__ or "").partition("Arguments:\n")
        for names, text in re.findall(r"^ {8}(\w+(?:, \w+)*): (.*(?:\n {12}.*)*)", arguments, re.M):
            found |= dict.fromkeys(names.split(", "), " ".join(text.split()))
    return found
