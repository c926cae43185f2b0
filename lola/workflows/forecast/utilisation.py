"""The fraction of a GPU's peak performance that networks reach: as measured on its kind, else assumed.

`experiments/benchmarks/gpu.py` measures it, and this package has records by kind of GPU: the shares of the
published peak that compiled trainings reached.

    {"device": {"name": "NVIDIA H100", ...}, "utilisation": {"autoencoder": 0.3, "emulator": 0.5}}

A record whose figures are known to be outdated says so as `note`.
"""

import dataclasses
import json
from pathlib import Path
from typing import Literal

from lola.core.errors import DataError
from lola.workflows.forecast.cluster import ClusterConfig

ASSUMED = 0.4
SAME_PROCESSOR = {"h100": "h200", "h200": "h100"}  # with other memory
NOT_MEASURED = "assumed, not measured on a GPU"
RECORDS = Path(__file__).parent / "records"

Network = Literal["autoencoder", "emulator"]


@dataclasses.dataclass(frozen=True)
class Utilisation:
    """The fractions of peak performance, and where they are from."""

    autoencoder: float
    emulator: float
    source: str
    measured: bool = False

    def of(self, network: Network) -> float:
        return self.autoencoder if network == "autoencoder" else self.emulator

    def __str__(self) -> str:
        share = f"{self.emulator:.0%}"
        if self.autoencoder != self.emulator:
            share = f"{share}, of autoencoders {self.autoencoder:.0%},"
        return f"{share} of peak performance ({self.source})"


def utilisation(cluster: ClusterConfig, records: Path = RECORDS) -> Utilisation:
    """The fractions on a cluster: configured, else recorded of GPUs with its processor, else assumed.

    Raises:
        DataError: The record of its kind of GPU is damaged.
    """
    if cluster.utilisation is not None:
        return Utilisation(cluster.utilisation, cluster.utilisation, "--cluster.utilisation")
    kinds = (cluster.kind, SAME_PROCESSOR.get(cluster.kind, ""))
    path = next((path for kind in kinds if (path := records / f"{kind}.json").exists()), None)
    if not cluster.gpus or path is None:
        return Utilisation(ASSUMED, ASSUMED, NOT_MEASURED if cluster.gpus else "assumed")
    try:
        record = json.loads(path.read_text())
        shares = {name: float(share) for name, share in record["utilisation"].items()}
        source = ", ".join(filter(None, (f"measured on {record['device']['name']}", record.get("note"))))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{path} is no record of the benchmark on a GPU ({error!r}); remove it") from error
    wrong = {name: share for name, share in shares.items() if not 0 < share <= 1}
    if wrong:
        raise DataError(f"{path} has utilisations outside (0, 1]: {wrong}; measure again")
    return Utilisation(shares.get("autoencoder", ASSUMED), shares.get("emulator", ASSUMED), source, True)
