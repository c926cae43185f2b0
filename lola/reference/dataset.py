"""The data that a published run was trained on, as a physical system of ours.

A run's section `dataset` names Well datasets, the fields in channel order, a transform per channel number and
statistics after it. What is known of the physics besides (symmetries, ranges and starts of the evaluation)
comes from our system of the same datasets. The label of a trajectory is what `WellSplit.parameters` gives:
constants in the file's order, some as logarithms, then boundary codes.
"""

import dataclasses
import math
from typing import Any, get_args

from lola.data.description import SYSTEMS
from lola.data.systems import Field, System, Transform
from lola.models.masks import check_window
from lola.reference.published_run import PublishedRun

OPTIONS = {
    *("name", "physics", "include_filters", "dimensions", "periodic", "fields"),
    *("transform", "stats", "augment"),
}
AUGMENTATIONS = {"random_axis_flip", "random_axis_permute", "random_axis_roll", "log_scalars"}
LOG_SCALARS = ("Rayleigh", "Prandtl", "rho0")  # T0 was meant too, but stayed raw
AXES = "xyz"


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """The windows that an emulator was trained on: their states, and simulation steps between these."""

    length: int = 5
    stride: int = 1


def read_trajectory(run: PublishedRun) -> Trajectory:
    """The section `trajectory`; its `context` describes the training alone.

    Raises:
        DataError: It has other options, or impossible ones.
    """
    section = run.section("trajectory")
    run.refuse_unknown("trajectory", section, {"length", "stride", "context"})
    values = {key: section[key] for key in ("length", "stride") if key in section}
    for key, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise run.error(f"trajectory has {key}: {value}; it must be a positive integer")
    trajectory = Trajectory(**values)
    with run.translate_config_errors("trajectory"):
        check_window(trajectory.length)
    return trajectory


def read_system(run: PublishedRun) -> System | None:
    """The section `dataset` as a system; None where there is none.

    Raises:
        DataError: It has an option that is unknown or not supported.
    """
    section = run.section("dataset")
    if not section:
        return None
    run.refuse_unknown("dataset", section, OPTIONS)
    physics = _list(run, "physics", section.get("physics"))
    dimensions = _dimensions(run, section.get("dimensions"))
    names = [name.lower().replace(" ", "_") for name in _list(run, "fields", section.get("fields"))]
    transforms = _transforms(run, section.get("transform"), len(names))
    mean, std = _statistics(run, section.get("stats"), len(names))
    fields = _fields(run, names, transforms, dimensions)
    augment = _list(run, "augment", section.get("augment") or [])
    run.refuse_unknown("augment", dict.fromkeys(augment), AUGMENTATIONS)
    base = _known_system(run, physics, dimensions, fields) or System(
        str(section.get("name") or "_".join(physics)), (), dimensions, (), (), ()
    )
    return dataclasses.replace(
        base,
        datasets=tuple(physics),
        fields=fields,
        mean=mean,
        std=std,
        log_parameters=LOG_SCALARS if "log_scalars" in augment else (),
        stride=read_trajectory(run).stride,
    )


def _known_system(
    run: PublishedRun, physics: list[str], dimensions: int, fields: tuple[Field, ...]
) -> System | None:
    """Our system of the same datasets, if there is one."""
    for system in SYSTEMS.values():
        if set(physics) & set(system.datasets):
            if not set(physics) <= set(system.datasets) or dimensions != system.dimensions:
                raise run.error(f"dataset mixes {', '.join(physics)} in {dimensions} dimensions")
            ours = {(field.name, field.order) for field in system.fields}
            if {(field.name, field.order) for field in fields} != ours:
                raise run.error(
                    f"dataset has fields {', '.join(field.name for field in fields)}; {system.name} has "
                    f"{', '.join(field.name for field in system.fields)}"
                )
            return system
    return None


def _fields(
    run: PublishedRun, names: list[str], transforms: list[Transform], dimensions: int
) -> tuple[Field, ...]:
    """Scalars, and vectors of as many consecutive components `_x, _y, ...` as there are dimensions."""
    fields, i = [], 0
    while i < len(names):
        stem = names[i].removesuffix("_x")
        components = [f"{stem}_{axis}" for axis in AXES[:dimensions]]
        if names[i] != stem and names[i : i + dimensions] == components:
            if len(set(transforms[i : i + dimensions])) != 1:
                raise run.error(f"dataset transforms the components of {stem} each in another way")
            fields.append(Field(stem, 1, transforms[i]))
            i += dimensions
        else:
            fields.append(Field(names[i], 0, transforms[i]))
            i += 1
    return tuple(fields)


def _transforms(run: PublishedRun, section: Any, channels: int) -> list[Transform]:
    transforms: list[Transform] = ["identity"] * channels
    if not isinstance(section or {}, dict):
        raise run.error(f"dataset has transform: {section}; it must map channel numbers to names")
    for key, name in (section or {}).items():
        if str(key) not in map(str, range(channels)):
            raise run.error(f"dataset transforms channel {key} of {channels}")
        if name not in get_args(Transform):
            raise run.error(f"dataset has transform {name}; we know {', '.join(get_args(Transform))}")
        transforms[int(key)] = name
    return transforms


def _statistics(
    run: PublishedRun, section: Any, channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    section = section if isinstance(section, dict) else {}
    run.refuse_unknown("stats", section, {"mean", "std"})
    found = []
    for name in ("mean", "std"):
        values = section.get(name)
        good = isinstance(values, list) and all(isinstance(value, int | float) for value in values)
        if not good or len(values) != channels:
            raise run.error(f"stats has {name}: {values}; it must be {channels} numbers, one per field")
        if not all(math.isfinite(value) and (name == "mean" or value > 0) for value in values):
            raise run.error(f"stats has {name}: {values}, which cannot standardise")
        found.append(tuple(float(value) for value in values))
    mean, std = found
    return mean, std


def _dimensions(run: PublishedRun, value: Any) -> int:
    dimensions = len(value) if isinstance(value, list) else value
    if dimensions not in (1, 2, 3):
        raise run.error(f"dataset has dimensions: {value}; it must name 1 to 3 axes")
    return int(dimensions)


def _list(run: PublishedRun, name: str, value: Any) -> list[str]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise run.error(f"dataset has {name}: {value}; it must be a list of names")
    return values
