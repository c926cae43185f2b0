"""The options that all workflows have."""

import dataclasses
from typing import Annotated

import tyro

from lola.core.config import Config, NonNegativeInt, runtime_field
from lola.data.systems import SYSTEMS
from lola.simulate.simulators import Simulation
from lola.workflows.dataset_info import DatasetInfo
from lola.workflows.forecast.cluster import ClusterConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorkflowConfig(Config):
    """The data, the storage and the cluster of a workflow.

    Arguments:
        system: The physical system.
        well: The folder of Well datasets, absolute, under the storage root, or a URL.
        include: Use only dataset files whose name contains one of these; default: all files.
        exclude: Skip dataset files whose name contains one of these.
        storage: The storage root, a folder or a URL; else LOLA_STORAGE, else ~/lola-storage.
        concurrency: Maximum number of concurrent trials; 0 is as many as fit the cluster, and one more if the
            cluster can grow.
        plan: Print the estimated time, memory, storage and cost on `cluster`, and run nothing.
        cluster: The cluster that --plan assumes.
    """

    system: Annotated[str, tyro.conf.arg(metavar="{" + ",".join(SYSTEMS) + "}")] = "euler"
    well: str = runtime_field("well")
    include: tuple[str, ...] = runtime_field(())
    exclude: tuple[str, ...] = runtime_field(())
    storage: str | None = runtime_field(None)
    concurrency: NonNegativeInt = runtime_field(0)
    plan: bool = runtime_field(False)
    cluster: ClusterConfig = dataclasses.field(default_factory=ClusterConfig, metadata={"runtime": True})

    @property
    def simulation(self) -> Simulation | None:
        """What to simulate where the datasets do not exist."""
        return None

    def fit(self, data: DatasetInfo) -> None:
        """Raise `ConfigError` unless the options fit the data."""
