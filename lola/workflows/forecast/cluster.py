"""The cluster that a plan is priced for."""

import dataclasses
from typing import Annotated, Literal

from lola.core.config import Config, NonNegativeInt, NotNegative, Within

CORES = 24  # per GPU, of the usual machines of 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClusterConfig(Config):
    """A cluster, and what it costs.

    Arguments:
        gpus: GPUs; with none, everything is planned for CPUs like this machine's.
        kind: Their kind, for published figures.
        utilisation: The fraction of the peak that is reached where nothing was measured: an assumption.
        cpus: CPU cores; 0 is 24 per GPU, or this machine's.
        storage: Gigabytes that the results may take; 0 is the free space of the storage root.
        gpu_price: Of a GPU for an hour.
        cpu_price: Of a CPU core for an hour, where there are no GPUs.
        storage_price: Of a terabyte for a month of 30 days.
    """

    gpus: NonNegativeInt = 0
    kind: Literal["h100", "h100-pcie", "h200", "a100-80gb", "a100-40gb", "l40s"] = "h100"
    utilisation: Annotated[float, Within("(0, 1]")] = 0.4
    cpus: NonNegativeInt = 0
    storage: NotNegative = 0.0
    gpu_price: NotNegative = 0.0
    cpu_price: NotNegative = 0.0
    storage_price: NotNegative = 0.0

    def capacity(self, cores: int) -> dict[str, float]:
        """CPUs and GPUs, `cores` being this machine's."""
        return {"gpu": self.gpus, "cpu": self.cpus or (CORES * self.gpus if self.gpus else cores)}
