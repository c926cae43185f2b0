"""How large the data of a sweep are: those that are there, else those to be simulated, else The Well's."""

import dataclasses
import math

from lola.core.errors import DataError
from lola.data.systems import get_system
from lola.simulate.simulation import jobs
from lola.storage.remote import AnyPath
from lola.storage.stages import well_folder
from lola.workflows.fitting import Data
from lola.workflows.forecast.training_costs import FLOAT, ensemble_of, grid_of
from lola.workflows.plan import Plan
from lola.workflows.sweep import SweepConfig

SHARES = {"train": 0.8, "valid": 0.1, "test": 0.1}  # how The Well splits its trajectories


@dataclasses.dataclass(frozen=True, kw_only=True)
class Extent:
    """The size of a dataset.

    Arguments:
        origin: Where it is known from.
        channels: Channels of a state.
        grid: Cells along each grid axis.
        steps: States of each trajectory.
        trajectories: How many there are in each split.
        plan: The sweep's plan, if the data are there: without them no stage can be finished.
    """

    origin: str
    channels: int
    grid: tuple[int, ...]
    steps: int
    trajectories: dict[str, int]
    plan: Plan | None = None

    @classmethod
    def of(cls, config: SweepConfig, root: AnyPath) -> "Extent":
        """The extent of a sweep's data.

        Raises:
            ConfigError: Nothing tells it.
        """
        channels = len(get_system(config.system).channels)
        try:
            plan = Plan(config, root, well_folder(root, config.well))
        except DataError:  # they are not there yet
            return cls.expected(config)
        splits = {name: plan.datasets.open(plan.system, name) for name in SHARES}
        return cls(
            origin=f"the data in {plan.datasets.root}",
            channels=channels,
            grid=splits["test"].grid,
            steps=max(split.steps for split in splits.values()),
            trajectories={name: len(split.trajectories) for name, split in splits.items()},
            plan=plan,
        )

    @classmethod
    def expected(cls, config: SweepConfig) -> "Extent":
        """The extent of data that are yet to be simulated, or fetched."""
        system, grid = get_system(config.system), grid_of(config)
        counts = dict.fromkeys(SHARES, 0)
        if config.simulation is not None:
            origin, steps = "what is to be simulated", config.simulation.outputs + 1
            for job in jobs(config.simulation):
                counts[job.split] += job.trajectories
        else:
            published = ensemble_of(system)
            origin, steps = "The Well's published ensemble", published.steps
            counts = {name: round(share * published.trajectories) for name, share in SHARES.items()}
        return cls(origin=origin, channels=len(system.channels), grid=grid, steps=steps, trajectories=counts)

    def data(self, config: SweepConfig) -> Data:
        """The data, as what options must fit."""
        system = get_system(config.system)
        parameters = ensemble_of(system).parameter_count
        return Data(
            system=system,
            grid=self.grid,
            steps=self.steps,
            parameters=parameters,
            trajectories=self.trajectories,
        )

    @property
    def state(self) -> float:
        """Bytes of a state."""
        return FLOAT * self.channels * math.prod(self.grid)

    def bytes(self, *splits: str) -> float:
        """Bytes of some splits, of all by default."""
        return self.state * self.steps * sum(self.trajectories[name] for name in splits or SHARES)
