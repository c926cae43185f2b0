"""What is known of a dataset without reading its fields, also of one that does not exist yet."""

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lola.core.config import fingerprint, require
from lola.core.errors import ConfigError
from lola.data.description import get_system
from lola.data.systems import System
from lola.data.well.selection import is_excluded, is_selected, names_trajectory
from lola.simulate.simulation import simulation_jobs
from lola.simulate.simulators import Simulation

if TYPE_CHECKING:
    from lola.data.well.splits import WellSplit

FLOAT = 4
SHARES = {"train": 0.8, "valid": 0.1, "test": 0.1}  # how The Well splits its trajectories


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """Sizes of a dataset and, once its files exist, fingerprints.

    Arguments:
        origin: Where this is known from, for people.
        grid: Cells along each grid axis.
        steps: The most states of a trajectory that every split has.
        parameters: The length `P` of a trajectory's parameters.
        trajectories: How many there are in each split.
        fingerprints: The fingerprint of each split; empty while the files do not exist.
        excluded: The number of trajectories that were left out one by one.
        lengths: The states of each trajectory of each split; empty if all have `steps`.
    """

    system: System
    origin: str
    grid: tuple[int, ...]
    steps: int
    parameters: int
    trajectories: Mapping[str, int]
    files: int = 0
    fingerprints: Mapping[str, str] = dataclasses.field(default_factory=dict)
    excluded: int = 0
    lengths: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)

    @classmethod
    def of_splits(cls, splits: Mapping[str, "WellSplit"], origin: str = "") -> "DatasetInfo":
        """Of files that exist."""
        from lola.data.well.simulation_files import simulation_files  # here, since it imports torch

        first = splits["test"]
        return cls(
            system=first.system,
            origin=origin,
            grid=first.grid,
            steps=min(split.steps for split in splits.values()),
            parameters=first.parameter_count,
            trajectories={name: len(split.trajectories) for name, split in splits.items()},
            files=sum(len(simulation_files(split)) for split in splits.values()),
            fingerprints={name: split.fingerprint for name, split in splits.items()},
            excluded=sum(len(split.excluded) for split in splits.values()),
            lengths={name: split.lengths for name, split in splits.items()},
        )

    @classmethod
    def of_simulation(
        cls, simulation: Simulation, include: Sequence[str] = (), exclude: Sequence[str] = ()
    ) -> "DatasetInfo":
        """Of what a simulation will write, as far as it will be used.

        Raises:
            ConfigError: A split has no trajectories, or a part of a name matches none of the files.
        """
        counts: Counter[str] = Counter()
        jobs = simulation_jobs(simulation)
        names = list(dict.fromkeys(job.path.name for job in jobs))
        for option, parts in (("--include", include), ("--exclude", exclude)):
            for part in parts:
                file = part.rpartition("#")[0] if names_trajectory(part) else part
                require(
                    any(file.rpartition("/")[2] in name for name in names),
                    f"{option} {part} matches none of the files that will be simulated: {', '.join(names)}",
                )
        chosen = [job for job in jobs if is_selected(job.path.name, include, exclude)]
        for job in chosen:
            ids = (f"{job.path}#{number}" for number in range(job.trajectories))
            counts[job.split] += sum(not is_excluded(name, exclude) for name in ids)
        for split in SHARES:
            require(
                any(job.split == split for job in jobs),
                f"--simulation.{split} must be at least 1: there is a use for each split",
            )
            require(
                counts[split] > 0,
                f"--include and --exclude leave nothing of the {split} split, whose files will be called "
                f"{', '.join(job.path.name for job in jobs if job.split == split)}",
            )
        grid, scalars = simulation.grid, simulation.cases()[0].scalars
        return cls(
            system=get_system(simulation.system),
            origin="not simulated yet",
            grid=grid,
            steps=simulation.outputs + 1,
            parameters=len(scalars) + 2 * len(grid),
            trajectories=counts,
            files=len(chosen),
            excluded=sum(job.trajectories for job in chosen) - counts.total(),
        )

    @classmethod
    def of_publication(cls, system: System) -> "DatasetInfo":
        """Of The Well's published ensemble.

        Raises:
            ConfigError: None of the system was published.
        """
        published = system.published
        if published is None:
            raise ConfigError(
                f"the data of {system.name} do not exist, and none were published whose sizes could be "
                "planned with; name the folder that holds them with --well"
            )
        return cls(
            system=system,
            origin="The Well's published ensemble",
            grid=published.grid,
            steps=published.steps,
            parameters=published.parameter_count,
            trajectories={name: round(share * published.trajectories) for name, share in SHARES.items()},
        )

    @property
    def exists(self) -> bool:
        return bool(self.fingerprints)

    @property
    def fingerprint(self) -> str:
        """The fingerprint of all splits; empty while the files do not exist."""
        return fingerprint(dict(self.fingerprints)) if self.exists else ""

    @property
    def state_bytes(self) -> int:
        return FLOAT * len(self.system.channels) * math.prod(self.grid)

    def bytes(self, *splits: str) -> int:
        """Bytes of some splits, of all by default."""
        return self.state_bytes * self.states(*splits)

    def states(self, *splits: str) -> int:
        """States of some splits, of all by default."""
        return sum(sum(self.lengths_of(name)) for name in splits or SHARES)

    def lengths_of(self, split: str) -> tuple[int, ...]:
        """The states of each trajectory of a split."""
        return self.lengths.get(split) or (self.steps,) * self.trajectories[split]

    def longest(self, split: str) -> int:
        """The most states of a trajectory of a split."""
        return max(self.lengths_of(split))

    def short(self, split: str, span: int) -> int:
        """How many trajectories of a split are shorter than a window of `span` states."""
        return sum(length < span for length in self.lengths_of(split))
