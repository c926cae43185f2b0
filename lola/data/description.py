"""Descriptions of physical systems: YAML files that say what the files of a dataset cannot.

A description is complete, as those that come with this package, or it adds to what the headers of a dataset's
files say. All keys are optional where there are files:

    name, datasets          what the system is called, and the folders of its datasets
    dimensions              the number of grid axes
    fields                  a mapping of the fields in channel order, others are left out; of each `order`,
                            `transform` and `role` (`state`, `constant`, `scalar`)
    log_parameters          constants of the simulation that networks see as logarithms
    symmetries              `flips` (axes, from 0), `permute`, `roll`, `reflections`
    stride, starts, ranges  simulation steps between states, start states and lead times of the evaluation
    shown                   the channel that pictures show
    mask                    `field`, a constant field, and `outside`, its value outside of the domain: in land
                            or solids, which losses, statistics and scores leave out
    conserved, bounds       what the physics conserves, and the physical values of channels
    geometry                the kinds of grid axes by name, where coordinates do not say them: `uniform`,
                            `nonuniform`, `log`, `chebyshev`, `radius`, `log_radius`, `colatitude`,
                            `latitude`, `longitude` (see `lola.data.geometry`)
    seconds_per_state       of the simulator, for the table of speeds
    mean, std, published    statistics and size of a published training set

All trainings depend on `name`, `datasets`, fields, `log_parameters`, `symmetries` and `mask`, and on whether
`mean` and `std` are given; emulators on `stride`. The other keys change what is scored or shown alone.
"""

import dataclasses
import functools
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import pydantic
import yaml

from lola.core.errors import ConfigError, did_you_mean
from lola.data.geometry import AxisKind
from lola.data.systems import (
    Boundary,
    Bounds,
    EnsembleSize,
    Field,
    Invariant,
    Mask,
    Reflection,
    Role,
    System,
    Transform,
)

FILE_NAME = "system.yaml"
"""The description next to the `data` folder of a dataset."""
BUILT_IN = Path(__file__).with_name("descriptions")
PAPER = ("euler", "rayleigh_benard", "turbulence_gravity_cooling")
Range: TypeAlias = tuple[pydantic.PositiveInt, pydantic.PositiveInt | None]


class _Part(pydantic.BaseModel):
    """Refuses keys that mean nothing."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True)


class _Field(_Part):
    order: Literal[0, 1, 2] | None = None
    transform: Transform = "identity"
    role: Role | None = None


class _Reflection(_Part):
    axis: pydantic.NonNegativeInt
    complements: list[tuple[str, float]] = []
    tilts: list[tuple[str, float]] = []


class _Symmetries(_Part):
    flips: list[pydantic.NonNegativeInt] = []
    permute: bool = False
    roll: bool = False
    reflections: list[_Reflection] = []


class _Invariant(_Part):
    channels: Annotated[list[str], pydantic.Field(min_length=1)]
    boundaries: list[Literal["wall", "open", "periodic"]] = ["periodic"]


class _Mask(_Part):
    field: str
    outside: pydantic.FiniteFloat


class _EnsembleSize(_Part):
    grid: list[pydantic.PositiveInt]
    trajectories: pydantic.PositiveInt
    steps: pydantic.PositiveInt
    constants: pydantic.NonNegativeInt


class Description(_Part):
    """The content of a description file; see the module."""

    name: str | None = None
    datasets: list[str] | None = None
    dimensions: Literal[1, 2, 3] | None = None
    fields: dict[str, _Field] | None = None
    log_parameters: list[str] = []
    symmetries: _Symmetries = _Symmetries()
    stride: pydantic.PositiveInt = 1
    starts: Annotated[list[pydantic.NonNegativeInt], pydantic.Field(min_length=1)] = [0]
    ranges: list[Range] | None = None
    spectrum_ranges: list[Range] = []
    shown: str | None = None
    mask: _Mask | None = None
    conserved: dict[str, _Invariant] = {}
    bounds: dict[str, tuple[float | None, float | None]] = {}
    geometry: dict[str, AxisKind] = {}
    seconds_per_state: pydantic.PositiveFloat | None = None
    mean: list[float] = []
    std: list[pydantic.PositiveFloat] = []
    published: _EnsembleSize | None = None


_PARTS: dict[tuple[type[_Part], str], type[_Part]] = {
    (Description, "fields"): _Field,
    (Description, "symmetries"): _Symmetries,
    (_Symmetries, "reflections"): _Reflection,
    (Description, "conserved"): _Invariant,
    (Description, "mask"): _Mask,
    (Description, "published"): _EnsembleSize,
}
"""What the keys of a part hold."""


def read_description(text: str, source: str) -> Description:
    """Parse a description file.

    Arguments:
        text: Its content.
        source: Its path, for errors.

    Raises:
        ConfigError: It is no YAML, or a key is unknown or has an impossible value; names file and key.
    """
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{source} is no YAML{line}: {getattr(error, 'problem', error)}") from error
    if not isinstance(values or {}, dict):
        raise ConfigError(f"{source} must be a mapping of keys to values; experiments/describe.py writes one")
    try:
        return Description.model_validate(_as_tuples(values or {}))
    except pydantic.ValidationError as error:
        raise ConfigError(f"{source}: {_describe_fault(error)}") from error


def _as_tuples(values: dict[str, Any]) -> dict[str, Any]:
    """YAML has lists where the schema, which is strict about all else, has tuples; ints are floats too.

    Known keys without a value are left out.
    """
    values = _with_values(values, Description)
    for key in ("ranges", "spectrum_ranges"):
        if isinstance(values.get(key), list):
            values[key] = [tuple(each) if isinstance(each, list) else each for each in values[key]]
    if isinstance(values.get("bounds"), dict):
        values["bounds"] = {
            str(key): tuple(each) if isinstance(each, list) else each
            for key, each in values["bounds"].items()
        }
    symmetries = values.get("symmetries")
    if isinstance(symmetries, dict):
        symmetries = values["symmetries"] = _with_values(symmetries, _Symmetries)
    for reflection in symmetries.get("reflections") or [] if isinstance(symmetries, dict) else []:
        for key in ("complements", "tilts") if isinstance(reflection, dict) else ():
            if isinstance(reflection.get(key), list):
                reflection[key] = [tuple(e) if isinstance(e, list) else e for e in reflection[key]]
    fields = values.get("fields")
    if isinstance(fields, dict):
        values["fields"] = {str(name): each or {} for name, each in fields.items()}
    return values


def _with_values(values: dict[Any, Any], part: type[_Part]) -> dict[str, Any]:
    """What is given of a part, unknown keys with it, which are refused."""
    named = {str(key): value for key, value in values.items()}
    return {key: value for key, value in named.items() if value is not None or key not in part.model_fields}


def _describe_fault(error: pydantic.ValidationError) -> str:
    """The first fault, with its key, the value seen, and what there may be instead."""
    faults = error.errors()
    # A misspelt key may also be missed under its right name
    first = next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        owner: type[_Part] = Description
        for part in first["loc"][:-1]:
            owner = _PARTS.get((owner, str(part)), owner)
        known = owner.model_fields
        meant = did_you_mean(str(first["loc"][-1]), known)
        return f"{key} is no key of a description; known are {', '.join(known)}{meant}"
    return f"{key}: {first['msg'][0].lower()}{first['msg'][1:]}, not {first['input']!r}"


def build_system(description: Description, source: str, inferred: System | None = None) -> System:
    """The system of a description, with what the files of a dataset say of the rest.

    Arguments:
        description: The description.
        source: Its path, for errors.
        inferred: The system that the files' headers describe (`lola.data.well.header.infer_system`).

    Raises:
        ConfigError: The description does not fit itself or the files, or lacks what no file says.
    """
    name = description.name or (inferred.name if inferred else None)
    dimensions = description.dimensions or (inferred.dimensions if inferred else None)
    if name is None or dimensions is None or (description.fields is None and inferred is None):
        lacking = "name" if name is None else "dimensions" if dimensions is None else "fields"
        raise ConfigError(f"{source} has no {lacking}, and no data beside it that tell; add the key")
    if inferred is not None and dimensions != inferred.dimensions:
        raise ConfigError(
            f"{source}: dimensions is {dimensions}, but the data have {inferred.dimensions}; omit it"
        )
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.]*", name):
        raise ConfigError(f"{source}: name is {name!r}; use letters, digits, points and underscores")
    fields = _fields(description, source, inferred)
    system = System(
        name=name,
        datasets=tuple(description.datasets or (inferred.datasets if inferred else (name,))),
        dimensions=dimensions,
        fields=fields,
        mean=tuple(description.mean),
        std=tuple(description.std),
        log_parameters=tuple(description.log_parameters),
        flips=tuple(description.symmetries.flips),
        permute=description.symmetries.permute,
        roll=description.symmetries.roll,
        reflections=tuple(
            Reflection(each.axis, tuple(each.complements), tuple(each.tilts))
            for each in description.symmetries.reflections
        ),
        stride=description.stride,
        starts=tuple(description.starts),
        ranges=tuple(description.ranges or (inferred.ranges if inferred else ())),
        spectrum_ranges=tuple(description.spectrum_ranges),
        shown=description.shown or "",
        conserved=tuple(
            Invariant(key, tuple(each.channels), tuple(Boundary[b.upper()] for b in each.boundaries))
            for key, each in description.conserved.items()
        ),
        bounds=tuple(Bounds(key, low, high) for key, (low, high) in description.bounds.items()),
        seconds_per_state=description.seconds_per_state,
        published=_published(description.published),
        described=True,
        mask=None if description.mask is None else Mask(**description.mask.model_dump()),
        geometry=tuple((dict(inferred.geometry if inferred else ()) | description.geometry).items()),
        axes=inferred.axes if inferred else (),
        constants=inferred.constants if inferred else (),
    )
    if not system.shown:
        state = next((system.channels[n] for n in system.evolving), system.channels[0])
        system = dataclasses.replace(system, shown=state)
    if inferred is not None:
        _require_known(description.geometry, inferred.axes, f"{source}: geometry", "grid axes")
        _check_constants(system, source)
    _check(system, source)
    return system


def _require_known(names: Iterable[str], known: Iterable[str], key: str, kind: str) -> None:
    """Raise `ConfigError` unless what a key names exists; says what does, and which is most alike."""
    for name in names:
        if name not in (there := list(known)):
            listed = ", ".join(there) or "none"
            raise ConfigError(f"{key} names {name}; the {kind} are {listed}{did_you_mean(name, there)}")


def _check_constants(system: System, source: str) -> None:
    varying = [field.name for field in system.fields if field.role == "scalar"]
    for name in system.log_parameters:
        if name in varying:
            raise ConfigError(
                f"{source}: log_parameters names {name}, which varies in time; give it the transform log "
                "under the key fields"
            )
    _require_known(
        system.log_parameters, system.constants, f"{source}: log_parameters", "constants of the simulations"
    )


def _published(size: _EnsembleSize | None) -> EnsembleSize | None:
    if size is None:
        return None
    return EnsembleSize(tuple(size.grid), size.trajectories, size.steps, size.constants)


def _fields(description: Description, source: str, inferred: System | None) -> tuple[Field, ...]:
    """The fields of a description, with what it leaves open as the files have it."""
    known = {field.name: field for field in inferred.fields} if inferred else {}
    if description.fields is None:
        return tuple(known.values())
    fields = []
    for name, given in description.fields.items():
        stored = known.get(name)
        if inferred is not None and stored is None:
            raise ConfigError(
                f"{source}: fields.{name} is no field of the data; they have {', '.join(known)}"
                f"{did_you_mean(name, known)}"
            )
        if stored is not None and given.order not in (None, stored.order):
            raise ConfigError(
                f"{source}: fields.{name}.order is {given.order}, and the data have {stored.order}; omit it"
            )
        order = stored.order if stored else given.order or 0
        fields.append(Field(name, order, given.transform, given.role or (stored.role if stored else "state")))
    if not any(field.role == "state" for field in fields):
        raise ConfigError(f"{source}: fields has none whose role is state; nothing would be left to emulate")
    return tuple(fields)


def _check(system: System, source: str) -> None:
    """Raise `ConfigError` unless what a description names exists."""
    constant = [field.name for field in system.fields if field.role == "constant" and not field.order]
    if system.mask is not None:
        kind = "scalar fields that are constant in time"
        _require_known([system.mask.field], constant, f"{source}: mask.field", kind)
    named = {"shown": [system.shown], "bounds": [each.channel for each in system.bounds]}
    named |= {f"conserved.{each.name}.channels": list(each.channels) for each in system.conserved}
    named["symmetries.reflections"] = [
        name for each in system.reflections for name, _ in (*each.complements, *each.tilts)
    ]
    evolving = [system.channels[number] for number in system.evolving]
    for key, names in named.items():
        _require_known(names, system.channels, f"{source}: {key}", "channels")
        for name in names:
            if name not in evolving and key != "bounds":
                raise ConfigError(
                    f"{source}: {key} names {name}, which is given and not emulated; choose from "
                    f"{', '.join(evolving)}"
                )
    axes = [*system.flips, *(each.axis for each in system.reflections)]
    if wrong := [axis for axis in axes if axis >= system.dimensions]:
        raise ConfigError(
            f"{source}: symmetries name axis {wrong[0]}; the axes are 0 to {system.dimensions - 1}"
        )
    for each in system.bounds:
        if each.low is not None and each.high is not None and each.low >= each.high:
            raise ConfigError(f"{source}: bounds.{each.channel} must be [low, high] with low below high")
    for first, last in (*system.ranges, *system.spectrum_ranges):
        if last is not None and last < first:
            raise ConfigError(f"{source}: ranges has [{first}, {last}], which is empty; give [first, last]")
    if bool(system.mean) != bool(system.std):
        given, lacking = ("mean", "std") if system.mean else ("std", "mean")
        raise ConfigError(f"{source}: {given} is given without {lacking}; add {lacking}, or remove both")
    for key in ("mean", "std"):
        values: tuple[float, ...] = getattr(system, key)
        if len(values) not in (0, len(system.channels)):
            raise ConfigError(
                f"{source}: {key} has {len(values)} numbers for {len(system.channels)} channels "
                f"({', '.join(system.channels)})"
            )


@functools.cache
def get_system(name: str) -> System:
    """A system whose description comes with this package.

    Raises:
        ConfigError: There is none of this name; lists those that there are.
    """
    path = BUILT_IN / f"{name}.yaml"
    if name not in described_systems():
        raise ConfigError(
            f"no system is called {name!r}; name a dataset's folder, a description file, or one of "
            f"{', '.join(described_systems())}"
        )
    system = build_system(read_description(path.read_text(encoding="utf-8"), str(path)), str(path))
    return dataclasses.replace(system, described=name not in PAPER)


@functools.cache
def described_systems() -> tuple[str, ...]:
    """The names of the systems whose descriptions come with this package, those of the paper first."""
    names = sorted(path.stem for path in BUILT_IN.glob("*.yaml"))
    return (*PAPER, *(name for name in names if name not in PAPER))


SYSTEMS: Mapping[str, System] = {name: get_system(name) for name in PAPER}
"""The systems of the paper, whose simulators are at hand."""
EULER, RAYLEIGH_BENARD, TURBULENCE_GRAVITY_COOLING = SYSTEMS.values()
