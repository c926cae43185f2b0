"""The configuration of films of an ensemble."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated

from lola.core.config import Config, DistinctOrNone, NonNegativeInt, Within, require

DPI = 100
PIXELS = 8192  # of a frame's longer side; encoders of films take no more


@dataclasses.dataclass(frozen=True, kw_only=True)
class FilmConfig(Config):
    """The content of a film.

    Arguments:
        fields: Channels, a row of pictures each; without any, the one that pictures of the system show.
        members: Members shown in addition to mean and spread.
        trajectory: The place of the trajectory among those emulated.
        rate: States per second.
        size: Pixels along the first axis of a picture.
    """

    common = ("fields", "members")

    fields: DistinctOrNone[str] = ()
    members: NonNegativeInt = 2
    trajectory: NonNegativeInt = 0
    rate: Annotated[int, Within("[1, 60]")] = 5
    size: Annotated[int, Within("[32, 4096]")] = 240

    def check_contents(self, channels: Sequence[str], trajectories: int) -> None:
        """Raise `ConfigError` unless the fields are among `channels`, and there is such a trajectory."""
        require(
            self.trajectory < trajectories,
            f"--trajectory {self.trajectory}: the ensemble has {trajectories} trajectories, counted from 0",
        )
        for name in self.fields:
            require(
                name in channels,
                f"--fields: the ensemble has no field {name}; there are {', '.join(channels)}",
            )

    def columns(self, members: int, truth: bool) -> list[str]:
        """The pictures of a frame, from left to right, for an ensemble of `members` members."""
        shown = [f"member {number + 1}" for number in range(min(self.members, members))]
        return [*(["truth"] if truth else []), *(["mean", "spread", *shown] if members > 1 else ["emulated"])]

    def frame(self, grid: Sequence[int], columns: int) -> tuple[float, float]:
        """Width and height of a frame in inches.

        Raises:
            ConfigError: No film can be so large.
        """
        inches = self.size / DPI
        width = (inches + 0.1) * columns + 1.2
        height = (inches * grid[1] / grid[0] + 0.1) * max(1, len(self.fields)) + 0.8
        pixels = DPI * max(width, height)
        require(
            pixels <= PIXELS,
            f"a --size of {self.size} makes frames of {pixels:.0f} pixels, and {PIXELS} are the most; "
            "choose a smaller one, fewer --members or fewer --fields",
        )
        return width, height
