"""What a plan will take: time, storage, reads and cost of its stages, memory of its models.

The wall time is that of list scheduling (`makespan`) with the needs of all stages.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

from lola.core.errors import ConfigError
from lola.core.makespan import Task, critical_path, makespan
from lola.training.config import TrainingConfig
from lola.training.cost import Estimate
from lola.workflows.forecast.cluster import ClusterConfig
from lola.workflows.forecast.overheads import CLUSTER_S, REPORT_S
from lola.workflows.model_shape import ModelShape

Source = Literal["finished", "minutes", "measured", "peak"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageCost:
    """What a stage takes.

    Arguments:
        needs: The names of the stages that come before.
        source: Where its time is known from.
        seconds: How long one of its parts takes.
        parts: How many parts it has, which may run at once.
        resources: CPUs and GPUs that a part occupies.
        stored: Bytes that are kept.
        read: Bytes that are read.
        scratch: Further bytes while it runs.
        took: Seconds that it took, if it is finished and its manifest says so.
    """

    name: str
    needs: tuple[str, ...] = ()
    source: Source = "peak"
    seconds: float = 0.0
    parts: int = 1
    resources: Mapping[str, float] = dataclasses.field(default_factory=dict)
    stored: float = 0.0
    read: float = 0.0
    scratch: float = 0.0
    took: float | None = None

    def hours(self, resource: str) -> float:
        return self.parts * self.seconds * self.resources.get(resource, 0) / 3600


@dataclasses.dataclass(frozen=True)
class ModelCost:
    """What the training of a model takes.

    Arguments:
        name: The stage's name.
        shape: The model and its samples.
        estimate: Its memory and arithmetic on each worker.
        seconds_per_step: As measured, else as estimated.
        recorded: Whether the steps that its minutes are, if it is given any, were measured.
    """

    name: str
    shape: ModelShape
    training: TrainingConfig
    estimate: Estimate
    seconds_per_step: float
    recorded: bool = False

    @property
    def remedy(self) -> str:
        """What makes a batch fit the memory of a GPU, or of this machine; empty if it fits."""
        if self.training.gpus or not self.estimate.remedy:
            return self.estimate.remedy
        return "a smaller --batch-size or a larger --accumulate"


@dataclasses.dataclass(frozen=True)
class Forecast:
    """What a plan will take.

    Arguments:
        stages: Its stages, in order.
        capacity: CPUs and GPUs of the cluster.
        simulating: Seconds that missing data take to simulate.
        reporting: Seconds that the report takes.
    """

    stages: tuple[StageCost, ...]
    capacity: Mapping[str, float]
    cluster: ClusterConfig
    models: tuple[ModelCost, ...] = ()
    simulating: float = 0.0
    reporting: float = REPORT_S

    @property
    def overhead_seconds(self) -> float:
        """Seconds before the first stage and after the last one."""
        return CLUSTER_S + self.simulating + self.reporting

    def hours(self, resource: str) -> float:
        return sum(stage.hours(resource) for stage in self.stages)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to make."""
        return all(stage.source == "finished" for stage in self.stages)

    @property
    def stored(self) -> float:
        """Bytes that are still to be written and stay."""
        return sum(stage.stored for stage in self.stages if stage.source != "finished")

    @property
    def storage_bytes(self) -> float:
        """Bytes that the storage must have free: with what trainings take meanwhile, if all run at once."""
        return self.stored + sum(stage.scratch for stage in self.stages)

    def wall(self, gpus: float | None = None) -> float:
        """Seconds from the start to the end, on this or another number of GPUs."""
        scale = 1.0 if gpus is None else gpus / self.capacity["gpu"]
        capacity = {name: scale * amount for name, amount in self.capacity.items()}
        return self.overhead_seconds + makespan(self._tasks(), capacity)

    @property
    def critical_seconds(self) -> float:
        """Seconds where nothing is scarce: no number of GPUs is faster."""
        return self.overhead_seconds + critical_path(self._tasks())

    def _tasks(self) -> list[Task]:
        return [
            Task(stage.name, stage.seconds, frozenset(stage.needs), stage.resources)
            for stage in self.stages
            for _ in range(stage.parts)
        ]

    @property
    def cost(self) -> float:
        if self.cluster.gpus:
            return self.hours("gpu") * self.cluster.gpu_price
        return self.hours("cpu") * self.cluster.cpu_price

    def require_storage(self, free: float) -> None:
        """Raise `ConfigError` if the storage has too little space; `free` are the bytes that it has."""
        available = self.cluster.storage * 1e9 or free
        if self.storage_bytes > available:
            raise ConfigError(
                f"this plan needs {self.storage_bytes / 1e9:.4g} GB of storage ({self.stored / 1e9:.4g} GB "
                f"of results, the rest for checkpoints), and {available / 1e9:.4g} GB are free; "
                "give it a larger --storage, fewer --latent-channels or --cache.dtype float16"
            )
