"""Drafts of descriptions: what the data suggest for each key of a `system.yaml`, and why.

Each suggestion is a rule of thumb whose numbers stand in the comment next to it. What changes the meaning of
results (symmetries that files cannot show, conserved quantities) is written as a comment.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path

from lola.core.errors import DataError, MissingDataError
from lola.core.filesystem import expand
from lola.core.waiting import Log
from lola.data.description import FILE_NAME, build_system, read_description
from lola.data.hdf5 import list_files
from lola.data.survey import ChannelSurvey, Survey, survey
from lola.data.systems import Field, System
from lola.data.transforms import EPSILON
from lola.data.well.datasets import Datasets
from lola.data.well.find import describe_folder
from lola.data.well.splits import WellSplit
from lola.storage.stages import atomic_path

DECADES = 2  # between the quantiles 0.01 and 0.99 of a positive field, from which on its logarithm is taken
HEAVY_TAILS = 10  # kurtosis
CHANGE = 0.2  # deviations between the states of a window
MIN_STATES = 12  # of a trajectory, after the stride
ISOTROPY = 0.2  # relative difference of axes that may be exchanged
CONSERVED = 1e-3  # deviations
SHOWN = 5  # trajectories that a comment lists
YAML_WORDS = ("y", "n", "yes", "no", "on", "off", "true", "false", "null")


def describe_dataset(folder: str, overwrite: bool, log: Log, exclude: tuple[str, ...] = ()) -> Path:
    """Write a draft of a dataset's description next to its data.

    Arguments:
        folder: The folder of the dataset.
        overwrite: Whether to replace a description.
        log: Takes what was inferred.
        exclude: Files and trajectories that are not read, as for `Datasets`.

    Returns:
        The description, `system.yaml`.

    Raises:
        DataError: The dataset has a description, or its files are missing or faulty.
    """
    location = expand(folder)
    path = location / FILE_NAME
    if not list_files(location / "data" / "train"):
        raise MissingDataError(describe_folder(location))
    if path.exists() and not overwrite:
        raise DataError(f"{path} exists; edit it, or give --overwrite to replace it by a draft")
    datasets = Datasets(location.parent, exclude=exclude)
    system = datasets.infer(location.name)
    datasets.check(system)
    split = datasets.open(system, "train")
    text = draft(split, survey(split, log), location.name)
    build_system(read_description(text, str(path)), str(path), split.system)  # before anything is written
    for line in text.splitlines():
        log(line)
    with atomic_path(path) as tmp_path:
        tmp_path.write_text(text, encoding="utf-8")
    return path


def draft(split: WellSplit, found: Survey, dataset: str) -> str:
    """The text of a description."""
    grid, count = " x ".join(map(str, split.grid)), len(split.trajectories)
    lines = [
        f"# A draft by experiments/describe.py, from {found.trajectories} of {count} training trajectories",
        f"# ({split.steps} states, grid {grid}). Edit it: what files cannot show is for you to state.",
        "# Any key may be removed.",
        f"name: {_quote(split.system.name)}",
        f"datasets: [{_quote(dataset)}]",
        "",
        "# In the order of channels; fields that are removed here are not read.",
        "fields:",
    ]
    for field in split.system.fields:
        transform, why = suggest_transform(field, split.system, found)
        value = f"transform: {transform}" if transform != "identity" else ""
        missing = max(each.missing for each in _surveys(field, split.system, found))
        gaps = f"; {missing:.2g} of its values are missing" if missing else ""
        lines.append(f"  {_quote(field.name)}: {{{value}}}  # {why}{gaps}")
    for part in (_mask, _geometry, _parameters, _symmetries, _times, _shown, _bounds, _conserved):
        lines += ["", *part(split, found)]
    return "\n".join(lines) + "\n"


def _quote(name: str) -> str:
    """A name as YAML takes it for a string."""
    plain = name.replace("_", "").isalnum() and not name[0].isdigit()
    return name if plain and name.lower() not in YAML_WORDS else json.dumps(name)


def _surveys(field: Field, system: System, found: Survey) -> list[ChannelSurvey]:
    """Those of a field's channels."""
    position = [each.name for each in system.fields].index(field.name)
    start = sum(system.sizes[:position])
    return [found.channels[name] for name in system.channels[start : start + system.sizes[position]]]


def suggest_transform(field: Field, system: System, found: Survey) -> tuple[str, str]:
    """The transform of a field, and why."""
    channels = [each for each in _surveys(field, system, found) if each.missing < 1]
    if not channels:
        return "identity", "remove it"
    low, high = min(each.low for each in channels), max(each.high for each in channels)
    role = "" if field.role == "state" else f"{field.role}, "
    span = f"{role}{low:.3g} to {high:.3g}"
    kurtosis = max(each.kurtosis for each in channels)
    tail = max(max(abs(each.quantiles[0]), abs(each.quantiles[-1])) for each in channels)
    if field.order == 0 and low >= 0 and high > low:
        _, bottom, _, top, _ = channels[0].quantiles
        skewed = 2 * abs(channels[0].log_skewness) < abs(channels[0].skewness)
        decades = math.log10(top / max(bottom, EPSILON)) if top > 0 else 0.0
        if low > 0 and decades >= DECADES and skewed:
            return "log", f"{span}: positive, {decades:.1f} decades between its quantiles 0.01 and 0.99"
        if low == 0 and bottom > EPSILON and decades >= DECADES:
            return "log_eps", f"{span}: {decades:.1f} decades between its quantiles 0.01 and 0.99, and zeros"
    if kurtosis >= HEAVY_TAILS and tail > 3:
        return "arcsinh", f"{span}: heavy tails (kurtosis {kurtosis:.0f}; 3 of a normal distribution)"
    if kurtosis >= HEAVY_TAILS:
        return (
            "identity",
            f"{span}: heavy tails (kurtosis {kurtosis:.0f}), but too small for arcsinh to matter",
        )
    return "identity", span


def _mask(split: WellSplit, found: Survey) -> Iterator[str]:
    """What to do about missing values: a mask, if they are always in the same cells."""
    if not found.gaps:
        yield "# No value of the sample is missing. Where a domain has land or solids, a mask says so:"
        yield "# mask: {field: NAME, outside: 1}  # a scalar field that is constant in time, and 1 there"
        return
    channels = [name for name in split.system.channels if any(name in own for own in found.gaps.values())]
    moving = [name for name in channels if not all(own.get(name, True) for own in found.gaps.values())]
    yield f"# Values are missing (nan, infinite or a fill value) of {', '.join(channels)},"
    yield f"# in {len(found.gaps)} of {found.trajectories} trajectories: {' '.join(list(found.gaps)[:SHOWN])}"
    if moving:
        yield f"# In cells that change with time: {', '.join(moving)}."
        yield "# Remove the field above, or leave the trajectories out with --exclude."
    elif found.masks:
        (name, value), *_ = found.masks.items()
        yield f"# Always in the same cells, where {name} is {value:g}: outside of the domain, to be left out."
        yield f"mask: {{field: {_quote(name)}, outside: {value!r}}}"
    else:
        yield "# Always in the same cells, such as land: store a scalar field that is constant in time, 1"
        yield "# there and 0 elsewhere, in all files, and name it here; or leave the trajectories out."
        yield "# mask: {field: NAME, outside: 1}"


def _geometry(split: WellSplit, found: Survey) -> Iterator[str]:
    """The kinds of axes, as a comment."""
    kinds = ", ".join(
        f"{_quote(name)}: {kind}" for name, kind in zip(split.axes, split.geometry, strict=True)
    )
    yield "# Kinds of the grid axes, as their names and coordinates say; state those that are others."
    yield f"# geometry: {{{kinds}}}"


def _parameters(split: WellSplit, found: Survey) -> Iterator[str]:
    """Constants that vary over a decade."""
    chosen, seen = [], []
    for number, name in enumerate(split.constants):
        values = [float(each.scalars[number]) for each in split.trajectories]
        seen.append(f"{name} {min(values):g} to {max(values):g}")
        if min(values) > 0 and max(values) >= 10 * min(values):
            chosen.append(_quote(name))
    yield "# Constants of the simulations that networks see as logarithms: positive, over a decade or more."
    yield f"log_parameters: [{', '.join(chosen)}]  # of {', '.join(seen) or 'none'}"


def _symmetries(split: WellSplit, found: Survey) -> Iterator[str]:
    """Rolls along periodic axes, exchanges of equal axes; reflections for the reader to decide."""
    yield "# Symmetries that augment training data. Forcing, gravity or a mean flow breaks some: remove them."
    yield "symmetries:"
    axes = range(split.system.dimensions)
    if found.periodic:
        yield f"  roll: true  # the axes {', '.join(map(str, found.periodic))} (from 0) are periodic"
    else:
        yield "  roll: false  # no axis is periodic"
    if len(found.periodic) == len(axes) > 1:
        yield _exchange(split, found)
    yield f"  # flips: [{', '.join(map(str, axes))}]  # if mirror images are solutions as well"


def _exchange(split: WellSplit, found: Survey) -> str:
    """Whether axes may be exchanged: equal in size and spacing, and in roughness of the scalar fields."""
    spacings = [float(each[1] - each[0]) if len(each) > 1 else 0.0 for each in split.coordinates]
    if len(set(split.grid)) > 1 or max(spacings) - min(spacings) > 1e-3 * max(map(abs, spacings)):
        return "  permute: false  # the axes differ in length or spacing"
    scalars = [split.system.channels.index(f.name) for f in split.system.fields if f.order == 0]
    rough = found.roughness[scalars]
    rough = rough[rough.max(1) > 0]
    difference = float(((rough.max(1) - rough.min(1)) / rough.max(1)).max()) if len(rough) else 0.0
    if difference > ISOTROPY:
        return f"  permute: false  # the axes are alike, but fields are {difference:.0%} rougher along one"
    return "  permute: true  # all axes are periodic and alike, and fields as rough along each"


def suggest_stride(split: WellSplit, found: Survey) -> int:
    """The smallest power of two at which states differ by `CHANGE`, with `MIN_STATES` left."""
    allowed = [lag for lag in sorted(found.persistence) if (split.steps - 1) // lag >= MIN_STATES] or [1]
    return next((lag for lag in allowed if found.persistence.get(lag, 1.0) >= CHANGE), allowed[-1])


def _times(split: WellSplit, found: Survey) -> Iterator[str]:
    """The stride, the start states and the ranges of lead times."""
    stride = suggest_stride(split, found)
    errors = [(lag, error) for lag, error in sorted(found.persistence.items()) if lag <= 2 * stride]
    shown = ", ".join(f"{error:.2g} in {lag}" for lag, error in errors)
    states = (split.steps - 1) // stride
    first, second = stride * max(1, states // 5), stride * max(2, 3 * states // 5)
    yield f"# Steps between the states that networks see. Fields change by {shown} steps,"
    yield f"# in deviations; {CHANGE} is worth a state, if {MIN_STATES} states are left of a trajectory."
    yield f"stride: {stride}"
    yield "# The states that evaluations start from, and their ranges of lead times, in steps."
    yield "starts: [0]"
    if states > 2:
        yield f"ranges: [[1, {first}], [{first + 1}, {second}], [{second + 1}, null]]"


def _shown(split: WellSplit, found: Survey) -> Iterator[str]:
    """The first scalar field that varies, else the first channel."""
    evolving = [split.system.channels[number] for number in split.system.evolving]
    scalars = [field.name for field in split.system.fields if field.order == 0 and field.role == "state"]
    varied = [name for name in (*scalars, *evolving) if found.channels[name].std > 0]
    yield f"# The channel of pictures, one of {', '.join(evolving)}."
    yield f"shown: {_quote((varied or evolving)[0])}"


def _bounds(split: WellSplit, found: Survey) -> Iterator[str]:
    """Fields that are never negative."""
    scalars = [field.name for field in split.system.fields if field.order == 0 and field.role == "state"]
    known = [name for name in scalars if found.channels[name].missing < 1]
    names = [name for name in known if found.channels[name].low >= 0]
    yield "# Physical values, [low, high], null for none; statistics tell which states leave them."
    yield "bounds:  # not negative in the sample" if names else "bounds: {}"
    for name in names:
        channel = found.channels[name]
        yield f"  {_quote(name)}: [0, null]  # {channel.low:.3g} to {channel.high:.3g}"


def _conserved(split: WellSplit, found: Survey) -> Iterator[str]:
    """Channels whose total is constant in periodic domains, as comments."""
    kept = [
        split.system.channels[number]
        for number in split.system.evolving
        if found.channels[split.system.channels[number]].std > 0
        and found.channels[split.system.channels[number]].drift < CONSERVED
    ]
    if len(found.periodic) < split.system.dimensions or not kept:
        yield "# No total of a field stays the same in a periodic domain."
        return
    yield f"# These totals change by less than {CONSERVED:g} deviations; reports show what emulators do."
    yield "# conserved:"
    for name in kept:
        yield f"#   {name}: {{channels: [{_quote(name)}], boundaries: [periodic]}}"
