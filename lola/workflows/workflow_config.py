"""The options that all workflows have."""

import dataclasses
from typing import Annotated

import tyro

from lola.core.config import Config, NonNegativeInt, require, runtime_field
from lola.simulate.simulators import Simulation
from lola.storage.remote import is_url
from lola.workflows.dataset_info import DatasetInfo
from lola.workflows.forecast.cluster import ClusterConfig

OWN_FOLDERS = ("well", "well-smoke", "well-study", "well-optimizers", "well-paper")
"""Folders under the storage root that presets use: what is missing there is simulated."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorkflowConfig(Config):
    """The data, the storage and the cluster of a workflow.

    Arguments:
        system: The physical system: one of euler, rayleigh_benard, turbulence_gravity_cooling and The Well's
            others, a dataset in --well, the folder of a dataset, or a description file.
        well: The folder of Well datasets, absolute, under the storage root, or a URL; of a system that is
            named by a folder it is that folder's parent.
        simulate: Simulate missing datasets also into a folder that --well names.
        include: Use only dataset files whose name contains one of these; default: all files.
        exclude: Skip dataset files whose name contains one of these, and trajectories FILE#NUMBER.
        storage: The storage root, a folder or a URL; else LOLA_STORAGE, else ~/lola-storage.
        concurrency: Maximum number of concurrent trials; 0 is as many as fit the cluster, and one more if the
            cluster can grow.
        plan: Print the estimated time, memory, storage and cost on `cluster`, and run nothing.
        cluster: The cluster that --plan assumes.
    """

    system: Annotated[str, tyro.conf.arg(metavar="NAME|FOLDER|FILE")] = "euler"
    well: str = runtime_field("well")
    simulate: bool = runtime_field(False)
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

    @property
    def simulates(self) -> bool:
        """Whether missing datasets are simulated: never on an object store, nor where nobody asked for it.

        Raises:
            ConfigError: It is asked for, and there is no simulation.
        """
        require(
            not self.simulate or self.simulation is not None,
            f"--simulate: nothing simulates {self.system} here; leave it out, and name a folder of its data",
        )
        return not is_url(self.well) and (self.simulate or self.well in OWN_FOLDERS)

    def fit(self, data: DatasetInfo) -> None:
        """Raise `ConfigError` unless the options fit the data."""
