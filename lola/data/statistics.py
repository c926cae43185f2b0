r"""Statistics of fields, accumulated over blocks and merged in any grouping.

Blocks of $n_a$ and $n_b$ values with means $m_a, m_b$ and sums of squared deviations $S_a, S_b$ combine, with
$\delta = m_b - m_a$ and $n = n_a + n_b$, into

    $m = m_a + \delta n_b / n$,   $S = S_a + S_b + \delta^2 n_a n_b / n$,

which stays accurate where the difference of two large sums does not. The standard deviation is $\sqrt{S/n}$.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Self, cast

import numpy as np

from lola.data.systems import System
from lola.storage.remote import AnyPath
from lola.storage.stages import read_manifest

PARTS = ("mean", "squares", "minimum", "maximum")
"""The parts of `Moments` that are arrays."""


@dataclasses.dataclass
class Moments:
    """The count, mean, sum of squared deviations and extremes of arrays, per tensor component."""

    count: int = 0
    mean: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(()))
    squares: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(()))
    minimum: np.ndarray = dataclasses.field(default_factory=lambda: np.array(np.inf))
    maximum: np.ndarray = dataclasses.field(default_factory=lambda: np.array(-np.inf))

    def add(self, values: np.ndarray, order: int) -> None:
        """Merge a block of values whose last `order` axes are tensor components."""
        axes = tuple(range(values.ndim - order))
        count = int(np.prod([values.shape[axis] for axis in axes]))
        if count == 0:
            return
        mean = values.mean(axis=axes)
        squares = ((values - mean) ** 2).sum(axis=axes)
        self.merge(type(self)(count, mean, squares, values.min(axis=axes), values.max(axis=axes)))

    def merge(self, other: Self) -> None:
        total, delta = self.count + other.count, other.mean - self.mean
        if total == 0:
            return
        self.squares = self.squares + other.squares + delta**2 * self.count * other.count / total
        self.mean = self.mean + delta * other.count / total
        self.minimum = np.minimum(self.minimum, other.minimum)
        self.maximum = np.maximum(self.maximum, other.maximum)
        self.count = total

    @property
    def std(self) -> np.ndarray:
        return np.sqrt(self.squares / max(self.count, 1))

    def summary(self) -> dict[str, Any]:
        """The mean, standard deviation and root mean square, as plain numbers or nested lists of them."""
        rms = np.sqrt(self.std**2 + self.mean**2)
        return {
            name: np.asarray(value).tolist()
            for name, value in (("mean", self.mean), ("std", self.std), ("rms", rms))
        }


def by_field(values: np.ndarray, system: System) -> dict[str, Any]:
    """Values per channel, with shape `(C,)`, as numbers or nested lists by the fields' names."""
    parts = np.split(np.asarray(values), np.cumsum(system.sizes)[:-1])
    return {
        field.name: part.reshape((system.dimensions,) * field.order).tolist()
        for field, part in zip(system.fields, parts, strict=True)
    }


def statistics_table(physical: Moments, transformed: Moments, system: System) -> dict[str, Any]:
    """Statistics by field as in The Well's `stats.yaml`, with extremes, and those after the transforms."""

    def of(moments: Moments) -> dict[str, Any]:
        values = moments.summary() | {"min": moments.minimum, "max": moments.maximum}
        return {name: by_field(np.asarray(value), system) for name, value in values.items()}

    transforms = {field.name: field.transform for field in system.fields}
    return of(physical) | {"transforms": transforms, "transformed": of(transformed)}


def statistics_folder(root: AnyPath, system: str, fingerprint: str) -> AnyPath:
    return root / "statistics" / f"{system}-statistics-{fingerprint[:8]}"


def with_statistics(system: System, folder: AnyPath) -> System:
    """A system with the statistics of a finished stage, as `apply_statistics` takes them.

    Raises:
        StorageError: The folder is no finished stage.
    """
    return apply_statistics(system, read_manifest(folder))


def apply_statistics(system: System, values: Mapping[str, Any]) -> System:
    """A system with the `mean` and `std` of each channel; one that never changes keeps its scale."""
    mean, std = np.array(values["mean"]), np.array(values["std"])
    std = np.where(is_constant(mean, std), 1.0, std)
    return dataclasses.replace(system, mean=tuple(mean.tolist()), std=tuple(std.tolist()))


def recorded_statistics(root: AnyPath, system: str, inputs: Mapping[str, str]) -> dict[str, Any]:
    """What the manifest of a model says of the statistics that were computed for it, if they were.

    With it the model can be used in another storage root.

    Arguments:
        system: The name of the system.
        inputs: The fingerprints of what the model's stage reads, by role.

    Raises:
        StorageError: The statistics are not finished.
    """
    computed = inputs.get("statistics")
    if computed is None:
        return {}
    manifest = read_manifest(statistics_folder(root, system, computed))
    return {"statistics": {name: manifest[name] for name in ("mean", "std")}}


def statistics_of_model(root: AnyPath, manifest: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What `apply_statistics` takes, by the manifest of a model; None if no statistics were computed for it.

    Raises:
        StorageError: The manifest is of an earlier version, which has none, and the root does not have them.
    """
    if "statistics" in manifest:
        return cast(Mapping[str, Any], manifest["statistics"])
    return recorded_statistics(root, manifest["system"], manifest["inputs"]).get("statistics")


def is_constant(mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Which channels do not change but by rounding: their deviation is below float32's of their mean."""
    return std <= np.finfo(np.float32).eps * np.abs(mean)
