"""The cluster that a plan is priced for."""

import dataclasses
from typing import Annotated, Literal

from lola.core.config import Config, NonNegativeInt, NotNegative, Within

CORES = 24  # per GPU, of the usual machines of 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClusterConfig(Config):
    """A cluster and its prices.

    Arguments:
        gpus: Number of GPUs; 0 plans for CPUs like this machine's.
        kind: Model of the GPUs, whose published peak performance is used.
        utilisation: Assumed fraction of peak performance, where no speed was measured. By default that which
            a benchmark measured on such GPUs, else 0.4.
        cpus: CPU cores; 0 is 24 per GPU, or this machine's.
        storage: Gigabytes available for results; 0 is the free space of the storage root.
        gpu_price: Price of a GPU for an hour.
        cpu_price: Price of a CPU core for an hour, in clusters without GPUs.
        storage_price: Price of a terabyte for a month of 30 days.
    """

    gpus: NonNegativeInt = 0
    kind: Literal["h100", "h100-pcie", "h200", "a100-80gb", "a100-40gb", "l40s"] = "h100"
    utilisation: Annotated[float, Within("(0, 1]")] | None = None
    cpus: NonNegativeInt = 0
    storage: NotNegative = 0.0
    gpu_price: NotNegative = 0.0
    cpu_price: NotNegative = 0.0
    storage_price: NotNegative = 0.0

    def capacity(self, cores: int) -> dict[str, float]:
        """CPUs and GPUs, `cores` being this machine's."""
        return {"gpu": self.gpus, "cpu": self.cpus or (CORES * self.gpus if self.gpus else cores)}
