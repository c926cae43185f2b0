"""The base of every configuration, and what all configurations can do.

A configuration is a frozen, keyword-only dataclass that refuses impossible values when it is built. Its
fields are of two kinds. *What* is computed (science, precision, global batch) enters the fingerprint
that names the stage's folder; a field that was added later is an `added_field`, which does so unless it has
its default. *How* it is computed (workers, devices, storage, logging) is a `runtime_field`, which never
changes a fingerprint.

The range of a number is part of its type, such as `Annotated[float, Within("[0, 1)")]`; whatever its type, an
integer has 64 bits and a float is finite. Messages name options as `--option`, relative to the configuration;
`Config.check_options` puts the path before it by which the command line knows it.
"""

import contextlib
import contextvars
import dataclasses
import functools
import hashlib
import json
import math
import re
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Self, TypeVar

import pydantic

from lola.core.errors import ConfigError

T = TypeVar("T")
INT64_LIMIT = 2**63

_validation_deferred: contextvars.ContextVar[bool] = contextvars.ContextVar(
    "_validation_deferred", default=False
)


class Within:
    """The range of a number, in the notation of intervals: `[0, 1)` contains 0 but not 1."""

    def __init__(self, interval: str) -> None:
        self.interval = interval
        self.low, self.high = (float(bound) for bound in interval[1:-1].split(","))
        self.closed_low, self.closed_high = interval[0] == "[", interval[-1] == "]"

    def __contains__(self, value: float) -> bool:
        above = value >= self.low if self.closed_low else value > self.low
        below = value <= self.high if self.closed_high else value < self.high
        return above and below

    def __str__(self) -> str:
        if self.high < math.inf:
            return f"must be in {self.interval}"
        return f"must be {'at least' if self.closed_low else 'above'} {self.low:g}"


@dataclasses.dataclass(frozen=True)
class ListRule:
    """What a list must be."""

    empty: bool = False  # whether it may be empty
    repeats: bool = False  # whether it may contain duplicates


Count = Annotated[int, Within("[1, 1e12]")]  # what takes time, but no memory
Size = Annotated[int, Within("[1, 65536]")]  # what takes memory
NonNegativeInt = Annotated[int, Within("[0, 1e9]")]  # what counts from 0
Channels = Annotated[int, Within("[2, 65536]")]  # what is normalised over
Factor = Annotated[int, Within("[1, 64]")]  # what multiplies a size
Kernel = Annotated[int, Within("[1, 63]")]  # what convolutions span
NonEmpty = Annotated[tuple[T, ...], ListRule(repeats=True)]  # at least one
Positive = Annotated[float, Within("(0, 1e30]")]  # within the range of single precision
NotNegative = Annotated[float, Within("[0, 1e30]")]
Fraction = Annotated[float, Within("[0, 1)")]
Gpus = Annotated[float, Within("[0, 1024]")]
Distinct = Annotated[tuple[T, ...], ListRule()]  # at least one, and none twice
DistinctOrNone = Annotated[tuple[T, ...], ListRule(empty=True)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Base of every configuration; subclasses override `validate`."""

    classes: ClassVar[dict[str, type["Config"]]] = {}
    kind_name: ClassVar[str] = ""  # on the command line, among the kinds that a field may hold
    common: ClassVar[tuple[str, ...]] = ()  # the options that the short help shows of a part
    superseded: ClassVar[dict[str, str]] = {}  # options of parts, by those of this configuration instead

    def __init_subclass__(cls) -> None:
        Config.classes[cls.__name__] = cls

    def __post_init__(self) -> None:
        if not _validation_deferred.get():
            self._check_values()
            self.validate()

    def validate(self) -> None:
        """Raise `ConfigError` when the values are impossible together; each is in the range of its type."""

    @property
    def ineffective(self) -> dict[str, str]:
        """Parts that have no effect, by their fields, each with the reason; their options are refused."""
        return {}

    def check_options(self, path: str = "") -> None:
        """Validate this configuration and all within it.

        Arguments:
            path: What precedes its options on the command line, such as `evaluation.sampler.`.

        Raises:
            ConfigError: Values are impossible; options have their whole names.
        """
        for name, part in self.named_parts():
            part.check_options(f"{path}{name}.")
        with prefix_options(path):
            self._check_values()
            self.validate()

    def named_parts(self) -> Iterator[tuple[str, "Config"]]:
        """The configurations directly within this one, by their names on the command line."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            each = [(field.name, value)]
            if isinstance(value, tuple):
                each = [(f"{field.name}.{number}", item) for number, item in enumerate(value)]
            yield from ((name, part) for name, part in each if isinstance(part, Config))

    def _check_values(self) -> None:
        for name, hint in _hints(type(self)).items():  # type: ignore[arg-type]  # classes have hashes
            fault = _describe_fault(getattr(self, name), hint)
            require(not fault, f"{option_name(name)} {fault}")

    def to_json(self) -> dict[str, Any]:
        """The fingerprinted fields, as JSON values; nested configurations name their class."""
        return {
            field.name: _to_json(getattr(self, field.name))
            for field in dataclasses.fields(self)
            if not field.metadata.get("runtime")
            and not _is_default_of_added(field, getattr(self, field.name))
        }

    @property
    def random(self) -> bool:
        """Whether what it configures draws numbers from streams of samples (`lola.core.seeding`)."""
        values = (getattr(self, field.name) for field in dataclasses.fields(self))
        return any(value.random for value in values if isinstance(value, Config))

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed, validated again."""
        return dataclasses.replace(self, **changes)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Rebuild a configuration from `to_json`; an unknown key or a wrong type is a `ConfigError`."""
        known = {field.name for field in dataclasses.fields(cls)}
        surplus = sorted(set(values) - known - {"type"})
        if surplus:
            raise ConfigError(f"{cls.__name__} has no option {', '.join(surplus)}")
        values = {key: _from_json(value) for key, value in values.items() if key != "type"}
        try:
            return pydantic.TypeAdapter(cls).validate_python(values)
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise ConfigError(f"{cls.__name__}: {place or 'values'}: {first['msg']}") from None


def runtime_field(default: Any) -> Any:
    """A dataclass field that does not change results: it is left out of fingerprints."""
    return dataclasses.field(default=default, metadata={"runtime": True})


def added_field(default: Any) -> Any:
    """A field added after stages were made: it enters fingerprints unless it has its default."""
    return dataclasses.field(default=default, metadata={"added": True})


@contextlib.contextmanager
def deferred_validation() -> Iterator[None]:
    """Build configurations without validating them; `Config.check_options` makes up for it."""
    token = _validation_deferred.set(True)
    try:
        yield
    finally:
        _validation_deferred.reset(token)


@contextlib.contextmanager
def prefix_options(path: str) -> Iterator[None]:
    """Put a path, such as `evaluation.`, before the names of options in the messages of `ConfigError`."""
    try:
        yield
    except ConfigError as error:
        before = f"--{path}".replace("_", "-")
        raise ConfigError(re.sub(r"(?<![\w-])--(?=[a-z])", before, str(error))) from error.__cause__


def option_name(name: str) -> str:
    """The name of a field on the command line."""
    return "--" + name.replace("_", "-")


def require(condition: bool, message: str) -> None:
    """Raise `ConfigError` with the message unless the condition holds."""
    if not condition:
        raise ConfigError(message)


def check_gpus(gpus: float) -> None:
    """Raise `ConfigError` unless `--gpus` are a share of one or whole ones, as Ray has it."""
    require(gpus <= 1 or float(gpus).is_integer(), f"--gpus above 1 must be whole, not {gpus}")


def fingerprint(*parts: Any) -> str:
    """A SHA-256 in hex of JSON values, configurations and other fingerprints, in order."""
    canonical = json.dumps([_to_json(part) for part in parts], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested configuration values with dotted names, such as `arms.0.name` of the first of several."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, list) and any(isinstance(item, dict) for item in value):
            value = {str(number): item for number, item in enumerate(value)}
        if isinstance(value, dict):
            result |= flatten(value, f"{prefix}{key}.")
        else:
            result[prefix + key] = value
    return result


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    """The types of a configuration's fields, with what is annotated."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _describe_fault(value: Any, hint: Any, rules: tuple[Any, ...] = ()) -> str:
    """What is wrong with a value of a type, in words that follow its name; nothing if it may be."""
    if typing.get_origin(hint) is Annotated:
        inner, *more = typing.get_args(hint)
        return _describe_fault(value, inner, (*rules, *more))
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return _describe_fault(value, _matching_type(value, typing.get_args(hint)), rules)
    if isinstance(value, tuple):
        return _describe_list_fault(value, typing.get_args(hint), rules)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    if isinstance(value, float) and not math.isfinite(value):
        return f"must be a finite number, not {value}"
    if isinstance(value, int) and not -INT64_LIMIT <= value < INT64_LIMIT:
        return f"must be an integer of 64 bits, not {value}"
    ranges = (rule for rule in rules if isinstance(rule, Within) and value not in rule)
    return next((f"{rule}, not {value}" for rule in ranges), "")


def _describe_list_fault(values: tuple[Any, ...], hints: tuple[Any, ...], rules: tuple[Any, ...]) -> str:
    for rule in rules:
        if isinstance(rule, ListRule):
            if not values and not rule.empty:
                return "must name at least one"
            twice = next((value for number, value in enumerate(values) if value in values[:number]), None)
            if twice is not None and not rule.repeats:
                return f"contains {twice} more than once"
    if len(hints) == 2 and hints[1] is Ellipsis:
        hints = hints[:1] * len(values)
    faults = (_describe_fault(value, hint) for value, hint in zip(values, hints, strict=False))
    return next((fault for fault in faults if fault), "")


def _matching_type(value: Any, hints: tuple[Any, ...]) -> Any:
    """Of the types of a union, that of a value."""
    for hint in hints:
        plain = typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint
        kind = typing.get_origin(plain) or plain
        if isinstance(kind, type) and isinstance(value, (int, float) if kind is float else kind):
            return hint
    return Any


def _from_json(value: Any) -> Any:
    if isinstance(value, dict) and value.get("type") in Config.classes:
        return Config.classes[value["type"]].from_json(value)
    return [_from_json(item) for item in value] if isinstance(value, list) else value


def _is_default_of_added(field: "dataclasses.Field[Any]", value: Any) -> bool:
    return bool(field.metadata.get("added")) and value == field.default


def _to_json(value: Any) -> Any:
    if isinstance(value, Config):
        return {"type": type(value).__name__, **value.to_json()}
    if isinstance(value, dict):
        return {str(key): _to_json(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_to_json(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a configuration cannot hold {type(value).__name__}")
