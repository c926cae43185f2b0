"""The base of every configuration, and what all configurations can do.

A configuration is a frozen, keyword-only dataclass that refuses impossible values when it is built. Its
fields are of two kinds. *What* is computed (science, precision, global batch) enters the fingerprint
that names the stage's folder; a field that came later is marked with `added` and does so unless it has its
default. *How* it is computed (workers, devices, storage, logging) is marked with `how` and never changes a
fingerprint.
"""

import dataclasses
import hashlib
import json
from typing import Any, ClassVar, Self

import pydantic

from lola.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Base of every configuration; subclasses override `validate`."""

    classes: ClassVar[dict[str, type["Config"]]] = {}

    def __init_subclass__(cls) -> None:
        Config.classes[cls.__name__] = cls

    def __post_init__(self) -> None:
        self.validate()

    def validate(self) -> None:
        """Raise `ConfigError` when the values are impossible, alone or together."""

    def what(self) -> dict[str, Any]:
        """The fingerprinted fields, as JSON values; nested configurations name their class."""
        return {
            field.name: _json(getattr(self, field.name))
            for field in dataclasses.fields(self)
            if not field.metadata.get("how") and not _unchanged(field, getattr(self, field.name))
        }

    @property
    def random(self) -> bool:
        """Whether what it configures draws numbers from streams of samples (`lola.seeding`)."""
        values = (getattr(self, field.name) for field in dataclasses.fields(self))
        return any(value.random for value in values if isinstance(value, Config))

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed, validated again."""
        return dataclasses.replace(self, **changes)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Rebuild a configuration from `what`; an unknown key or a wrong type is a `ConfigError`."""
        known = {field.name for field in dataclasses.fields(cls)}
        surplus = sorted(set(values) - known - {"type"})
        if surplus:
            raise ConfigError(f"{cls.__name__} knows no option {', '.join(surplus)}")
        values = {key: _revive(value) for key, value in values.items() if key != "type"}
        try:
            return pydantic.TypeAdapter(cls).validate_python(values)
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise ConfigError(f"{cls.__name__}: {place or 'values'}: {first['msg']}") from None


def how(default: Any) -> Any:
    """A dataclass field that says how, not what: it is left out of fingerprints."""
    return dataclasses.field(default=default, metadata={"how": True})


def added(default: Any) -> Any:
    """A field that says what, added after others were fingerprinted: it enters unless it has its default."""
    return dataclasses.field(default=default, metadata={"added": True})


def require(condition: bool, message: str) -> None:
    """Raise `ConfigError` with the message unless the condition holds."""
    if not condition:
        raise ConfigError(message)


def fingerprint(*parts: Any) -> str:
    """A SHA-256 in hex of JSON values, configurations and other fingerprints, in order."""
    canonical = json.dumps([_json(part) for part in parts], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested configuration values with dotted names."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            result |= flat(value, f"{prefix}{key}.")
        else:
            result[prefix + key] = value
    return result


def _revive(value: Any) -> Any:
    if isinstance(value, dict) and value.get("type") in Config.classes:
        return Config.classes[value["type"]].from_json(value)
    return [_revive(item) for item in value] if isinstance(value, list) else value


def _unchanged(field: "dataclasses.Field[Any]", value: Any) -> bool:
    return bool(field.metadata.get("added")) and value == field.default


def _json(value: Any) -> Any:
    if isinstance(value, Config):
        return {"type": type(value).__name__, **value.what()}
    if isinstance(value, dict):
        return {str(key): _json(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_json(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a configuration cannot hold {type(value).__name__}")
