"""The options that all workflows have."""

import dataclasses
from typing import Annotated

import tyro

from lola.core.config import Config, NonNegativeInt, how
from lola.data.systems import SYSTEMS
from lola.simulate.simulators import Simulation
from lola.workflows.dataset_info import DatasetInfo
from lola.workflows.forecast.cluster import ClusterConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorkflowConfig(Config):
    """What is done with the data of one physical system, and where.

    Arguments:
        system: The physical system.
        well: The folder of Well datasets, absolute, under the storage root, or a URL.
        include: Only files of datasets whose name contains one of these are used.
        exclude: Files of datasets whose name contains one of these are not used.
        storage: The storage root, a folder or a URL; else LOLA_STORAGE, else ~/lola-storage.
        concurrency: The most trials at once; 0 is as many as the cluster has resources for, and one more if
            it can grow.
        plan: Whether to print what this takes on the cluster, in time, memory, storage and cost, instead of
            doing it.
        cluster: The cluster that is planned for.
    """

    system: Annotated[str, tyro.conf.arg(metavar="{" + ",".join(SYSTEMS) + "}")] = "euler"
    well: str = how("well")
    include: tuple[str, ...] = how(())
    exclude: tuple[str, ...] = how(())
    storage: str | None = how(None)
    concurrency: NonNegativeInt = how(0)
    plan: bool = how(False)
    cluster: ClusterConfig = dataclasses.field(default_factory=ClusterConfig, metadata={"how": True})

    @property
    def simulation(self) -> Simulation | None:
        """What to simulate where the datasets do not exist."""
        return None

    def fit(self, data: DatasetInfo) -> None:
        """Raise `ConfigError` unless the options fit the data."""
