"""A configuration written as a command line and parsed is the configuration again."""

import dataclasses
import types
import typing
from typing import Annotated, Any

from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from lola.core.cli import parse
from lola.core.config import Config, ListRule, Within
from lola.core.errors import ConfigError
from lola.workflows import presets

PRESETS = {"smoke": presets.smoke}
SMOKE = PRESETS["smoke"]()
LETTERS = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
TEXT = LETTERS.filter(lambda text: text != "None")  # which stands for no value


def values(hint: Any, rules: tuple[Any, ...] = ()) -> st.SearchStrategy[Any]:
    """Values of a field's type within the range that it is annotated with."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return values(inner[0], (*rules, *inner[1:]))
    if origin in (typing.Union, types.UnionType):
        either = st.one_of(*(values(each, rules) for each in inner))  # one number may also be a list of it
        return either.filter(lambda value: not isinstance(value, tuple) or len(value) != 1)
    if origin is typing.Literal:
        return st.sampled_from(inner)
    if origin is tuple and inner[-1] is Ellipsis:
        listed = next(
            (rule for rule in rules if isinstance(rule, ListRule)), ListRule(empty=True, repeats=True)
        )
        each = values(inner[0]).filter(lambda item: not str(item).startswith("-") or inner[0] is not str)
        lists = st.lists(each, min_size=not listed.empty, max_size=3, unique=not listed.repeats)
        return lists.map(tuple)
    if origin is tuple:
        return st.tuples(*map(values, inner))
    within = next((rule for rule in rules if isinstance(rule, Within)), Within("[-1e18, 1e18]"))
    if hint is int:
        return st.integers(int(within.low), int(min(within.high, 1e18))).filter(within.__contains__)
    if hint is float:
        return st.floats(within.low, min(within.high, 1e30)).filter(within.__contains__)
    return {bool: st.booleans(), str: TEXT, type(None): st.none()}[hint]


def holds_config(hint: Any) -> bool:
    """Whether values of a type are, or contain, configurations."""
    whole = isinstance(hint, type) and typing.get_origin(hint) is None and issubclass(hint, Config)
    return whole or any(map(holds_config, typing.get_args(hint)))


def options(config: Config, path: str = "") -> typing.Iterator[tuple[str, Any, Any]]:
    """The path, type and value of every option of a command."""
    hints = typing.get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        value, hint = getattr(config, field.name), hints[field.name]
        if isinstance(value, Config) and "Fixed" not in str(hint):
            yield from options(value, f"{path}{field.name}.")
        elif not holds_config(hint):
            yield path + field.name, hint, value


def replaced(config: Config, path: str, value: Any) -> Any:
    name, _, rest = path.partition(".")
    return config.replace(**{name: replaced(getattr(config, name), rest, value) if rest else value})


def written(path: str, value: Any) -> list[str]:
    """An option with its value as a user types it."""
    name = "--" + path.replace("_", "-")
    if isinstance(value, bool):
        head, _, last = name.removeprefix("--").rpartition(".")
        return ["--" + ".".join(filter(None, (head, last if value else f"no-{last}")))]
    if isinstance(value, tuple):
        items = [item for each in value for item in (each if isinstance(each, tuple) else (each,))]
        return [name, *map(str, items)]
    return [f"{name}={value}"]


OPTIONS = [each for each in options(SMOKE) if each[0] not in type(SMOKE).superseded]
EFFECTIVE = [each for each in OPTIONS if each[0].partition(".")[0] not in SMOKE.ineffective]


@settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    phases=[Phase.generate],
)
@given(st.data())
def test_what_is_written_is_parsed(data):
    expected, arguments = SMOKE, []
    for path, hint, _ in data.draw(st.lists(st.sampled_from(EFFECTIVE), min_size=1, max_size=4, unique=True)):
        value = data.draw(values(hint), label=path)
        arguments += written(path, value)
        try:
            expected = replaced(expected, path, value)
        except ConfigError:
            assume(False)
    assert parse(arguments, "program.py", "", PRESETS, "smoke") == expected


def test_a_whole_configuration_is_parsed_from_its_command_line():
    arguments = [argument for path, _, value in OPTIONS for argument in written(path, value)]
    assert parse(arguments, "program.py", "", PRESETS, "smoke") == SMOKE
